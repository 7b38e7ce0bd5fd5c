"""One load point in findings: every latency, every rate, the counts behind them and the verdict over them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from redline.analyse.bootstrap import gap_draws, generator, interval, mean_draws, percentile_draws, rate_draws
from redline.analyse.classes import ClassSummary, class_summaries, met_by_class
from redline.analyse.finding import Finding, Interval, Verdict
from redline.analyse.gaps import Gaps, tokens_per_chunk
from redline.analyse.latency import DEFINITION, METRICS, Latencies, latencies_of
from redline.analyse.percentile import LEVELS, Floats, enough_to_bound, in_order
from redline.analyse.slo import promised_share, wilson
from redline.analyse.stages import UNSTEADY, whole_window
from redline.analyse.throughput import SLICES, block_length, mean_in_flight, rates_of
from redline.analyse.verdict import Case, judge
from redline.analyse.window import SteadyWindow, find_window
from redline.spec.promise import Promise
from redline.store.requests import Bools, Names, Requests
from redline.units import DEFINITIONS


@dataclass(frozen=True)
class PointSummary:
    """`findings` by name: `ttft_ms.p50` (failures count as +inf), `ttft_ms.ok.p50` (successes only),
    `ttft_ms.sent.p50` (from the actual send), `output_tokens_per_s`, …

    `counts` has every status met, plus `measured` (all but warm-up), `counted` (measured and not cut off) and
    `warmup`. `draws` are bootstrap replicates of the findings that comparisons are made of.
    """

    findings: dict[str, Finding]
    counts: dict[str, int]
    tokens_per_chunk: dict[int, int]
    token_sources: dict[str, int]
    stamps: dict[str, int]
    window: SteadyWindow
    verdict: Verdict
    notes: tuple[str, ...] = ()
    draws: dict[str, Floats] = field(default_factory=dict, repr=False)
    classes: dict[str, ClassSummary] = field(default_factory=dict)
    """The classes of a mixed workload, each by itself."""

    def value(self, name: str) -> float:
        """NaN when there is no such finding."""
        finding = self.findings.get(name)
        return math.nan if finding is None else finding.value


@dataclass
class _Book:
    """Findings as they are made, each with its replicates."""

    seed: int
    run_id: str
    intervals: bool = True
    findings: dict[str, Finding] = field(default_factory=dict)
    draws: dict[str, Floats] = field(default_factory=dict)

    def rng(self, name: str) -> np.random.Generator:
        return generator(self.seed, name)

    def forget(self, names: Iterable[str]) -> None:
        """What was computed from data that cannot give it, such as an import of means."""
        for name in names:
            for key in [key for key in self.findings if key == name or key.startswith(f"{name}.")]:
                note = "not in the imported file"
                self.findings[key] = replace(self.findings[key], value=math.nan, interval=None, note=note)
                self.draws.pop(key, None)

    def write(
        self,
        name: str,
        value: float,
        definition: str,
        draws: Callable[[], Floats] | None = None,
        band: Interval | None = None,
        note: str = "",
        of: int = 0,
    ) -> None:
        if draws is not None and self.intervals and len(drawn := draws()):
            self.draws[name] = drawn
            band = interval(drawn)
        unit = DEFINITIONS[definition].unit
        self.findings[name] = Finding(name, value, unit, definition, band, runs=(self.run_id,), note=note, of=of)


def summarise_point(
    requests: Requests,
    *,
    window_hint: tuple[int, int],
    slo: Mapping[str, float],
    attainment: float,
    outcome: Mapping[str, Any],
    seed: int,
    run_id: str,
    asked: tuple[str, float] | None = None,
    exact_output: bool = True,
    promises: Mapping[str, Promise] | None = None,
    latencies: Latencies | None = None,
    window: SteadyWindow | None = None,
    intervals: bool = True,
) -> PointSummary:
    """`window_hint` is when the warm-up was over and when the point ended; `asked` the load point's kind and value;
    `exact_output` whether every answer was to be exactly as long as asked; `promises` what each class of a mixed
    workload is promised: a request is good by the terms of its class. The same input gives the same output.

    `latencies` and `window` (by `window_of`) are those of the same requests, when at hand. Without `intervals` nothing
    is bootstrapped: the same values and the same verdict, at a fraction of the time.
    """
    ended = window_hint[1]
    latencies = latencies or latencies_of(requests)
    window = window or window_of(requests, window_hint, asked)
    book = _Book(seed, run_id, intervals)
    _latencies(book, latencies)
    _gaps(book, latencies.gaps)
    good = met_by_class(requests, latencies, slo, promises or {})
    _rates(book, requests, latencies, window, good)
    in_flight = mean_in_flight(requests, window, ended)
    book.write("in_flight", in_flight, "in_flight@1")
    _shares(book, requests, latencies, good, attainment)
    _lengths(book, requests, latencies)
    book.forget(outcome.get("not_measured") or ())
    case = Case(
        requests, latencies, window, ended, outcome, in_flight, book.findings["sent_per_s"].value, asked, exact_output
    )
    verdict = judge(case)
    sent = ~requests.warmup & (requests.sent_ns > 0)
    return PointSummary(
        book.findings, _counts(requests, latencies), _chunks_of(requests, latencies), _tally(case.good.token_source),
        _tally(requests.stamp[sent]), window, verdict, _notes(outcome), book.draws,
        class_summaries(requests, window, promises or {}, seed=seed, run_id=run_id),
    )  # fmt: skip


def window_of(requests: Requests, hint: tuple[int, int], asked: tuple[str, float] | None) -> SteadyWindow:
    """The window that the rates of a load point are taken in; `hint` and `asked` as in `summarise_point`."""
    unsteady = asked is not None and asked[0] in UNSTEADY
    return (whole_window if unsteady else find_window)(requests, *hint)


def _latencies(book: _Book, latencies: Latencies) -> None:
    for metric in METRICS:
        good = latencies.good(metric)
        ordered = np.sort(latencies.headline(metric))
        for prefix, values in ((metric, ordered), (f"{metric}.ok", ordered[: len(good)])):  # failures come last: +inf
            for name, level in LEVELS.items():
                book.write(
                    f"{prefix}.{name}", in_order(values, level), DEFINITION[metric],
                    # one stream of random numbers for both: without failures they are the same number
                    partial(percentile_draws, values, level, book.rng(f"{metric}.{name}"), in_order=True),
                    note=_doubt(len(values), level), of=len(values),
                )  # fmt: skip
        key = f"{metric}.ok.mean"
        mean = float(good.mean()) if len(good) else math.nan
        drawn = partial(mean_draws, good, book.rng(key))
        book.write(key, mean, DEFINITION[metric], drawn, note=_doubt(len(good), 0.5))


def _gaps(book: _Book, gaps: Gaps) -> None:
    good = gaps.of_good() if gaps.missing.any() else gaps
    with ThreadPoolExecutor(1, "redline-gaps") as beside:  # numpy leaves the interpreter to others while it computes
        apart = None if good is gaps else beside.submit(_gap_percentiles, book, good)
        every = _gap_percentiles(book, gaps)
    for prefix, of, (clusters, values, draws) in (
        ("itl_ms", gaps, every), ("itl_ms.ok", good, apart.result() if apart else every),
    ):  # fmt: skip
        for name, value, drawn in zip(LEVELS, values, draws, strict=True):
            book.write(
                f"{prefix}.{name}", value, "itl_ms@1", partial(_as_is, drawn), note=_doubt(clusters, 0.5), of=len(of)
            )
    book.write("itl_ms.ok.mean", good.mean(), "itl_ms@1")


def _gap_percentiles(book: _Book, gaps: Gaps) -> tuple[int, list[float], list[Floats]]:
    """How many requests have gaps, the percentiles of all gaps, and their replicates."""
    levels = list(LEVELS.values())
    clusters = int((gaps.per_owner() > 0).sum())
    draws = gap_draws(gaps, levels, book.rng("itl_ms")) if book.intervals else [np.empty(0)] * len(levels)
    return clusters, gaps.percentiles(levels), draws


def _as_is(draws: Floats) -> Floats:
    return draws


def _rates(book: _Book, requests: Requests, latencies: Latencies, window: SteadyWindow, good: Bools | None) -> None:
    block = block_length(requests, window)
    for name, rate in rates_of(requests, latencies, window, good).items():
        drawn = partial(rate_draws, rate.counts, window.seconds, block, book.rng(name))
        draws = drawn if rate.counts.any() else None
        note = window.note if block * 4 <= SLICES else "the window holds fewer than four requests end to end"
        book.write(name, rate.value, f"{name}@1", draws, note=note)


def _shares(book: _Book, requests: Requests, latencies: Latencies, good: Bools | None, attainment: float) -> None:
    n, failed = len(latencies), int(latencies.failed.sum())
    book.write("failed_share", failed / n if n else math.nan, "failed_share@1", band=wilson(failed, n))
    measured = ~requests.warmup & (requests.canary < 0)
    cut = requests.status[measured] == "cancelled"
    book.write("cut_off_share", float(cut.mean()) if len(cut) else math.nan, "cut_off_share@1")
    if good is not None:
        hits = int(good.sum())
        note = "" if n == 0 or hits / n >= attainment else f"below the {promised_share(attainment)} promised"
        book.write("slo_attainment", hits / n if n else math.nan, "slo_attainment@1", band=wilson(hits, n), note=note)


def _lengths(book: _Book, requests: Requests, latencies: Latencies) -> None:
    good = requests.pick(latencies.row[~latencies.failed])
    for name in ("prompt_tokens", "output_tokens"):
        column = getattr(good, name)
        book.write(name, float(column.mean()) if len(column) else math.nan, f"{name}@1")
    prompts = int(good.prompt_tokens.sum())
    book.write("cached_share", float(good.cached_tokens.sum()) / prompts if prompts else math.nan, "cached_share@1")


def _counts(requests: Requests, latencies: Latencies) -> dict[str, int]:
    measured = ~requests.warmup
    return {
        "measured": int(measured.sum()),
        "counted": len(latencies),
        "failed": int(latencies.failed.sum()),
        "warmup": int(requests.warmup.sum()),
        **_tally(requests.status[measured]),
    }


def _chunks_of(requests: Requests, latencies: Latencies) -> dict[int, int]:
    """Chunks of the counted requests that succeeded, by their tokens: of all less those of the others, who are few."""
    others = np.ones(len(requests), np.bool_)
    others[latencies.row[~latencies.failed]] = False
    less = tokens_per_chunk(requests.pick(others))
    left = ((size, count - less.get(size, 0)) for size, count in tokens_per_chunk(requests).items())
    return {size: count for size, count in left if count}


def _tally(column: Names) -> dict[str, int]:
    """How often each name is met: there are few of them, so each is looked for."""
    found = {}
    while len(column):
        same = column == column[0]
        found[str(column[0])] = int(same.sum())
        column = column[~same]
    return dict(sorted(found.items()))


def _doubt(n: int, level: float) -> str:
    """What a percentile of n values cannot say."""
    if n == 0:
        return "no value"
    if n < 3:
        return f"only {n} value{'s' if n > 1 else ''}: no interval"
    if not enough_to_bound(n, level):
        return f"{n} values do not bound this percentile from above: read the upper end of the interval as 'at least'"
    return ""


def _notes(outcome: Mapping[str, Any]) -> tuple[str, ...]:
    notes = outcome.get("notes") or ()
    return (notes,) if isinstance(notes, str) else tuple(str(note) for note in notes)
