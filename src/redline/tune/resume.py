"""Go on with a run that was cut short: what is measured stays, what is left is measured under the same run."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from redline.analyse.finding import Verdict
from redline.analyse.search import Seen, seen_of
from redline.errors import UsageError
from redline.spec.experiment import Experiment
from redline.store.read import default_path
from redline.store.rows import PointRow, RunRow, TrialRow
from redline.store.store import Store
from redline.tune.compare import Outcome, carry_on
from redline.tune.events import Events
from redline.tune.judge import summary_of
from redline.tune.plan import Listed, Plan, Searched
from redline.tune.preflight import Job, preflight
from redline.tune.stop import Stop
from redline.tune.trial import context_of

_BLOTTED = "***"


def resume(which: str = "last", *, db: Path | None = None, events: Events | None = None) -> Outcome:
    """Measures what run `which` (an id, a part of one, or `last`) still lacks.

    A load point that was under way when the run ended is measured anew. UsageError when the run is still going on, is
    complete, or its experiment holds a secret that was not stored.
    """
    with Store.open(db or default_path()) as store, Stop() as stop:
        row = store.run(which)
        experiment = _experiment(row)
        done = _Done(store, row, experiment)
        jobs = preflight(experiment)
        able = [job for job in jobs if job.skipped is None]
        if not any(done.plan(job, repeat).next() for repeat in range(experiment.repeats) for job in able):
            raise UsageError(f"nothing is left to measure in run {row.id}", fix=f"redline report {row.id}")
        store.resume_run(row.id)
        context = context_of(experiment, store, row.id, stop, events or Events())
        context.verdicts += [Verdict(point.verdict, point.reasons) for point in done.points if point.verdict]
        return carry_on(context, jobs, done.plan)


def _experiment(row: RunRow) -> Experiment:
    if _BLOTTED in str(row.experiment):
        raise UsageError(
            f"the experiment of run {row.id} held a secret, which is not stored",
            fix="run the whole experiment again, with api_key_env instead of a key",
        )
    try:
        return Experiment.model_validate(row.experiment)
    except ValidationError as error:
        raise UsageError(
            f"run {row.id} was made by redline {row.redline_version}, whose experiments this version does not read",
            why=str(error.errors()[0].get("msg", "")),
        ) from None


class _Done:
    """What a run has already."""

    def __init__(self, store: Store, row: RunRow, experiment: Experiment) -> None:
        self._store, self._row, self._experiment = store, row, experiment
        self.points = [point for trial in row.trials for point in trial.points if _whole(point)]

    def plan(self, job: Job, repeat: int) -> Plan:
        """What is left for one engine and model."""
        trials = [
            trial
            for trial in self._row.trials
            if (trial.model, trial.engine, trial.repeat) == (job.model.served_name, job.spec.label, repeat)
        ]
        if job.skipped is not None and trials:
            return Listed([])  # it was said already
        points = [(trial, point) for trial in trials for point in trial.points if _whole(point)]
        if self._experiment.search.goal == "off":
            return Listed(self._experiment.load.points, [point.load_point for _, point in points])
        spent = sum(float(point.outcome.get("search", {}).get("seconds", 0.0)) for _, point in points)
        return Searched(self._experiment, [self._seen(trial, point) for trial, point in points], spent_s=spent)

    def _seen(self, trial: TrialRow, point: PointRow) -> Seen:
        summary = summary_of(
            self._store, self._experiment, self._row.id, point.id, point.load_point,
            window=(point.measured_from_ns, point.ended_ns), outcome={**point.outcome, "stopped_by": point.stopped_by},
            seed=self._experiment.seed * 1_000_003 + point.id,
        )  # fmt: skip
        return seen_of(point.value, summary)


def _whole(point: PointRow) -> bool:
    return point.complete and point.stopped_by not in ("interrupted", "engine-died")
