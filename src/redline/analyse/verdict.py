"""May the numbers of a load point be believed? Each rule is one function: it looks, and speaks up or not.

The state of a point is the worst that any rule says: `invalid` (the numbers mean nothing), `client-bound` (they
measure the load generator), `degraded` (they hold with the reservation given), else `valid`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from redline.analyse.censoring import kaplan_meier, with_cut_off
from redline.analyse.finding import Verdict
from redline.analyse.latency import Latencies
from redline.analyse.percentile import FEW_FOR_P99, percentile
from redline.analyse.window import SteadyWindow
from redline.store.requests import Requests
from redline.units import NS_PER_MS, NS_PER_S

STATES = ("valid", "degraded", "client-bound", "invalid")

Said = tuple[str, str] | None


@dataclass(frozen=True)
class Case:
    """What the rules look at. `asked` is the kind and value of the load point, `exact_output` whether every answer
    was to be exactly as long as asked; `outcome` is what the load generator said about itself, any key may lack."""

    requests: Requests
    latencies: Latencies
    window: SteadyWindow
    ended_ns: int
    outcome: Mapping[str, Any]
    in_flight: float = math.nan
    sent_per_s: float = math.nan
    asked: tuple[str, float] | None = None
    exact_output: bool = True

    @property
    def good(self) -> Requests:
        """The measured requests that succeeded."""
        return self.requests.pick(self.latencies.row[~self.latencies.failed])

    @property
    def cut_off(self) -> int:
        return int((~self.requests.warmup & (self.requests.status == "cancelled")).sum())

    def number(self, key: str) -> float:
        """A number of the outcome; NaN when it lacks."""
        value = self.outcome.get(key)
        return float(value) if isinstance(value, (int, float)) else math.nan


def judge(case: Case) -> Verdict:
    """The worst state, and every reason in the order of how bad it is."""
    said = [verdict for rule in RULES if (verdict := rule(case)) is not None]
    said.sort(key=lambda pair: -STATES.index(pair[0]))
    return Verdict(
        said[0][0] if said else "valid", tuple(reason for _, reason in said), tuple(level for level, _ in said)
    )


def _nothing_finished(case: Case) -> Said:
    if len(case.latencies) and not case.latencies.failed.all():
        return None
    if len(case.latencies):
        return "invalid", f"all {len(case.latencies)} requests failed{_commonest(case)}"
    why = f": all {case.cut_off} were cut off; give the point more time (duration_s, drain_s)" if case.cut_off else ""
    return "invalid", f"no request finished{why}"


def _no_tokens(case: Case) -> Said:
    good = case.good
    if len(good) == 0 or good.output_tokens.sum() > 0:
        return None
    return "invalid", "requests finished, and not one of them carried a token"


def _engine_died(case: Case) -> Said:
    by = str(case.outcome.get("stopped_by", ""))
    if "died" not in by and "dead" not in by:
        return None
    return "invalid", "the engine died under this load; what it answered before is kept"


def _interrupted(case: Case) -> Said:
    by = str(case.outcome.get("stopped_by", ""))
    if "interrupt" not in by and by not in ("cancelled", "signal", "user", "stop"):
        return None
    return "degraded", "interrupted before the point was over"


def _given_up(case: Case) -> Said:
    why = {"refused": "the server refused connections", "failing": "request after request failed"}
    by = str(case.outcome.get("stopped_by", ""))
    return ("invalid", f"given up early: {why[by]}") if by in why else None


def _failures(case: Case) -> Said:
    failed, n = int(case.latencies.failed.sum()), len(case.latencies)
    if failed == 0 or failed == n or failed / n <= 0.01:
        return None
    state = "invalid" if failed / n > 0.1 else "degraded"
    return state, f"{failed} of {n} requests failed ({failed / n:.1%}){_commonest(case)}"


def _wrong_length(case: Case) -> Said:
    good = case.good
    known = (good.asked_output_tokens > 0) & (good.output_tokens > 0) & (good.token_source != "chunks")
    asked, got = good.asked_output_tokens[known], good.output_tokens[known]
    off = got != asked if case.exact_output else got > asked
    if len(asked) == 0 or off.mean() <= 0.01:
        return None
    state = "invalid" if abs(got.sum() / asked.sum() - 1) > 0.05 else "degraded"
    return state, (
        f"output length not as asked in {off.mean():.0%} of the answers: {got.mean():.1f} tokens on average "
        f"instead of {asked.mean():.1f}"
    )


def _prompts_off(case: Case) -> Said:
    good = case.good
    known = (good.asked_prompt_tokens > 0) & (good.prompt_tokens > 0)
    asked, got = good.asked_prompt_tokens[known], good.prompt_tokens[known]
    off = int((abs(got - asked) > np.maximum(1, 0.02 * asked)).sum())
    if len(asked):
        many = off / len(asked) > 0.01
        text = f"prompt length not as asked in {off} of {len(asked)} requests: {got.mean():.0f} tokens on average"
        return ("degraded", f"{text} instead of {asked.mean():.0f}") if many else None
    told = case.number("prompts_off")
    if told > 0:
        return "degraded", f"{told:.0f} prompts could not be made exactly as long as asked"
    return None


def _send_lag(case: Case) -> Said:
    """Like against like: the median lag may not move the median TTFT, the lag's tail not the tail."""
    middle, tail = case.number("send_lag_ms_p50"), case.number("send_lag_ms_p99")
    if math.isnan(tail):
        own = case.requests.pick(~case.requests.warmup & (case.requests.sent_ns > 0))
        lags = (own.sent_ns - own.intended_ns) / NS_PER_MS
        middle, tail = percentile(lags, 0.5), percentile(lags, 0.99)
    ttft = case.latencies.good("ttft_ms.sent")
    usual, late = percentile(ttft, 0.5), percentile(ttft, 0.99)
    if middle > max(0.1 * usual, 0.5):
        return (
            "client-bound",
            f"requests left {middle:.1f} ms late at the median, beside a median TTFT of {usual:.1f} ms",
        )
    if not tail > max(0.1 * late, 1.0):
        return None
    state = "client-bound" if tail > 0.5 * late else "degraded"
    return state, f"some requests left late: send lag p99 is {tail:.1f} ms beside a TTFT p99 of {late:.1f} ms"


def _client_cpu(case: Case) -> Said:
    busy = _client_busy(case)
    if math.isnan(busy) or busy < 0.85:
        return None
    return "client-bound", f"the load generator kept its core {min(busy, 1):.0%} busy"


def _starved(case: Case) -> Said:
    starved, sent = case.number("starved"), case.number("sent")
    if not starved > 0.01 * sent:
        return None
    return "client-bound", f"{starved:.0f} requests were due before the load generator had made them"


def _shared_stamps(case: Case) -> Said:
    good = case.good
    chunks = len(good.chunk_ns)
    share = float(good.shared_stamps.sum()) / chunks if chunks else 0.0
    busy = _client_busy(case)
    if share <= 0.1 or (busy < 0.5 and not math.isnan(busy)):
        return None
    return "degraded", (
        f"{share:.0%} of the chunks share their arrival stamp with the one before: sent together, or merged while the "
        "client was busy; the ITL between them reads 0"
    )


def _few(case: Case) -> Said:
    n = int((~case.latencies.failed).sum())
    if n == 0 or len(case.latencies) >= FEW_FOR_P99:
        return None
    return "degraded", f"p99 of {len(case.latencies)} requests is their maximum (it needs {FEW_FOR_P99})"


def _guessed_tokens(case: Case) -> Said:
    good = case.good
    share = float((good.token_source == "chunks").mean()) if len(good) else 0.0
    if share <= 0.01:
        return None
    return "degraded", f"tokens are a guess in {share:.0%} of the answers: one per chunk, nobody counted them"


def _user_stamps(case: Case) -> Said:
    good = case.good
    share = float((good.stamp != "kernel").mean()) if len(good) else 0.0
    if share <= 0.01:
        return None
    text = f"arrivals of {share:.0%} of the answers were stamped in user space, not by the kernel"
    late = case.number("read_lag_ms_p99")
    if math.isnan(late):
        return "degraded", text
    # that late is a gap of the client's own making
    state = "client-bound" if late > 0.1 * case.latencies.gaps.percentiles([0.5])[0] and late > 1 else "degraded"
    return state, f"{text}: up to {late:.2f} ms late (p99)"


def _cut_off(case: Case) -> Said:
    """Speaks when the requests that were cut off would have moved a median or a p99 by a tenth or more."""
    total = len(case.latencies) + case.cut_off
    if case.cut_off == 0 or len(case.latencies) == 0 or case.latencies.failed.all():
        return None
    for metric in ("ttft_ms", "e2e_ms"):
        durations, ended = with_cut_off(case.requests, metric, case.ended_ns)
        for name, level in (("p50", 0.5), ("p99", 0.99)):
            shown = percentile(case.latencies.headline(metric), level)
            likely = kaplan_meier(durations, ended, level)
            if math.isfinite(shown) and likely > 1.1 * shown:
                beyond = "cannot be told" if math.isinf(likely) else f"is rather {likely:,.0f} ms"
                label = f"{metric.removesuffix('_ms').upper()} {name}"
                return "degraded", (
                    f"{case.cut_off} of {total} requests were cut off when the point ended, the slow ones first: "
                    f"{label} reads {shown:,.0f} ms and {beyond}; give the point more time"
                )
    return None


def _not_steady(case: Case) -> Said:
    if len(case.latencies) == 0 or (case.window.found and not case.window.note):
        return None
    return "degraded", f"no steady state: {case.window.note}" if not case.window.found else case.window.note


def _load_not_reached(case: Case) -> Said:
    if case.asked is None or len(case.latencies) == 0:
        return None
    kind, asked = case.asked
    got = case.in_flight if kind == "closed" else case.sent_per_s
    # a Poisson stream misses its rate by chance: allow two standard deviations
    chance = 2 / math.sqrt(max(asked * case.window.seconds, 1)) if kind == "poisson" else 0.0
    if math.isnan(got) or got >= asked * (0.9 - chance):
        return None
    what = f"{got:.1f} in flight instead of {asked:g}" if kind == "closed" else f"{got:.2f} req/s instead of {asked:g}"
    return "degraded", f"the load asked for was not reached: {what}"


RULES: tuple[Callable[[Case], Said], ...] = (
    _nothing_finished,
    _engine_died,
    _given_up,
    _no_tokens,
    _failures,
    _wrong_length,
    _send_lag,
    _client_cpu,
    _starved,
    _interrupted,
    _cut_off,
    _not_steady,
    _load_not_reached,
    _guessed_tokens,
    _prompts_off,
    _user_stamps,
    _shared_stamps,
    _few,
)


def _client_busy(case: Case) -> float:
    """CPU seconds of the load generator per second of the point; NaN when not known."""
    begin = case.number("measured_from_ns")
    if math.isnan(begin):
        begin = float(case.requests.intended_ns.min()) if len(case.requests) else 0.0
    seconds = (case.ended_ns - begin) / NS_PER_S
    return case.number("client_cpu_s") / seconds if seconds > 0 else math.nan


def _commonest(case: Case) -> str:
    """ ": mostly timeout" of the failed requests."""
    failed = case.requests.status[case.latencies.row[case.latencies.failed]]
    names, counts = np.unique(failed, return_counts=True)
    if len(names) == 0:
        return ""
    return f": {'mostly ' if len(names) > 1 else 'all '}{names[counts.argmax()]}"
