"""One engine, started with its profiler on, through every phase that is wanted."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from redline.analyse.architecture import Architecture
from redline.analyse.precision import cards_of, computed_in, precision
from redline.analyse.profile.breakdown import Breakdown, analyse_trace
from redline.analyse.profile.record import EngineProfile, KvMemory, PhaseProfile
from redline.analyse.profile.spans import Spans
from redline.analyse.roofline import Limits, Precision, StepCost, decode, prefill, standing
from redline.engines.engine import Engine, Server
from redline.engines.flags import normal
from redline.engines.profiling import Wanted, profiled
from redline.errors import EngineError, EnvironmentFault, RedlineError, Unsupported, UsageError
from redline.observe.trace.columns import TraceColumns
from redline.spec.engine import EngineSpec
from redline.spec.model import ModelSpec
from redline.store.ceilings import Ceilings
from redline.tune.profile.memory import Memory
from redline.tune.profile.nsys import exported, nsys_wrap
from redline.tune.profile.phases import Driver, Point, Recorded
from redline.tune.profile.read import Reading, read_any
from redline.tune.profile.recorder import Recorder
from redline.tune.serve import serve

ROOM = 4096
"""Tokens of an answer beyond what is recorded: steps that pass while the profiler starts."""
LEAST_ROOM = 96


@dataclass(frozen=True)
class Job:
    """What one engine is to go through. `limits` None: no ceilings are known, so nothing is said of the regime."""

    model: ModelSpec
    spec: EngineSpec
    engine: Engine
    wanted: tuple[tuple[str, int, int], ...]
    """(phase, batch, context), in the order in which they are driven."""
    steps: int
    repeats: int
    folder: Path
    config: Mapping[str, Any] = field(default_factory=dict)
    architecture: Architecture | None = None
    precision: Precision = field(default_factory=Precision)
    dtype: str = "bfloat16"
    ceilings: Ceilings | None = None
    limits: Limits | None = None
    groups: int = 1
    """Of cards, each with its part of the batch."""
    trace_dir: Path | None = None
    keep_traces: bool = True
    nsys: bool = False
    server: int = 0
    """Which of the servers that one engine needs."""

    @property
    def reports(self) -> Path:
        """Where nsys writes what it records of this server."""
        return self.folder / f"nsys-{self.server}"


Say = Callable[[str], None]


@dataclass(frozen=True)
class Driven:
    """A phase that was driven and recorded, not yet taken apart."""

    phase: str
    point: Point
    found: Recorded
    memory: KvMemory | None = None
    server: int = 0


def run_engine(job: Job, say: Say) -> tuple[EngineProfile, list[Reading]]:
    """Everything of one engine; what fails is in the result, in words. The readings are for drawing."""
    spec = job.spec
    skipped = job.engine.available(spec)
    empty = EngineProfile(label=spec.label, kind=spec.kind)
    if skipped is not None:
        return replace(empty, skipped=str(skipped)), []
    driven: list[Driven] = []
    about = empty
    try:
        for part in _servers(job):
            with started(part, say) as server:
                about = _about(empty, server)
                job = resolved(job, about.flags)
                for one in _phases(resolved(part, about.flags), server, say):
                    driven.append(replace(one, server=part.server))
    except (Unsupported, EnvironmentFault, EngineError) as error:
        text = ". ".join(part for part in (error.what, error.why, error.fix) if part)
        about = replace(about, skipped=text) if isinstance(error, Unsupported) else replace(about, failed=text)
        if isinstance(error, EngineError) and error.log_tail:
            (job.folder / "failed.log").write_text(error.log_tail)
    # only now: nothing that is taken apart here runs beside the engine
    say("reading the traces")
    pairs = [_phase(job, one) for one in (_from_outside(job, driven) if job.nsys else driven)]
    memory = tuple(one.memory for one in driven if one.memory is not None)
    return replace(about, phases=tuple(phase for phase, _ in pairs), memory=memory), [each for _, each in pairs]


def _servers(job: Job) -> list[Job]:
    """One server for everything; but one for each batch size where a batch waits until it is full (transformers'
    static batching)."""
    batching = str({normal(name): value for name, value in job.spec.flags.items()}.get("batching", "static"))
    sizes = sorted({batch for _, batch, _ in job.wanted})
    if job.spec.kind != "transformers" or batching != "static" or len(sizes) == 1:
        return [job]
    return [
        replace(job, server=place, wanted=tuple(one for one in job.wanted if one[1] == size))
        for place, size in enumerate(sizes)
    ]


def _from_outside(job: Job, driven: list[Driven]) -> list[Driven]:
    """With the reports that nsys wrote, one for each range of a server: the first is of warming up."""
    left = {place: exported(replace(job, server=place).reports)[1:] for place in {one.server for one in driven}}
    return [
        replace(one, found=replace(one.found, trace=left[one.server].pop(0) if left[one.server] else None))
        for one in driven
    ]


@contextmanager
def started(job: Job, say: Say) -> Iterator[Server]:
    longest, most = _longest(job), max(batch for _, batch, _ in job.wanted)
    wanted = Wanted(traces(job), most, longest + room(job), outer=job.nsys)
    spec = profiled(job.engine, job.spec, wanted)
    job.folder.mkdir(parents=True, exist_ok=True)
    if spec.kind == "url":
        with serve(job.model, spec, artifacts=job.folder, progress=say) as server:
            yield server
        return
    wanted.folder.mkdir(parents=True, exist_ok=True)
    wrap: tuple[str, ...] = ()
    if job.nsys:
        job.reports.mkdir(parents=True, exist_ok=True)
        wrap = nsys_wrap(job.reports)
    with serve(job.model, spec, artifacts=job.folder, progress=say, wrap=wrap) as server:
        yield server


def _longest(job: Job) -> int:
    return max(context for _, _, context in job.wanted)


def traces(job: Job) -> Path:
    """Where the engine writes."""
    return (job.trace_dir or job.folder / "raw").absolute()


def room(job: Job) -> int:
    """Tokens for answers: what the model has left behind the longest prompt."""
    longest = int(job.config.get("max_position_embeddings") or 0)
    left = longest - _longest(job) if longest else ROOM
    if left < min(LEAST_ROOM, 2 * job.steps + 32):
        raise UsageError(
            f"a context of {_longest(job):,} leaves no room for an answer: the model has {longest:,} positions",
            fix=f"--context {max(1, longest - ROOM)}",
        )
    return min(ROOM, left)


def resolved(job: Job, flags: Mapping[str, str]) -> Job:
    """With the precision, and the ceilings for it, that the engine says that it runs with."""
    words = {**job.spec.flags, **flags}
    cards, groups = cards_of(words)
    kind = computed_in(words, job.dtype, job.config)
    found = job.ceilings.flops_of(kind) if job.ceilings is not None else None
    limits = Limits(job.ceilings.read, found[0]).times(cards) if job.ceilings is not None and found else None
    shape = job.architecture.over(cards) if job.architecture is not None else None
    stored = precision(words, job.dtype, job.config)
    return replace(job, precision=stored, limits=limits, architecture=shape, groups=groups)


def _about(empty: EngineProfile, server: Server) -> EngineProfile:
    endpoint = server.endpoint
    flags = {name.replace("_", "-"): value for name, value in endpoint.flags.items()}
    named = ("attention-backend", "attn-implementation", "decode-attention", "attention", "kernels")
    backend = next((f"{flags[name]}" for name in named if flags.get(name)), "")
    if backend and (version := flags.get("flash-attention-version")):
        backend += f" (FlashAttention {version})"
    return replace(empty, version=endpoint.engine_version, backend=backend, flags=flags)


def _phases(job: Job, server: Server, say: Say) -> Iterator[Driven]:
    headers = _headers(job.spec)
    own = None if job.spec.kind == "url" and job.trace_dir is None else traces(job)
    recorder = Recorder(server, own, headers)
    vocab = int(job.config.get("vocab_size") or 32000)
    driver = Driver(server.endpoint, recorder, vocab, headers)
    say("starting the profiler once")
    driver.warm_profiler()
    watch = Memory(server.endpoint, headers, job.architecture, job.precision)
    for phase, batch, context in job.wanted:
        say(f"{phase}, batch {batch}, context {context}")
        point = Point(batch, context, 1 if phase == "prefill" else room(job))
        driver.warm_up(point)
        if phase == "prefill":
            yield Driven(phase, point, driver.prefill(point, job.repeats))
            continue
        watch.idle()
        found = driver.decode(point, job.steps, watch.busy)
        yield Driven(phase, point, found, watch.told(batch, found.tokens_after))


def _phase(job: Job, one: Driven) -> tuple[PhaseProfile, Reading]:
    phase, point, found = one.phase, one.point, one.found
    reading = _reading(job, phase, point, found)
    part = _of(reading, phase)
    steps = _steps_of_prefill(reading, job.repeats) if phase == "prefill" else 1.0
    if part is not None and steps > 1:
        part = part.added_up(steps)
    host = _host_ms(part, found)
    cost = _cost(job, phase, point, found)
    limits = job.limits
    stand = standing(cost, limits, found.step_s, host / 1e3 if host is not None else None) if cost and limits else None
    tokens = point.batch * (point.context if phase == "prefill" else 1)
    made = PhaseProfile(
        phase=phase,
        batch=point.batch,
        asked=point.context,
        context=found.context,
        step_ms=found.step_s * 1e3,
        profiled_step_ms=found.profiled_s * 1e3,
        host_ms=host,
        per_token_ms=found.step_s * 1e3 / tokens,
        breakdown=part,
        standing=stand,
        intensity=cost.intensity if cost else None,
        trace=reading.kept.name if reading.kept else "",
        readout=reading.sentence,
        notes=(
            *reading.notes,
            *([f"one prefill of {point.context:,} tokens took {steps:.0f} steps, added up"] if steps > 1 else []),
        ),
    )
    return made, reading


def _host_ms(part: Breakdown | None, found: Recorded) -> float | None:
    """Of a step without the profiler. Kernels take as long with it as without, so on a device the rest is the host's; a
    CPU's operators are slowed as well, so there the share of the gaps is what can be carried over."""
    if part is None or part.phase == "whole":
        return None
    whole = found.step_s * 1e3
    return max(0.0, whole - part.busy_us / 1e3) if part.device else whole * part.gap_share


def _of(reading: Reading, phase: str) -> Breakdown | None:
    if reading.analysed is None:
        return None
    return reading.analysed.phase(phase) or reading.analysed.phase("whole")


def _steps_of_prefill(reading: Reading, repeats: int) -> float:
    """Long prompts are computed in chunks: steps of one prefill."""
    part = reading.analysed.phase("prefill") if reading.analysed else None
    return part.steps / max(1, repeats) if part else 1.0


def _cost(job: Job, phase: str, point: Point, found: Recorded) -> StepCost | None:
    if job.architecture is None:
        return None
    batch = max(1.0, point.batch / job.groups)
    if phase == "prefill":
        return prefill(job.architecture, job.precision, batch, point.context)
    return decode(job.architecture, job.precision, batch, found.tokens_timed)


def _reading(job: Job, phase: str, point: Point, found: Recorded) -> Reading:
    name = f"{phase}-b{point.batch}-c{point.context}"
    label = f"{job.spec.label} · {phase} · batch {point.batch} · context {point.context}"
    if found.trace is None:
        return Reading(label, None, None, "recorded by an outer profiler; see its report")
    kept = job.folder / (name + {".gz": ".trace.json.gz", ".sqlite": ".sqlite"}.get(found.trace.suffix, ".trace.json"))
    try:
        columns = read_any(found.trace)
        analysed = analyse_trace(spans_of(columns))
    except RedlineError as error:
        return Reading(label, None, None, f"the trace could not be read: {error.what}")
    if job.keep_traces:
        shutil.move(found.trace, kept)
    return Reading(label, analysed, kept if job.keep_traces else None, columns.readout.sentence(), analysed.notes)


def spans_of(columns: TraceColumns) -> Spans:
    return Spans(
        columns.names,
        columns.tracks,
        columns.kind,
        columns.name,
        columns.start_us,
        columns.length_us,
        columns.track,
        columns.correlation,
    )


def _headers(spec: EngineSpec) -> dict[str, str]:
    key = os.environ.get(spec.api_key_env, "") if spec.api_key_env else ""
    return {"Authorization": f"Bearer {key}"} if key else {}
