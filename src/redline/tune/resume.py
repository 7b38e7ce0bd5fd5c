"""Go on with a run that was cut short: what is measured stays, what is left is measured under the same run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from redline.analyse.finding import Verdict
from redline.analyse.search import Seen, seen_of
from redline.errors import UsageError
from redline.spec.experiment import Experiment
from redline.spec.load import LoadPoint
from redline.store.read import default_path
from redline.store.rows import PointRow, RunRow, TrialRow
from redline.store.store import Store
from redline.tune.compare import Outcome, carry_on
from redline.tune.events import Events
from redline.tune.judge import summary_of
from redline.tune.plan import Listed, Plan, Searched
from redline.tune.preflight import Job, preflight
from redline.tune.rounds import interleaved, numbers_of, starts
from redline.tune.serve import refuse_served
from redline.tune.stop import Stop
from redline.tune.trial import context_of

_BLOTTED = "***"


def resume(which: str = "last", *, db: Path | None = None, events: Events | None = None) -> Outcome:
    """Measures what run `which` (an id, a part of one, or `last`) still lacks.

    A load point that was under way when the run ended is measured anew, and so is a whole round where engines take
    turns: its points belong together in time. UsageError when the run is still going on, is complete, or its
    experiment holds a secret that was not stored.
    """
    with Store.open(db or default_path()) as store, Stop() as stop:
        row = store.run(which)
        refuse_served(row)
        experiment = _experiment(row)
        done = _Done(store, row, experiment)
        if interleaved(experiment) and any("round" not in point.outcome for point in done.points):
            raise UsageError(
                f"run {row.id} was measured in rounds by redline {row.redline_version}, which did not number them",
                why="rounds measured later would be paired with others",
                fix="run it again; what it has is kept and can be reported",
            )
        jobs = preflight(experiment)
        able = [job for job in jobs if job.skipped is None]
        if not done.leaves_anything(able):
            raise UsageError(f"nothing is left to measure in run {row.id}", fix=f"redline report {row.id}")
        store.resume_run(row.id)
        context = context_of(experiment, store, row.id, stop, events or Events())
        context.part = f".{len(row.trials)}"
        context.verdicts += [Verdict(point.verdict, point.reasons) for point in done.points if point.verdict]
        return carry_on(context, jobs, done.plan, lambda model, repeat: done.rounds(able, model, repeat))


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

    def leaves_anything(self, jobs: Sequence[Job]) -> bool:
        experiment = self._experiment
        if interleaved(experiment):
            models = dict.fromkeys(job.model.served_name for job in jobs)
            return any(self.rounds(jobs, model, repeat) for model in models for repeat in range(experiment.repeats))
        return any(self.plan(job, repeat).next() for repeat in range(starts(experiment)) for job in jobs)

    def rounds(self, jobs: Sequence[Job], model: str, repeat: int) -> list[int]:
        """Those in which not every engine was measured at every load point."""
        engines = [job.spec.label for job in jobs if job.model.served_name == model]
        wanted = {(engine, point) for engine in engines for point in self._experiment.load.points}
        had: dict[int, set[tuple[str, LoadPoint]]] = {}
        for trial in self._row.trials:
            for point in trial.points if trial.model == model else ():
                if _whole(point) and "round" in point.outcome:
                    had.setdefault(point.outcome["round"], set()).add((trial.engine, point.load_point))
        return [number for number in numbers_of(self._experiment, repeat) if not had.get(number, set()) >= wanted]

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
