"""The three things that can be measured of a setting: answers of an engine, short connections, the model's load."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol
from urllib.parse import urlsplit

from redline.analyse.blocks import Spread
from redline.analyse.proof import Sides
from redline.analyse.rounds import Round
from redline.clock import now_ns
from redline.engines.engine import Engine, Server, Start
from redline.engines.launch import root_of
from redline.errors import EngineError
from redline.load.record import RequestRecord
from redline.observe.signals import SignalWatch
from redline.spec.engine import EngineSpec
from redline.spec.load import LoadPoint
from redline.spec.model import ModelSpec
from redline.tune.plan import plan_of
from redline.tune.preflight import Job
from redline.tune.prove.arms import Arms, engine_pids, pids_at, sides_of
from redline.tune.prove.candidate import Candidate
from redline.tune.prove.engines import ArrangedEngine, HeldEngine
from redline.tune.prove.http import Target, storm
from redline.tune.prove.switch import Switch
from redline.tune.rounds import in_turn, numbers_of, run_rounds
from redline.tune.serve import serve
from redline.tune.trial import Context, run_trial

Kind = Literal["bench", "http", "load"]
METRICS: Mapping[Kind, tuple[str, ...]] = {
    "bench": ("output_tokens_per_s", "ttft_ms.p50", "ttft_ms.p99", "itl_ms.p50", "itl_ms.p99", "failed_share"),
    "http": ("requests_per_s", "e2e_ms.p50", "e2e_ms.p99", "failed_share"),
    "load": ("load_s", "weights_s"),
}


class Measure(Protocol):
    """`run` goes through the rounds of one setting and keeps them in the store; `sides` gives them as they are there.
    `restarts`: it can start the engine again; `always`: it does so for every round, whatever the setting."""

    kind: Kind
    restarts: bool
    always: bool

    def run(self, candidate: Candidate, switch: Switch) -> None: ...

    def sides(self, candidate: Candidate) -> Sides: ...

    def close(self) -> None: ...


@dataclass
class _Measure:
    context: Context
    model: ModelSpec
    spec: EngineSpec
    engine: Engine
    arms: Arms
    restarts: bool
    always: bool = False
    _up: ExitStack = field(default_factory=ExitStack)
    _server: Server | None = None

    def jobs(self, candidate: Candidate, engine: Callable[[bool], Engine]) -> list[Job]:
        """One for the present and one for the wanted value."""
        return [
            Job(self.model, self.spec.model_copy(update={"name": label}), engine(wanted))
            for label, wanted in zip(candidate.labels, (False, True), strict=True)
        ]

    def arranged(self, candidate: Candidate, switch: Switch) -> list[Job]:
        return self.jobs(candidate, lambda wanted: ArrangedEngine(self.engine, switch, wanted))

    def in_turns(self, jobs: list[Job]) -> Iterator[tuple[int, Job]]:
        for number in range(self.context.experiment.rounds):
            for job in in_turn(jobs, number):
                if not self.context.stop.asked:
                    self.context.events.turn(job, number)
                    yield number, job

    def sides(self, candidate: Candidate) -> Sides:
        slo = self.context.experiment.slo.terms
        return sides_of(self.context.store, self.context.run_id, candidate.labels, slo)

    def running(self) -> Server:
        """An engine that stays up for all settings that one can feel while it runs."""
        if self._server is None:
            folder = self.context.store.artifact_dir(self.context.run_id) / "engine"
            folder.mkdir(parents=True, exist_ok=True)
            seed, progress = self.context.experiment.seed, self.context.events.phase
            up = serve(self.model, self.spec, artifacts=folder, seed=seed, progress=progress)
            self._server = self._up.enter_context(up)
        return self._server

    def close(self) -> None:
        self._server = None
        self._up.close()


@dataclass
class Bench(_Measure):
    """TTFT, ITL and throughput under load. An engine that can stay up is started once for all settings."""

    kind: Kind = "bench"

    def run(self, candidate: Candidate, switch: Switch) -> None:
        self.arms.stand_for(candidate, switch)
        self.arms.live = not candidate.at_start
        if candidate.at_start:
            self.close()
            for number, job in self.in_turns(self.arranged(candidate, switch)):
                run_trial(self.context, job, number, plan_of(self.context.experiment))
            return
        server = self.running()
        jobs = self.jobs(candidate, lambda _: HeldEngine(self.engine, server))
        run_rounds(self.context, jobs, 0, numbers_of(self.context.experiment, 0))


@dataclass
class Http(_Measure):
    """Latency of short connections to `target`, or to the engine's own address when that is started for each round."""

    target: Target = field(default_factory=lambda: Target("http://127.0.0.1/"))
    kind: Kind = "http"

    def run(self, candidate: Candidate, switch: Switch) -> None:
        self.arms.stand_for(candidate, switch)
        self.arms.live = not candidate.at_start
        if candidate.at_start:
            self.close()  # two engines would share the box
        jobs = self.arranged(candidate, switch) if candidate.at_start else self.jobs(candidate, lambda _: self.engine)
        for number, job in self.in_turns(jobs):
            with self._address(job) as (target, pids):
                self._round(job, number, target, pids)

    @contextmanager
    def _address(self, job: Job) -> Iterator[tuple[Target, tuple[int, ...]]]:
        if not self.arms.live:
            with _started(self.context, job) as server:
                yield self._at(server)
        elif self.spec.kind == "url":
            yield self.target, self.arms.pids or pids_at(self.target.url)
        else:
            yield self._at(self.running())

    def _at(self, server: Server) -> tuple[Target, tuple[int, ...]]:
        parts, there = urlsplit(self.target.url), urlsplit(root_of(server.endpoint.base_url))
        target = replace(self.target, url=parts._replace(scheme=there.scheme, netloc=there.netloc).geturl())
        return target, self.arms.pids or engine_pids(server)

    def _round(self, job: Job, number: int, target: Target, pids: tuple[int, ...]) -> None:
        store, stop = self.context.store, self.context.stop
        trial = store.begin_trial(self.context.run_id, model=self.model.served_name, spec=job.spec, repeat=number)
        point = LoadPoint("closed", target.burst)
        status, point_id = "failed", store.begin_point(trial, point)
        self.context.events.point(point)
        try:
            with stop.orderly(), self.arms.hold(job.spec.label, pids) as found:
                records, began = storm(target, lambda: stop.asked)
            for record in records:
                store.add_request(point_id, record)
            ended_by = "interrupted" if stop.asked else "duration"
            why = _all_failed(records)
            store.end_point(
                point_id, measured_from_ns=began, ended_ns=now_ns(), stopped_by=ended_by, outcome=found,
                verdict="invalid" if why else "valid", reasons=[why] if why else [],
            )  # fmt: skip
            status = "interrupted" if stop.asked else "done"
        finally:
            store.end_trial(trial, status)


@dataclass
class Load(_Measure):
    """How long the engine takes until it answers: every round is a start. Nothing is asked of it beyond that."""

    kind: Kind = "load"
    always: bool = True
    found: dict[str, dict[int, tuple[Round, dict[str, float]]]] = field(default_factory=dict)

    def run(self, candidate: Candidate, switch: Switch) -> None:
        self.arms.stand_for(candidate, switch)
        for number, job in self.in_turns(self.arranged(candidate, switch)):
            with ExitStack() as up:
                switch.to(self.arms.values[job.spec.label][1])  # before the signals are read
                with SignalWatch(self.arms.sys, (), self.arms.files) as watch:
                    server = up.enter_context(_started(self.context, job, number))
                numbers = _load_numbers(server.endpoint.startup_ms)
            switch.check()
            self.found.setdefault(job.spec.label, {})[number] = (Round(numbers), watch.found)

    def sides(self, candidate: Candidate) -> Sides:
        present, wanted = (self.found.get(label, {}) for label in candidate.labels)
        both = [number for number in sorted(present) if number in wanted]
        rounds = ([present[n][0] for n in both], [wanted[n][0] for n in both])
        return Sides({"start": rounds}, ([present[n][1] for n in both], [wanted[n][1] for n in both]))


def _load_numbers(startup_ms: Mapping[str, float]) -> dict[str, Spread]:
    """The whole start, and of it the reading of weights where the engine tells it. Spread is between rounds only."""
    phases = {"load_s": ("total",), "weights_s": ("weights", "load")}
    found = {name: next((startup_ms[key] for key in keys if startup_ms.get(key)), 0.0) for name, keys in phases.items()}
    return {name: Spread(ms / 1000, 0.0) for name, ms in found.items() if ms > 0}


@contextmanager
def _started(context: Context, job: Job, number: int | None = None) -> Iterator[Server]:
    """The engine for one round, kept as a trial when it has a `number`."""
    store, folder = context.store, context.store.artifact_dir(context.run_id) / "start"
    folder.mkdir(parents=True, exist_ok=True)
    trial = None
    if number is not None:
        trial = store.begin_trial(context.run_id, model=job.model.served_name, spec=job.spec, repeat=number)
    status, error = "failed", None
    try:
        server = job.engine.start(Start(job.spec, job.model, folder, context.experiment.seed), context.events.phase)
        try:
            if trial is not None:
                store.trial_ready(trial, server.endpoint, {})
            context.events.ready(server.endpoint)
            yield server
        finally:
            server.stop()
        status = "interrupted" if context.stop.asked else "done"
    except EngineError as problem:
        error = problem
        raise
    finally:
        if trial is not None:
            store.end_trial(trial, status, str(error or ""), error.diagnosis if error else "")
        shutil.rmtree(folder, ignore_errors=True)


def _all_failed(records: list[RequestRecord]) -> str:
    counted = [record for record in records if not record.warmup]
    if not counted or all(record.failed for record in counted):
        error = next((record.error for record in counted if record.error), "")
        return f"no connection got an answer: {error}" if counted else "no connection was made"
    return ""
