"""From stored runs to a report: reads each load point once, computes what is shown, keeps no raw request."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any

import yaml
from pydantic import ValidationError

from redline.analyse.comparison import EngineResult, Load, compare_engines
from redline.analyse.curves import distributions, timeline
from redline.analyse.finding import Verdict
from redline.analyse.latency import latencies_of
from redline.analyse.summary import summarise_point, window_of
from redline.report.model import EngineReport, Measured, ModelReport, Report, RunInfo, Start, load_label
from redline.report.proof import is_proof
from redline.report.sections import sections
from redline.report.telemetry_panels import panels
from redline.spec.dump import dump_experiment
from redline.spec.experiment import Experiment
from redline.spec.load import LoadSpec
from redline.spec.promise import class_promises, exact_output
from redline.store.read import Reader
from redline.store.rows import PointRow, RunRow, TrialRow

Key = tuple[str, str]
"""Model and engine label."""


def load_report(reader: Reader, run_ids: Sequence[str] = ("last",)) -> Report:
    """Everything about these runs (ids, parts of ids, or `last`). Of several runs, engines with the same label are
    told apart by the run they ran in. UsageError when a run does not exist."""
    rows = list({row.id: row for row in map(reader.run, run_ids)}.values())
    found: dict[Key, list[tuple[RunRow, TrialRow]]] = {}
    for row in rows:
        for trial in row.trials:
            found.setdefault((trial.model, _label(rows, row, trial)), []).append((row, trial))
    engines = {key: _engine(reader, key[1], trials) for key, trials in found.items()}
    results = [_result(model, engine) for (model, _), engine in engines.items()]
    comparison = compare_engines(results, seed=_seed(rows[0]))
    models = tuple(
        ModelReport(model.model, tuple(e for (name, _), e in engines.items() if name == model.model), model)
        for model in comparison.models
    )
    slo = rows[0].experiment.get("slo") or {}
    missing = tuple(text for row in rows for text in _missing(row))
    return Report(
        runs=tuple(map(_run, rows)),
        models=models,
        comparison=comparison,
        slo=_terms(rows[0]),
        attainment=float(slo.get("attainment", 0.95)),
        colours={label: i for i, label in enumerate(dict.fromkeys(label for _, label in engines))},
        banners=(*(text for row in rows for text in _banners(row)), *_several_slos(rows)),
        missing=missing,
        db=str(reader.path),
        promises=class_promises(rows[0].experiment),
        sections=sections(reader, rows, models),
    )


def _run(row: RunRow) -> RunInfo:
    return RunInfo(
        id=row.id,
        name=row.name,
        status=row.status,
        verdict=Verdict(row.verdict, row.reasons),
        started_wall=row.started_wall,
        duration_s=row.duration_s,
        redline_version=row.redline_version,
        argv=row.argv,
        experiment=row.experiment,
        experiment_hash=row.experiment_hash,
        yaml=experiment_yaml(row.experiment),
        provenance=row.provenance,
    )


def experiment_yaml(experiment: dict[str, Any]) -> str:
    """As it would be written by hand; as it is stored when this version of redline reads it no more."""
    try:
        return dump_experiment(Experiment.model_validate(experiment))
    except ValidationError:
        return yaml.safe_dump(experiment, sort_keys=False, allow_unicode=True)


def _label(rows: list[RunRow], row: RunRow, trial: TrialRow) -> str:
    """The engine's label, with the run behind it when another run has the same model on the same engine."""
    twins = [other for other in rows if any((t.model, t.engine) == (trial.model, trial.engine) for t in other.trials)]
    return trial.engine if len(twins) < 2 else f"{trial.engine} @ {row.id[-4:]}"


def _engine(reader: Reader, label: str, trials: list[tuple[RunRow, TrialRow]]) -> EngineReport:
    points: dict[Load, list[Measured]] = {}
    for row, trial in trials:
        for point in _counting(trials, row, trial):
            points.setdefault((point.kind, point.value), []).append(_measured(reader, row, trial, point))
    ready = [trial for _, trial in trials if trial.flags] or [trials[-1][1]]
    return EngineReport(
        label=label,
        kind=trials[0][1].engine_kind,
        version=next((trial.engine_version for _, trial in trials if trial.engine_version), ""),
        asked={name: value for name, value in trials[0][1].spec.items() if value not in ("", {}, [], None)},
        flags=ready[0].flags,
        hashes=next((trial.hashes for _, trial in trials if trial.hashes), {}),
        starts=tuple(_start(reader, trial) for _, trial in trials),
        points={load: tuple(points[load]) for load in sorted(points)},
    )


def _counting(trials: list[tuple[RunRow, TrialRow]], row: RunRow, trial: TrialRow) -> list[PointRow]:
    """Points of a trial, without those that were cut off and measured again when the run was resumed."""
    again = {
        (point.kind, point.value)
        for run, other in trials
        if run.id == row.id and other.repeat == trial.repeat
        for point in other.points
        if point.complete and _stopped_by(point) != "interrupted"
    }
    cut = [point for point in trial.points if not point.complete or _stopped_by(point) == "interrupted"]
    newest = {
        (point.kind, point.value, point.outcome["round"]): point.id
        for run, other in trials
        if run.id == row.id
        for point in other.points
        if "round" in point.outcome and point.complete
    }
    return [
        point
        for point in trial.points
        if (point not in cut or (point.kind, point.value) not in again)
        and newest.get((point.kind, point.value, point.outcome.get("round")), point.id) == point.id
    ]


def _measured(reader: Reader, row: RunRow, trial: TrialRow, point: PointRow) -> Measured:
    requests = reader.requests(point.id)
    hint, asked = (point.measured_from_ns, point.ended_ns), (point.kind, point.value)
    window = window_of(requests, hint, asked)
    slo = row.experiment.get("slo") or {}
    # numpy leaves the interpreter to others while it computes
    with ThreadPoolExecutor(1, "redline-curves") as beside:
        over_time = beside.submit(timeline, requests, window, *hint)
        latencies = latencies_of(requests)
        spread = beside.submit(distributions, requests, latencies)
        summary = summarise_point(
            requests,
            window_hint=hint,
            slo=_terms(row),
            attainment=float(slo.get("attainment", 0.95)),
            outcome={**point.outcome, "stopped_by": _stopped_by(point)},
            # the same for every reader of the same point
            seed=_seed(row) * 1_000_003 + point.id,
            run_id=row.id,
            asked=asked,
            exact_output=exact_output(row.experiment),
            promises=class_promises(row.experiment),
            latencies=latencies,
            window=window,
        )
    return Measured(
        run_id=row.id,
        trial_id=trial.id,
        point_id=point.id,
        repeat=trial.repeat,
        complete=point.complete,
        stopped_by=_stopped_by(point),
        summary=summary,
        outcome=point.outcome,
        distributions=spread.result(),
        timeline=over_time.result(),
        errors=tuple(reader.errors(point.id)[:5]),
        panels=panels(reader, row.id, trial.id, *hint),
    )


def _stopped_by(point: PointRow) -> str:
    """A point that has no end was under way when the whole run was killed."""
    return point.stopped_by or ("" if point.complete else "interrupted")


def _start(reader: Reader, trial: TrialRow) -> Start:
    # whoever listens on the port of somebody else's server may be a proxy: its memory is not the engine's
    mine = trial.engine_kind != "url"
    memory = device = None
    if mine:
        memory = reader.peak(trial.id, "engine.pss_bytes") or reader.peak(trial.id, "engine.rss_bytes")
        device = reader.peak(trial.id, "engine.gpu_memory_bytes")
    return Start(
        run_id=trial.run_id,
        trial_id=trial.id,
        repeat=trial.repeat,
        status=trial.status,
        error=trial.error,
        startup_ms=trial.startup_ms,
        rss_bytes=memory or math.nan,
        gpu_memory_bytes=device or math.nan,
        log=str(trial.log or ""),
        telemetry=trial.telemetry,
    )


def _result(model: str, engine: EngineReport) -> EngineResult:
    return EngineResult(
        model=model,
        label=engine.label,
        points={load: tuple(one.summary for one in found) for load, found in engine.points.items()},
        startup_s=tuple(start.startup_ms["total"] / 1000 for start in engine.starts if start.startup_ms.get("total")),
        rss_bytes=tuple(start.rss_bytes for start in engine.starts if not math.isnan(start.rss_bytes)),
        gpu_memory_bytes=tuple(s.gpu_memory_bytes for s in engine.starts if not math.isnan(s.gpu_memory_bytes)),
    )


def _seed(row: RunRow) -> int:
    return int(row.experiment.get("seed") or 0)


def _terms(row: RunRow) -> dict[str, float]:
    slo = row.experiment.get("slo") or {}
    return {name: float(slo[name]) for name in ("ttft_ms", "tpot_ms", "itl_ms", "e2e_ms") if slo.get(name)}


def _banners(row: RunRow) -> list[str]:
    """What makes this run less than it was meant to be."""
    if row.status == "running":
        return [f"Run {row.id} is still going on: these are the numbers so far."]
    if row.status == "interrupted":
        return [f"Run {row.id} was interrupted: what was measured until then is shown."]
    return [f"Run {row.id} failed: nothing could be measured."] if row.status == "failed" else []


def _several_slos(rows: list[RunRow]) -> list[str]:
    kept = {(tuple(_terms(row).items()), (row.experiment.get("slo") or {}).get("attainment")) for row in rows}
    if len(kept) == 1:
        return []
    return [f"These runs have different SLOs: goodput is by each run's own, the SLO shown is that of {rows[0].id}."]


def _missing(row: RunRow) -> list[str]:
    """Load points that the experiment names and that were not measured, engines that were skipped or failed aside."""
    if (row.experiment.get("search") or {}).get("goal", "off") != "off":
        return []  # a search says itself why it ended
    if is_proof(row) or row.served:
        return []  # its section says how many rounds of each setting count
    if row.status == "running":
        return []  # what is not measured yet may still be, and the banner says so
    engines = [str(one.get("name") or one.get("kind")) for one in row.experiment.get("engines", [])]
    models = [_served_name(one) for one in row.experiment.get("models", [])]
    loads = _loads(row.experiment.get("load") or {})
    repeats = int(row.experiment.get("repeats") or 1)
    if not all(one.get("kind") == "url" or one.get("keep_up") for one in row.experiment.get("engines", [])):
        repeats *= int(row.experiment.get("rounds") or 1)  # each round is then a start of its own
    found: dict[tuple[str, str], list[str]] = {}
    for repeat, model, engine in product(range(repeats), models, engines):
        trials = [t for t in row.trials if (t.model, t.engine, t.repeat) == (model, engine, repeat)]
        done = {(point.kind, point.value) for trial in trials for point in trial.points if point.complete}
        left = [load_label(load) for load in loads if load not in done]
        gave_up = any(trial.status in ("skipped", "failed") for trial in trials) and not done
        if left and not gave_up:
            what = "every load point" if len(left) == len(loads) else ", ".join(left)
            again = f" (repeat {repeat + 1})" if repeats > 1 else ""
            found.setdefault((engine, what), []).append(f"{model}{again}")
    everywhere = repeats * len(models)
    return [
        f"{engine} at {what}" + ("" if len(places) == everywhere else f" on {', '.join(places)}")
        for (engine, what), places in found.items()
    ]


def _loads(load: dict[str, Any]) -> list[Load]:
    try:
        return [(point.kind, float(point.value)) for point in LoadSpec.model_validate(load).points]
    except ValidationError:  # of another version of redline
        return []


def _served_name(model: dict[str, Any]) -> str:
    return str(model.get("name") or str(model.get("id", "")).rstrip("/").replace(":", "/").rsplit("/", 1)[-1])
