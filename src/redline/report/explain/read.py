"""From the results file to an explanation: requests, samples, events and spans of one load point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from redline.analyse.explain.causes import CAUSES, Event, Measured
from redline.analyse.explain.explanation import Explanation, explain_requests
from redline.analyse.explain.shares import EngineMeans, EngineTimes
from redline.errors import UsageError
from redline.spec.faults import did_you_mean
from redline.store.read import Reader, default_path
from redline.store.requests import Requests
from redline.store.rows import EventRow, PointRow, RunRow, SpanRow, TrialRow

FEWEST = 5
OWN, REDLINE = "the engine's own threads", "redline itself"
_QUEUE, _PREFILL = "gen_ai.latency.time_in_queue", "gen_ai.latency.time_in_model_prefill"
SERIES = tuple(dict.fromkeys(source.name for cause in CAUSES for source in cause.sources))


@dataclass(frozen=True)
class PointExplained:
    """One load point. `notes` say what the explanation had to do without."""

    run: RunRow
    trial: TrialRow
    point: PointRow
    requests: Requests
    explanation: Explanation
    notes: tuple[str, ...]
    spans: int

    @property
    def label(self) -> str:
        return f"{self.trial.engine} at {self.point.label}"


@dataclass(frozen=True)
class Explained:
    """A run. `skipped` are load points of which nothing can be said, with the reason."""

    run: RunRow
    points: tuple[PointExplained, ...]
    skipped: tuple[str, ...] = ()


def explain(run: str = "last", *, point: str = "", engine: str = "", db: Path | None = None) -> Explained:
    """`redline explain RUN` from Python: an id, a part of one, `last`, `last~1`.

    `point` is a label, or the clients or requests per second of one; every load point when it is ''. UsageError when
    nothing fits, or no load point has enough requests.
    """
    with Reader.open(db or default_path()) as reader:
        row = reader.run(run)
        wanted = chosen(row, point, engine)
        found, skipped = [], []
        for trial, one in wanted:
            told = explain_point(reader, row, trial, one)
            if isinstance(told, str):
                skipped.append(f"{trial.engine} at {one.label}: {told}")
            else:
                found.append(told)
    if not found:
        raise UsageError(
            f"nothing of run {row.id} can be explained",
            why="; ".join(skipped[:3]) or "it has no load point",
            fix="measure more: --duration, --requests",
        )
    return Explained(row, tuple(found), tuple(skipped))


def chosen(run: RunRow, point: str, engine: str) -> list[tuple[TrialRow, PointRow]]:
    """The load points that are meant."""
    every = [(trial, one) for trial in run.trials for one in trial.points]
    if engine and engine not in run.engines:
        raise UsageError(
            f"run {run.id} has no engine {engine!r}",
            fix=did_you_mean(engine, run.engines) or f"one of: {', '.join(run.engines)}",
        )
    mine = [(trial, one) for trial, one in every if not engine or trial.engine == engine]
    if not point:
        return mine
    fitting = [pair for pair in mine if point in (pair[1].label, f"{pair[1].value:g}")]
    if not fitting:
        labels = list(dict.fromkeys(one.label for _, one in mine))
        raise UsageError(f"run {run.id} has no load point {point!r}", fix=f"one of: {', '.join(labels)}")
    return fitting


def explain_point(reader: Reader, run: RunRow, trial: TrialRow, point: PointRow) -> PointExplained | str:
    """What can be said, or why nothing can."""
    requests = measured(reader.requests(point.id))
    if len(requests) < FEWEST:
        return f"{len(requests)} measured requests ended, and it takes {FEWEST}"
    if not (requests.chunks > 1).any():
        return "no answer came in more than one chunk: there is no step time to hold a gap against"
    window = (point.measured_from_ns, max(point.ended_ns, int(requests.latest_ns.max())))
    kernel = trial.telemetry.get("kernel") or {}
    events = [_event(one) for one in reader.events(trial.id, *window)]
    prefix = str(point.outcome.get("trace_prefix") or "")
    spans = reader.spans(trial.id, prefix) if prefix else []
    explanation = explain_requests(
        requests,
        window,
        series=_series(reader, run, trial, window),
        events=events,
        traced=frozenset(_kinds(kernel)),
        engine=_engine_times(spans),
        means=_means(point.outcome),
        lag_ns=float(point.outcome.get("send_lag_ms_p99") or 0.0) * 1e6,
    )
    notes = tuple(_notes(run, trial, kernel, bool(spans), explanation))
    return PointExplained(run, trial, point, requests, explanation, notes, len(spans))


def measured(requests: Requests) -> Requests:
    """Those that were sent and ended, without warm-up and canaries."""
    return requests.pick(~requests.warmup & (requests.canary < 0) & (requests.sent_ns > 0) & (requests.finished_ns > 0))


def _event(row: EventRow) -> Event:
    kind = row.kind
    if kind == "run_queue":
        kind = {OWN: "own_queue", REDLINE: "redline_queue"}.get(row.who, kind)
    elif kind == "signal":
        kind = "stop" if row.text.startswith("signal 19 ") else "continue"
    return Event(kind, row.began_ns, row.ended_ns, row.who, row.text)


def _kinds(kernel: dict[str, Any]) -> list[str]:
    kinds = [str(kind) for kind in kernel.get("kinds") or ()]
    return [*kinds, "own_queue", "redline_queue"] if "run_queue" in kinds else kinds


def _series(reader: Reader, run: RunRow, trial: TrialRow, window: tuple[int, int]) -> list[Measured]:
    found = reader.run_samples(run.id, SERIES, window[0] - 1_000_000_000, window[1] + 1_000_000_000)
    mine = [one for one in found if one.trial_id == trial.id]
    return [Measured(one.name, one.t_ns, np.nan_to_num(one.value)) for one in mine]


def _engine_times(spans: Sequence[SpanRow]) -> dict[int, EngineTimes]:
    """By request index. vLLM's and redline's spans of a request carry the same attributes."""
    found = {}
    for one in spans:
        told = one.attributes
        if _QUEUE not in told or len(one.trace_id) != 32:
            continue
        times = [max(round(float(told.get(name) or 0.0) * 1e9), 0) for name in (_QUEUE, _PREFILL)]
        found[int(one.trace_id[16:], 16)] = EngineTimes(one.began_ns, *times)
    return found


def _means(outcome: dict[str, Any]) -> EngineMeans:
    times = (outcome.get("server") or {}).get("times") or {}
    return EngineMeans(*((times.get(name) or {}).get("mean_ms") for name in ("queue", "prefill")))


def _notes(run: RunRow, trial: TrialRow, kernel: dict[str, Any], spans: bool, found: Explanation) -> list[str]:
    asked = (run.experiment.get("observe") or {}) if isinstance(run.experiment, dict) else {}
    notes = []
    if not asked.get("explain"):
        notes.append(
            "measured without --explain: what could be to blame was looked at 2 to 10 times a second, and no kernel "
            "event was recorded; the same load with --explain tells more"
        )
    notes += [str(note) for note in kernel.get("notes") or ()]
    told = trial.telemetry.get("spans") or {}
    notes += [str(note) for note in told.get("notes") or ()]
    if not spans:
        by = "timing alone" if (found.shares.basis == 2).all() else "the engine's mean times"
        more = "" if asked.get("spans") else "; --spans has them of every request, where the engine sends spans"
        notes.append(f"queue and prefill are told apart by {by}, not by spans of the engine{more}")
    return notes
