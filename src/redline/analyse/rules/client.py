"""Is it the server that was measured, or the load generator?"""

from __future__ import annotations

import math

from redline.analyse.case import Case, Rule, Said
from redline.analyse.percentile import percentile
from redline.units import NS_PER_MS, NS_PER_S

_LATE_READ_MS = 10.0
_LOOP_LAG_MS = 1.0
_SHARE, _SHARE_BOUND = 0.1, 0.3
_PARENT_BUSY = 0.9
_OPEN = ("constant", "poisson", "gamma")  # stages and traces: `traffic.plan_not_sent`


def send_lag(case: Case) -> Said:
    """Like against like: the median lag may not move the median TTFT, the lag's tail not the tail. Where no answer has
    a first token (embeddings), E2E stands for TTFT, here and below.
    """
    middle, tail = case.number("send_lag_ms_p50"), case.number("send_lag_ms_p99")
    if math.isnan(tail):
        own = case.requests.pick(~case.requests.warmup & (case.requests.sent_ns > 0))
        lags = (own.sent_ns - own.intended_ns) / NS_PER_MS
        middle, tail = percentile(lags, 0.5), percentile(lags, 0.99)
    if case.number("held_back") > 0:
        return None  # they waited for the cap that was asked for: `held_back` says so
    name, metric = _answered(case)
    waited = case.latencies.good(f"{metric}.sent")
    usual, late = percentile(waited, 0.5), percentile(waited, 0.99)
    if middle > max(0.1 * usual, 0.5):
        return (
            "client-bound",
            f"requests left {middle:.1f} ms late at the median, beside a median {name} of {usual:.1f} ms",
        )
    if not tail > max(0.1 * late, 1.0):
        return None
    state = "client-bound" if tail > 0.5 * late else "degraded"
    return state, f"some requests left late: send lag p99 is {tail:.1f} ms beside {late:.1f} ms of {name} p99"


def held_back(case: Case) -> Said:
    """A cap on requests in flight moves the waiting from the server's queue, where it is measured, into the client.

    From the actual send everything then looks fine; from the intended start it does not. Client-bound when the two
    medians or p99s of TTFT differ by more than a tenth.
    """
    held, cap = case.number("held_back"), case.number("max_in_flight")
    if not held > 0:
        return None
    told = f"{held:.0f} requests waited in the client for the cap of {cap:.0f} in flight"
    label, metric = _answered(case)
    for name, level in (("p50", 0.5), ("p99", 0.99)):
        intended = percentile(case.latencies.headline(metric), level)
        sent = percentile(case.latencies.headline(f"{metric}.sent"), level)
        if intended > 1.1 * sent:
            more = f"{intended / sent:.1f} times as long" if math.isfinite(intended) else "for ever"
            return "client-bound", (
                f"{told}: {label} {name} is {sent:,.0f} ms from the send and {intended:,.0f} ms from the intended "
                f"start ({more}); judge the server by the latter"
            )
    return ("degraded", told) if held > 0.01 * case.number("sent") else None


def never_sent(case: Case) -> Said:
    """Open loop: requests that were due and never left are missing from every percentile, and would be the slowest."""
    planned, sent = case.number("planned"), case.number("sent")
    # turns of a session are due when the answer before is there: nobody knows how many will be
    open_loop = case.asked is not None and case.asked[0] in _OPEN and not (case.requests.session >= 0).any()
    over = case.outcome.get("stopped_by") in ("requests", "duration")
    if not open_loop or not over or not planned - sent > 0.01 * planned:
        return None
    return "client-bound", f"{planned - sent:.0f} of {planned:.0f} requests that were due never left the client"


def loop_lag(case: Case) -> Said:
    """The load worker's loop came late to what was due: with it went sends, and reads where the client stamps itself.

    p99 against the median ITL (TTFT without one), and at least 1 ms. Where the client stamps its own reads a tenth of
    it is worth a word and half of it is client-bound; the kernel's stamps do not move with it: there it takes all.
    """
    lag = case.number("loop_lag_ms_p99")
    scale = _usual_gap_ms(case)
    if not lag > max(_LOOP_LAG_MS, 0.1 * scale):
        return None
    own = len(case.good) > 0 and float((case.good.stamp == "user").mean()) > 0.01
    much = f"the load worker's loop was up to {lag:.1f} ms late (p99), {case.number('loop_lag_ms_max'):.0f} ms at worst"
    if own and lag > 0.5 * scale:
        return "client-bound", f"{much}, beside a median gap of {scale:.1f} ms that it stamps itself"
    return ("degraded", much) if own or lag > scale else None


def share_of_ttft(case: Case) -> Said:
    """How much of TTFT is the client's: lateness of the send, the connection, and (user-space stamps) of the read.

    A tenth is worth a word; three tenths of lateness are no measurement of the server. Connecting alone never is worse
    than a word: its users connect too. At p50 and at p99, like against like.
    """
    if case.number("held_back") > 0:
        return None
    own = case.requests.pick(case.latencies.row[~case.latencies.failed])
    before = (own.sent_ns - own.intended_ns) / NS_PER_MS
    read = case.number("read_lag_ms_p99") if len(own) and (own.stamp == "user").any() else 0.0
    label, metric = _answered(case)
    for name, level in (("p99", 0.99), ("p50", 0.5)):
        ttft, late = percentile(case.latencies.good(metric), level), case.number(f"send_lag_ms_{name}")
        read_late = read if level > 0.5 and read > 0 else 0.0
        mine = percentile(before, level) + read_late
        if ttft > 0 and mine > max(_SHARE * ttft, 1.0):
            lateness = read_late + (percentile(before, level) if math.isnan(late) else late)
            state = "client-bound" if lateness > _SHARE_BOUND * ttft else "degraded"
            return state, (
                f"{mine / ttft:.0%} of {label} {name} passed on the client's side, connecting included: "
                f"{mine:.1f} ms of {ttft:.1f} ms"
            )
    return None


def parent_behind(case: Case) -> Said:
    """redline itself did not keep up with its workers: their records went through the disk, or its core was full."""
    seconds = (case.ended_ns - case.number("measured_from_ns")) / NS_PER_S
    busy = case.number("parent_cpu_s") / seconds if seconds > 0 else math.nan
    spilled = case.number("spilled_bytes")
    if spilled > 0:
        return "degraded", f"{spilled / 1e6:.0f} MB of records waited on disk: redline was slower than its load workers"
    if busy > _PARENT_BUSY:
        return "degraded", f"redline itself kept a core {min(busy, 1):.0%} busy with parsing and storing"
    return None


def client_cpu(case: Case) -> Said:
    """The busiest load worker used 85 % of its core or more: from there on lateness grows without bound."""
    busy = _client_busy(case)
    if math.isnan(busy) or busy < 0.85:
        return None
    return "client-bound", f"the load generator kept its core {min(busy, 1):.0%} busy"


def starved(case: Case) -> Said:
    """More than one request in a hundred was due before redline had made its prompt."""
    starved, sent = case.number("starved"), case.number("sent")
    if not starved > 0.01 * sent:
        return None
    return "client-bound", f"{starved:.0f} requests were due before the load generator had made them"


def never_left(case: Case) -> Said:
    """A server cannot fail what it was never sent."""
    count = case.number("never_left")
    if not count > 0:
        return None
    return "client-bound", (f"{count:.0f} requests never left: this box had no free port or file descriptor for them")


def user_stamps(case: Case) -> Said:
    """Stamps taken after the read contain the client's own lateness. Client-bound when that is a tenth of the median
    ITL (TTFT without one) and more than 1 ms.
    """
    good = case.good
    share = float((good.stamp == "user").mean()) if len(good) else 0.0
    if share <= 0.01:
        return None
    text = f"arrivals of {share:.0%} of the answers were stamped in user space, not by the kernel"
    late = case.number("read_lag_ms_p99")
    if math.isnan(late):
        return "degraded", text
    # that late is a gap of the client's own making
    state = "client-bound" if late > 0.1 * _usual_gap_ms(case) and late > 1 else "degraded"
    return state, f"{text}: up to {late:.2f} ms late (p99)"


def shared_stamps(case: Case) -> Said:
    """Where each segment has a stamp of its own, tokens that share one were sent together: no fault of the client's."""
    good = case.good.pick(case.good.stamp != "packet")
    chunks = int(good.chunks.sum())
    share = float(good.shared_stamps.sum()) / chunks if chunks else 0.0
    busy = _client_busy(case)
    keeps_up = busy < 0.5 and not case.number("read_lag_ms_p99") > _LATE_READ_MS
    if share <= 0.1 or keeps_up:
        return None
    return "degraded", (
        f"{share:.0%} of the chunks share their arrival stamp with the one before: sent together, or merged while the "
        "client was busy; the ITL between them reads 0"
    )


RULES: tuple[Rule, ...] = (
    send_lag,
    held_back,
    never_sent,
    share_of_ttft,
    loop_lag,
    parent_behind,
    client_cpu,
    starved,
    never_left,
    user_stamps,
    shared_stamps,
)


def _answered(case: Case) -> tuple[str, str]:
    """The latency in which a late client shows first, as it is called and as it is kept."""
    return ("TTFT", "ttft_ms") if len(case.latencies.good("ttft_ms")) else ("E2E", "e2e_ms")


def _usual_gap_ms(case: Case) -> float:
    """The median gap; TTFT where most tokens come with another, or none has one before it."""
    gap = case.latencies.gaps.percentiles([0.5])[0]
    return gap if gap > 0 else percentile(case.latencies.good(f"{_answered(case)[1]}.sent"), 0.5)


def _client_busy(case: Case) -> float:
    """CPU seconds of the busiest load worker per second of the point; NaN when not known."""
    begin = case.number("measured_from_ns")
    if math.isnan(begin):
        begin = float(case.requests.intended_ns.min()) if len(case.requests) else 0.0
    seconds = (case.ended_ns - begin) / NS_PER_S
    used = case.number("worker_cpu_s_max")
    used = case.number("client_cpu_s") if math.isnan(used) else used
    return used / seconds if seconds > 0 else math.nan
