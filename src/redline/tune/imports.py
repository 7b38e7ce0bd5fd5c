"""Keeps another tool's results as a run, so that report, comparison and `--as` work on them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from redline.analyse.finding import Verdict
from redline.analyse.verdict import STATES
from redline.spec.engine import EngineSpec
from redline.spec.experiment import Experiment
from redline.spec.load import LoadSpec
from redline.spec.model import ModelSpec
from redline.spec.workload import WorkloadSpec
from redline.store.imports.files import read_file
from redline.store.imports.found import Imported
from redline.store.read import default_path
from redline.store.store import Store
from redline.tune.judge import summary_of


def import_files(
    files: Sequence[Path], *, db: Path | None = None, argv: Sequence[str] = (), name: str = ""
) -> list[str]:
    """Ids of the new runs, one per file. All files are read before the first run is made. UsageError when one of
    them cannot be read, or is of no known tool."""
    found = [(file, read_file(file)) for file in files]
    with Store.open(db or default_path()) as store:
        return [_keep(store, file, points, list(argv), name) for file, points in found]


def _keep(store: Store, file: Path, points: list[Imported], argv: list[str], name: str) -> str:
    experiment = _experiment(points, name)
    first = points[0]
    facts = {"imported": {"file": str(file), "sha256": _hash(file), "tool": first.tool, "version": first.version}}
    run_id = store.begin_run(experiment, facts, argv)
    spec = experiment.engines[0]
    trial = store.begin_trial(run_id, model=experiment.models[0].served_name, spec=spec, repeat=0)
    verdicts = [_point(store, experiment, run_id, trial, point, str(file)) for point in points]
    store.end_trial(trial, "done")
    worst = max(verdicts, key=lambda verdict: STATES.index(verdict.state))
    store.end_run(run_id, "imported", worst.state, list(worst.reasons))
    return run_id


def _point(store: Store, experiment: Experiment, run_id: str, trial: int, point: Imported, file: str) -> Verdict:
    point_id = store.begin_point(trial, point.load)
    for record in point.records:
        store.add_request(point_id, record)
    store.flush()
    outcome = _outcome(point, file)
    window = (point.began_ns, point.ended_ns)
    summary = summary_of(
        store, experiment, run_id, point_id, point.load, window=window, outcome=outcome, seed=experiment.seed
    )
    store.end_point(
        point_id,
        measured_from_ns=window[0],
        ended_ns=window[1],
        stopped_by="requests",
        outcome=outcome,
        verdict=summary.verdict.state,
        reasons=list(summary.verdict.reasons),
    )
    return summary.verdict


def _outcome(point: Imported, file: str) -> dict[str, Any]:
    return {
        "imported": {"tool": point.tool, "version": point.version, "file": file, "summary": point.summary},
        "not_measured": list(point.missing),
        "notes": list(point.notes),
        "sent": len(point.records),
        "planned": len(point.records),
        "closing_events": point.closing_events,
    }


def _experiment(points: list[Imported], name: str) -> Experiment:
    first = points[0]
    open_loop = first.load.kind != "closed"
    values = list(dict.fromkeys(point.load.value for point in points if (point.load.kind != "closed") == open_loop))
    load: dict[str, Any] = {"concurrency": [max(1, round(value)) for value in values]}
    if open_loop:
        load = {"rate": values, "arrivals": first.load.kind}
    return Experiment(
        name=name,
        models=[ModelSpec(id=first.model)],
        engines=[EngineSpec(kind="imported", name=f"{first.tool} {first.version}".split(" (")[0])],
        workload=WorkloadSpec(ignore_eos=False),
        load=LoadSpec(**load),
    )


def _hash(file: Path) -> str:
    if file.is_dir():
        return ""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
