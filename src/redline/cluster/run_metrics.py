"""A run as Prometheus sees it: what the client measured so far, and the last sample of each sampler while it goes on.

Counters and histograms are of the requests that count (no warm-up, no canary, none that was cut off), by the
definitions of `units`; the histograms have an edge at each limit of the SLO. Every look reads only what is new.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

from redline import __version__
from redline.analyse.latency import latencies_of
from redline.analyse.slo import met
from redline.clock import now_ns
from redline.cluster.gauges import gauge, gauges
from redline.errors import RedlineError
from redline.load.record import RequestRecord
from redline.observe.sample import Sample
from redline.spec.slo import SloSpec
from redline.store.from_records import columns_of
from redline.store.read import Reader
from redline.store.rows import PointRow, RunRow, TrialRow
from redline.store.tail import BATCH, Tail

LABELS = ("run", "engine", "model", "load")
TIMES = {
    "ttft": ("ttft_ms", "redline_request_ttft_seconds", "Time to first token, from the intended start"),
    "tpot": ("tpot_ms", "redline_request_tpot_seconds", "Time per output token after the first"),
    "e2e": ("e2e_ms", "redline_request_e2e_seconds", "End to end, from the intended start"),
}
ITL = ("redline_itl_seconds", "Gaps between tokens")
EDGES_S = (
    *(0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75),
    *(1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0),
)
MOST_AT_ONCE = 20 * BATCH
"""Requests taken in by one look, so that a page of a large finished run is not late; the next look goes on."""
STALE_NS = 15 * 10**9


@dataclass
class Buckets:
    """`edges` in ms. Failures are beyond all edges and not in the sum."""

    edges: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    total_s: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.edges) + 1)

    def add(self, values_ms: Any) -> None:
        values = values_ms[~np.isnan(values_ms)]
        for place, count in zip(*np.unique(np.searchsorted(self.edges, values), return_counts=True), strict=True):
            self.counts[int(place)] += int(count)
        self.total_s += float(values[np.isfinite(values)].sum()) / 1000

    def add_many(self, value_ms: float, count: int) -> None:
        self.counts[bisect_left(self.edges, value_ms)] += count

    def cumulative(self) -> list[tuple[str, float]]:
        sums = np.cumsum(self.counts).tolist()
        return [(f"{edge / 1000:g}", n) for edge, n in zip(self.edges, sums, strict=False)] + [("+Inf", sums[-1])]


class PointTotals:
    """All that was counted of one load point."""

    def __init__(self, slo: SloSpec) -> None:
        self.slo = slo
        self.after = 0
        self.status: Counter[str] = Counter({"ok": 0})
        self.judged = self.good = self.prompt_tokens = self.output_tokens = 0
        self.times = {name: Buckets(_edges(slo.terms.get(column))) for name, (column, _, _) in TIMES.items()}
        self.itl = Buckets(_edges(slo.terms.get("itl_ms")))

    def take(self, records: Sequence[RequestRecord]) -> None:
        requests = columns_of(records)
        self.status.update(str(record.status) for record in records)
        latencies = latencies_of(requests)
        ok = requests.pick(latencies.row[~latencies.failed])
        self.prompt_tokens += int(ok.prompt_tokens.sum())
        self.output_tokens += int(ok.output_tokens.sum())
        self.judged += len(latencies)
        self.good += int(met(latencies, self.slo.terms).sum())
        for name, (column, _, _) in TIMES.items():
            self.times[name].add(latencies.values[column])
        self.itl.add(latencies.gaps.ms)
        self.itl.add_many(0.0, int(latencies.gaps.zeros.sum()))
        self.itl.add_many(float("inf"), int(latencies.gaps.missing.sum()))


def _edges(limit_ms: float | None) -> tuple[float, ...]:
    own = {limit_ms} if limit_ms is not None else set()
    return tuple(sorted({round(edge * 1000, 6) for edge in EDGES_S} | own))


class RunCollector:
    """A collector of prometheus_client. `which` is as `redline report` takes it; `last` follows the newest run."""

    def __init__(self, db: Path, which: str = "last") -> None:
        self.db = db
        self.which = which
        self._run_id = ""
        self._points: dict[int, PointTotals] = {}

    def collect(self) -> Iterator[Metric]:
        yield gauge("redline_exporter_info", "This exporter", 1.0, {"version": __version__})
        try:
            with Reader.open(self.db) as reader, Tail.open(self.db) as tail:
                yield from self._run(reader.run(self.which), tail)
                readable = 1.0
        except RedlineError:
            # nothing measured yet, or the file is being made: the page says so and is there all the same
            readable = 0.0
        yield gauge("redline_store_readable", "Whether there is a run in the results file", readable)

    def _run(self, run: RunRow, tail: Tail) -> Iterator[Metric]:
        if run.id != self._run_id:
            self._run_id, self._points = run.id, {}
        slo, live = _slo(run), run.status == "running"
        verdict = {"run": run.id, "name": run.name, "status": run.status, "verdict": run.verdict}
        yield gauge("redline_run_info", "The run that is told of", 1.0, verdict)
        yield gauge("redline_run_live", "1 while the run goes on", float(live), {"run": run.id})
        started = datetime.fromisoformat(run.started_wall).timestamp()
        yield gauge("redline_run_started_timestamp_seconds", "When it began", started, {"run": run.id})
        pairs = [(trial, point) for trial in run.trials for point in trial.points]
        behind = self._catch_up(pairs, slo, tail)
        yield gauge("redline_requests_behind", "Stored and not yet in these counts", float(behind), {"run": run.id})
        yield from self._totals(run, pairs)
        if live:
            yield from _samples(run, tail)

    def _catch_up(self, pairs: Sequence[tuple[TrialRow, PointRow]], slo: SloSpec, tail: Tail) -> int:
        """How many are left for the next look."""
        left, behind = MOST_AT_ONCE, 0
        for _, point in pairs:
            totals = self._points.setdefault(point.id, PointTotals(slo))
            while left > 0:
                totals.after, records = tail.requests(point.id, totals.after)
                if records:
                    totals.take(records)
                left -= len(records)
                if len(records) < BATCH:
                    break
            else:
                behind += tail.behind(point.id, totals.after)
        return behind

    def _totals(self, run: RunRow, pairs: Sequence[tuple[TrialRow, PointRow]]) -> Iterator[Metric]:
        """Repeats and rounds of the same load of the same engine are one series."""
        grouped: dict[tuple[str, ...], list[PointTotals]] = {}
        for trial, point in pairs:
            key = (run.id, trial.engine, trial.model, point.label)
            grouped.setdefault(key, []).append(self._points[point.id])
        ended = CounterMetricFamily("redline_requests", "Requests that ended, by how", labels=(*LABELS, "status"))
        plain = {
            "judged": CounterMetricFamily("redline_requests_judged", "Requests that count", labels=LABELS),
            "good": CounterMetricFamily("redline_requests_good", "Those that met every term of the SLO", labels=LABELS),
            "prompt_tokens": CounterMetricFamily("redline_prompt_tokens", "Tokens of their prompts", labels=LABELS),
            "output_tokens": CounterMetricFamily("redline_output_tokens", "Tokens of their answers", labels=LABELS),
        }
        histograms = {name: HistogramMetricFamily(own, text, labels=LABELS) for name, (_, own, text) in TIMES.items()}
        itl = HistogramMetricFamily(*ITL, labels=LABELS)
        for labels, found in grouped.items():
            for status in sorted({status for one in found for status in one.status}):
                ended.add_metric((*labels, status), sum(one.status[status] for one in found))
            for name, family in plain.items():
                family.add_metric(labels, sum(getattr(one, name) for one in found))
            for name, histogram in histograms.items():
                histogram.add_metric(labels, *_joined([one.times[name] for one in found]))
            itl.add_metric(labels, *_joined([one.itl for one in found]))
        yield from (ended, *plain.values(), *histograms.values(), itl)


def _joined(found: Sequence[Buckets]) -> tuple[list[tuple[str, float]], float]:
    rows = [one.cumulative() for one in found]
    together = [(edge, sum(row[place][1] for row in rows)) for place, (edge, _) in enumerate(rows[0])]
    return together, sum(one.total_s for one in found)


def _samples(run: RunRow, tail: Tail) -> Iterator[Metric]:
    """Of the trial that goes on. The engine's own series are left out: Prometheus asks the engine itself."""
    found: list[tuple[Sample, dict[str, str]]] = []
    for trial in run.trials:
        if trial.ended_ns is not None:
            continue
        more = {"run": run.id, "trial": trial.engine}
        found += [
            (sample, more)
            for sample in tail.newest(trial.id, now_ns() - STALE_NS)
            if not sample.name.startswith("server.")
        ]
    yield from gauges(found, "redline_run")


def _slo(run: RunRow) -> SloSpec:
    return SloSpec.model_validate(run.experiment.get("slo") or {})
