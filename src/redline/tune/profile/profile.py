"""The profile as a whole: every engine in turn, then what stands side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from redline import __version__
from redline.analyse.architecture import architecture
from redline.analyse.profile.breakdown import analyse_trace
from redline.analyse.profile.record import Profile
from redline.clock import wall_time
from redline.errors import UsageError
from redline.node.facts import facts
from redline.spec.engine import EngineSpec
from redline.spec.model import ModelSpec
from redline.spec.resolve import ensure_available
from redline.store.ceilings import Ceilings, card_of, ceilings_of
from redline.tune.preflight import adapter
from redline.tune.profile.engine import Job, room, run_engine, spans_of
from redline.tune.profile.nsys import require_nsys
from redline.tune.profile.read import Progress, Reading, read_any

PHASES = ("decode", "prefill")
Say = Callable[[str, str], None]
"""(engine, what it is at)"""


@dataclass(frozen=True)
class Options:
    """Every batch at every context; `more` adds single (phase, batch, context). `steps` decode steps are recorded,
    `repeats` prefills. `trace_dir`: where a running server writes its traces."""

    batches: tuple[int, ...] = (1,)
    contexts: tuple[int, ...] = (512,)
    prefill_batches: tuple[int, ...] = (1,)
    phases: tuple[str, ...] = PHASES
    more: tuple[tuple[str, int, int], ...] = ()
    steps: int = 16
    repeats: int = 2
    nsys: bool = False
    trace_dir: Path | None = None
    keep_traces: bool = True

    def __post_init__(self) -> None:
        for name in ("batches", "contexts", "prefill_batches"):
            values = getattr(self, name)
            if not values or min(values) < 1:
                raise UsageError(f"{name} must be whole numbers from 1 on, not {values}")
        if self.steps < 2 or self.repeats < 1:
            raise UsageError("at least 2 steps and 1 repeat are needed to tell a step")
        if unknown := set(self.phases) - set(PHASES):
            raise UsageError(f"there is no phase {sorted(unknown)[0]!r}", fix="decode, prefill")
        if not self.wanted:
            raise UsageError("there is nothing to profile", fix="--phase decode,prefill")

    @property
    def wanted(self) -> tuple[tuple[str, int, int], ...]:
        """(phase, batch, context), short contexts first."""
        sizes = {"decode": self.batches, "prefill": self.prefill_batches}
        every = [(phase, size, context) for context in self.contexts for phase in self.phases for size in sizes[phase]]
        return tuple(dict.fromkeys((*every, *self.more)))


@dataclass(frozen=True)
class Profiled:
    """`readings` hold the traces as they were read, engine by engine, for drawing."""

    profile: Profile
    readings: dict[str, list[Reading]] = field(default_factory=dict)


def profile(
    model: ModelSpec,
    engines: Sequence[EngineSpec],
    folder: Path,
    options: Options | None = None,
    say: Say = lambda engine, text: None,
) -> Profiled:
    """Starts (or attaches to) each engine, drives decode and prefill at every batch and context, and takes the traces
    apart. Traces and logs go to `folder`, a folder for each engine.

    Raises UsageError and EnvironmentFault before anything has started; an engine that fails later is told in the
    result.
    """
    options = options or Options()
    if options.nsys:
        require_nsys()
    found = ensure_available(model)
    card, driver = card_of(facts())
    ceilings = ceilings_of(card, driver)
    about = Profile(
        model=model.id,
        description=found.description,
        card=card,
        redline=__version__,
        taken_wall=wall_time(),
        batches=options.batches,
        contexts=options.contexts,
        engines=(),
        ceilings=ceilings.as_dict() if ceilings else {},
        config=dict(found.config),
        dtype=dtype_of(model, found.config),
        notes=() if ceilings else ("the ceilings of this card are not measured: run `redline node ceilings`",),
    )
    jobs = [_job(model, spec, folder / file_name(spec.label), options, about, ceilings) for spec in engines]
    for job in jobs:
        room(job)
        if job.engine.available(job.spec) is None:
            job.engine.check(job.spec, model)
    done, readings = [], {}
    for job in jobs:
        label = job.spec.label
        told, readings[label] = run_engine(job, partial(say, label))
        done.append(told)
    return Profiled(replace(about, engines=tuple(done)), readings)


def _job(
    model: ModelSpec, spec: EngineSpec, folder: Path, options: Options, about: Profile, ceilings: Ceilings | None
) -> Job:
    return Job(
        model=model,
        spec=spec,
        engine=adapter(spec.kind),
        wanted=options.wanted,
        steps=options.steps,
        repeats=options.repeats,
        folder=folder,
        config=about.config,
        architecture=architecture(about.config) if about.config else None,
        dtype=about.dtype,
        ceilings=ceilings,
        trace_dir=options.trace_dir,
        keep_traces=options.keep_traces,
        nsys=options.nsys,
    )


def profile_trace(path: Path, progress: Progress = lambda done, whole: None) -> Reading:
    """A trace that somebody recorded, taken apart. UsageError when it is none."""
    columns = read_any(path, progress)
    analysed = analyse_trace(spans_of(columns))
    return Reading(path.name, analysed, path, columns.readout.sentence(), analysed.notes)


def dtype_of(model: ModelSpec, config: Mapping[str, Any]) -> str:
    """Of the weights, as asked for or as the checkpoint says."""
    if model.dtype != "auto":
        return model.dtype
    return str(config.get("dtype") or config.get("torch_dtype") or "bfloat16")


def file_name(text: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in text) or "engine"


def without_nan(value: Any) -> Any:
    """JSON has no NaN: None instead."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: without_nan(one) for key, one in value.items()}
    return [without_nan(one) for one in value] if isinstance(value, list | tuple) else value
