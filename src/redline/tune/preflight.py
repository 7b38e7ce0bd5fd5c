"""Everything that can be known to be wrong before anything is started."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from redline import hooks
from redline.engines.engine import Engine
from redline.errors import Skipped, Unsupported, UsageError
from redline.spec.engine import EngineSpec
from redline.spec.experiment import Experiment
from redline.spec.model import ModelSpec


@dataclass(frozen=True)
class Job:
    """One engine configuration with one model. `skipped` says why it cannot run on this box."""

    model: ModelSpec
    spec: EngineSpec
    engine: Engine
    skipped: Skipped | None = None

    @property
    def label(self) -> str:
        return f"{self.spec.label} · {self.model.served_name}"


def adapter(kind: str) -> Engine:
    """An instance of the adapter for `kind`. UsageError, with a suggestion, when there is none."""
    try:
        engine: Engine = hooks.load_engine(kind)()
    except KeyError:
        kinds = hooks.engine_kinds()
        near = difflib.get_close_matches(kind, kinds, n=1)
        raise UsageError(
            f"there is no engine {kind!r}",
            why=f"known engines: {', '.join(kinds)}",
            fix=f"did you mean {near[0]!r}?" if near else "",
        ) from None
    return engine


def preflight(experiment: Experiment) -> list[Job]:
    """All jobs of the experiment, models outermost. Checks flags, models and interpreters of every one of them.

    A job that this box cannot run is marked as skipped, as long as another one remains; Unsupported when none does.
    """
    jobs = []
    for model in experiment.models:
        for spec in experiment.engines:
            engine = adapter(spec.kind)
            skipped = engine.available(spec)
            if skipped is None:
                engine.check(spec, model)
            jobs.append(Job(model, spec, engine, skipped))
    if all(job.skipped for job in jobs):
        reasons = {f"{job.spec.label}: {job.skipped.reason}": job.skipped.how_to_get_it for job in jobs if job.skipped}
        raise Unsupported(
            "no engine of this experiment can run here",
            why="; ".join(reasons),
            fix="; ".join(filter(None, reasons.values())),
        )
    return jobs
