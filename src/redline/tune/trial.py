"""One engine configuration, started, pushed through every load point, and stopped."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redline.analyse.finding import Verdict
from redline.analyse.summary import PointSummary
from redline.engines.engine import Server, Start
from redline.errors import EngineDied, EngineError, EnvironmentFault, RedlineError
from redline.load.canary import Canaries
from redline.load.giving_up import gone
from redline.load.measured import level_twin
from redline.load.progress import LoadProgress
from redline.load.prompts import PromptSource, prompt_source
from redline.load.run import PointOutcome, run_point
from redline.observe.box import BoxWatch
from redline.observe.client import client_samples
from redline.observe.metrics import ServerWatch
from redline.observe.sampling import Watch
from redline.spec.experiment import Experiment
from redline.spec.load import LoadPoint
from redline.spec.resolve import model_hashes, resolve_model
from redline.store.replay import recorded
from redline.store.store import Store
from redline.tune.calibrate import Calibrator
from redline.tune.events import Events
from redline.tune.judge import summary_of
from redline.tune.plan import Plan
from redline.tune.preflight import Job
from redline.tune.sampled import key_header, plan_for
from redline.tune.stop import Stop
from redline.tune.watched import span_receiver, watched

STARTS_PER_TRIAL = 2  # an engine that dies under load is started once more for the points that are left


@contextmanager
def _as_it_is(job: Job, server: Server) -> Iterator[dict[str, Any]]:
    yield {}


Around = Callable[[Job, Server], AbstractContextManager[dict[str, Any]]]


@dataclass
class Context:
    """What every trial of one run shares."""

    experiment: Experiment
    store: Store
    run_id: str
    stop: Stop
    events: Events
    calibrator: Calibrator
    verdicts: list[Verdict] = field(default_factory=list)
    errors: list[RedlineError] = field(default_factory=list)
    """What went wrong so far: Ctrl-C must not lose it."""
    part: str = ""
    """Which part of a resumed run this is: a server that outlived the part before may hold its prompts."""
    around: Around = _as_it_is
    """Around every load point: makes the box what this job is measured on. What it yields, filled by its end, is kept
    with the point."""
    apart: bool = False
    """One server stands for several jobs: each gets prompts of its own, which no other has put into its cache."""
    canaries: dict[tuple[object, ...], Canaries | None] = field(default_factory=dict)
    """By process: what a server that stands for several jobs answered alone is asked once."""


def context_of(experiment: Experiment, store: Store, run_id: str, stop: Stop, events: Events) -> Context:
    return Context(experiment, store, run_id, stop, events, Calibrator(experiment, lambda: stop.asked))


def run_trial(context: Context, job: Job, repeat: int, plan: Plan) -> None:
    """All load points of one job that `plan` asks for. What went wrong goes to
    `context.errors`; everything measured is in the store.

    KeyboardInterrupt (Ctrl-C during start-up) passes through after the engine is gone and the trial is closed.
    """
    if job.skipped is not None and plan.next() is not None:
        trial = context.store.begin_trial(context.run_id, model=job.model.served_name, spec=job.spec, repeat=repeat)
        context.store.end_trial(trial, "skipped", str(job.skipped))
        context.events.skipped(job, job.skipped)
        return
    for _ in range(STARTS_PER_TRIAL):
        if context.stop.asked or plan.next() is None:
            break
        error = _start_and_push(context, job, repeat, plan)
        if error is not None:
            context.errors.append(error)
            context.events.failed(job, error)
        if error is None or not isinstance(error, EngineDied):
            break


def _start_and_push(context: Context, job: Job, repeat: int, plan: Plan) -> EngineError | None:
    """Every load point that is left, until the engine dies or the user has had enough."""
    try:
        with up(context, job, repeat) as (server, trial, watch):
            under_load = _UnderLoad(context, job, server, trial, _prompts(context, job, server), watch, plan)
            while not context.stop.asked and (following := plan.next()) is not None:
                index, point = following
                under_load.point(point, _point_seed(context, repeat, index))
    except EngineError as error:
        return error
    return None


@contextmanager
def up(context: Context, job: Job, repeat: int) -> Iterator[tuple[Server, int, Watch]]:
    """The engine, started, with the trial that it is and what samples it. Raises EngineError; the trial is closed, with
    the reason in it, and the engine gone in any case."""
    store = context.store
    trial = store.begin_trial(context.run_id, model=job.model.served_name, spec=job.spec, repeat=repeat)
    folder = store.artifact_dir(context.run_id) / f"trial-{trial}"
    folder.mkdir(parents=True, exist_ok=True)
    context.events.trial(job, repeat)
    status, error, asked = "failed", None, context.experiment.observe
    try:
        # spans that were under way when the engine ended still find somebody who takes them
        with span_receiver(store, trial, asked) as receiver:
            traces = receiver.url if receiver else ""
            start = Start(job.spec, job.model, folder, context.experiment.seed, traces_url=traces)
            server = job.engine.start(start, context.events.phase)
            try:
                store.trial_ready(trial, server.endpoint, _hashes(job))
                context.events.ready(server.endpoint)
                plan, url = plan_for(server.endpoint, job.spec), server.endpoint.base_url
                with watched(store, trial, plan, asked, receiver, url) as watch:
                    yield server, trial, watch
            except EnvironmentFault as fault:
                # a server that is asked for the length of a prompt just when it dies does not answer
                if not gone(server.alive):
                    raise
                raise _death(job, server) from fault
            finally:
                server.stop()
        status = "interrupted" if context.stop.asked else "done"
    except EngineError as problem:
        error = problem
        raise
    except KeyboardInterrupt:
        status = "interrupted"
        raise
    finally:
        store.end_trial(trial, status, str(error or ""), error.diagnosis if error else "")
        for path in sorted(folder.iterdir()):
            store.add_artifact(context.run_id, path, "engine-log" if path.suffix == ".log" else path.suffix.strip("."))


@dataclass(frozen=True)
class _UnderLoad:
    """A started engine with its prompts, ready for one load point after the other."""

    context: Context
    job: Job
    server: Server
    trial: int
    prompts: PromptSource
    watch: Watch
    plan: Plan

    def point(self, point: LoadPoint, seed: int) -> None:
        """Measured, judged and stored. EngineDied, after that, when the engine went under it."""
        store, events = self.context.store, self.context.events
        point_id = store.begin_point(self.trial, point)
        began = time.monotonic()
        calibrator = self.context.calibrator
        twin = level_twin(self.prompts.trace, point, self.context.experiment.load)
        with self.context.stop.orderly():
            events.phase(f"{point.label}: calibrating the client")
            calibrator.before(twin)
        events.point(point)
        outcome, around = self._run(point_id, point, seed)
        as_dict = outcome.as_dict() | around | {"random_weights": _random_weights(self.job)}
        with self.context.stop.orderly():
            as_dict["calibration"] = calibrator.after(twin, outcome.chunks_per_s)
        as_dict["chunks_per_s"] = outcome.chunks_per_s
        as_dict["observe_notes"] = [*self.watch.notes, *map(str, self.watch.skipped)]
        summary = self._judge(point_id, point, outcome, as_dict, seed)
        as_dict |= self.plan.took(point, summary, outcome.stopped_by, time.monotonic() - began)
        verdict = summary.verdict
        store.end_point(
            point_id,
            measured_from_ns=outcome.measured_from_ns,
            ended_ns=outcome.ended_ns,
            stopped_by=outcome.stopped_by,
            outcome=as_dict,
            verdict=verdict.state,
            reasons=list(verdict.reasons),
        )
        self.context.verdicts.append(verdict)
        events.point_done(point, summary)
        if outcome.stopped_by == "engine-died":
            raise _death(self.job, self.server)

    def _run(self, point_id: int, point: LoadPoint, seed: int) -> tuple[PointOutcome, dict[str, Any]]:
        store, experiment, stop = self.context.store, self.context.experiment, self.context.stop
        around = self.context.around(self.job, self.server)
        pids = self.server.endpoint.pids
        with stop.orderly(), around as found, self._server_watch() as server, BoxWatch(pids) as box:
            outcome = run_point(
                self.server.endpoint,
                experiment.workload,
                experiment.load,
                point,
                seed=seed,
                prompts=self.prompts,
                on_record=lambda record: store.add_request(point_id, record),
                on_progress=self._progress,
                should_stop=lambda: stop.asked,
                alive=self.server.alive,
                api_key=_api_key(self.job),
                before_measuring=server.mark,
                traced=experiment.observe.spans,
            )
        slowed = store.peak(self.trial, "gpu.slowed", outcome.measured_from_ns, outcome.ended_ns)
        box_said = box.as_dict(outcome.client_cpu_s) | {"gpu_slowed": slowed}
        return outcome, {"server": server.as_dict(), "box": box_said} | found

    def _progress(self, progress: LoadProgress) -> None:
        self.context.events.progress(progress)
        self.context.store.add_samples(self.trial, client_samples(progress))

    @contextmanager
    def _server_watch(self) -> Iterator[ServerWatch]:
        """Between its looks before and after it hears what the samplers scrape."""
        url = self.server.endpoint.metrics_url
        with ServerWatch(url, lambda samples: None, key_header(self.job.spec), alone=False) as server:
            self.watch.heard = server.heard
            try:
                yield server
            finally:
                self.watch.heard = None

    def _judge(
        self, point_id: int, point: LoadPoint, outcome: PointOutcome, as_dict: dict[str, Any], seed: int
    ) -> PointSummary:
        context, window = self.context, (outcome.measured_from_ns, outcome.ended_ns)
        return summary_of(
            context.store,
            context.experiment,
            context.run_id,
            point_id,
            point,
            window=window,
            outcome=as_dict,
            seed=seed,
        )


def _prompts(context: Context, job: Job, server: Server) -> PromptSource:
    context.events.phase("making prompts")
    tokenizer = None if job.spec.kind == "url" and not job.model.tokenizer else resolve_model(job.model).tokenizer_path
    experiment = context.experiment
    needed = max(experiment.load.requests, *(int(point.value) for point in experiment.load.points), 64)
    source = prompt_source(
        server.endpoint,
        experiment.workload,
        seed=experiment.seed,
        tokenizer_path=tokenizer,
        needed=needed,
        api_key=_api_key(job),
        # a server that outlives the run may still hold the prompts of the run before in its cache
        salt_key=_salt_key(context, job),
        recorded=lambda what: recorded(what, context.store),
    )
    if context.apart and (pids := server.endpoint.pids):
        source.canaries = context.canaries.setdefault((server.endpoint.base_url, *pids), source.canaries)
    return source


def _salt_key(context: Context, job: Job) -> str:
    if context.apart:
        return f"{context.run_id} {job.spec.label}"
    return f"{context.run_id}{context.part}" if job.spec.kind == "url" else ""


def _api_key(job: Job) -> str | None:
    return os.environ.get(job.spec.api_key_env) if job.spec.api_key_env else None


def _hashes(job: Job) -> dict[str, str]:
    if job.spec.kind == "url":
        return {}
    path = resolve_model(job.model).path
    return model_hashes(Path(path)) if path else {}


def _random_weights(job: Job) -> bool:
    return job.spec.kind != "url" and (job.model.random_weights or job.model.id.startswith("shape:"))


def _point_seed(context: Context, repeat: int, index: int) -> int:
    # every point and repeat has prompts and arrivals of its own; every engine gets the same ones
    return context.experiment.seed * 1_000_003 + repeat * 1_009 + index


def _death(job: Job, server: Server) -> EngineDied:
    tag, meaning, fix = server.diagnose()
    return EngineDied(
        f"{job.spec.label} died under load", why=meaning, fix=fix, log_tail=server.log_tail(), diagnosis=tag
    )


@contextmanager
def kept_up(context: Context, job: Job, repeat: int) -> Iterator[Callable[[LoadPoint, int, int], None]]:
    """An engine that stays up while others take turns. What is yielded measures one load point: (point, its place in
    the experiment, number of the round). Raises EngineError."""
    with up(context, job, repeat) as (server, trial, watch):
        yield _in_turn(context, job, server, trial, watch)


class _Turns:
    """The plan of an engine that is told from outside what comes next. `number` is that of the round."""

    number = 0

    def next(self) -> tuple[int, LoadPoint] | None:
        return None

    def took(self, point: LoadPoint, summary: PointSummary, stopped_by: str, seconds: float) -> dict[str, Any]:
        return {"round": self.number}


def _in_turn(
    context: Context, job: Job, server: Server, trial: int, watch: Watch
) -> Callable[[LoadPoint, int, int], None]:
    turns = _Turns()
    under_load = _UnderLoad(context, job, server, trial, _prompts(context, job, server), watch, turns)

    def measure(point: LoadPoint, index: int, number: int) -> None:
        context.events.turn(job, number)
        turns.number = number
        if not server.alive():  # it may die while the others have their turn
            raise _death(job, server)
        try:
            under_load.point(point, _point_seed(context, number, index))
        except EnvironmentFault:
            if server.alive():
                raise
            raise _death(job, server) from None

    return measure
