"""One load point: warm-up, measurement, drain; every record delivered the moment its request ends."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from redline.clock import now_ns
from redline.engines.endpoint import Endpoint
from redline.errors import EnvironmentFault
from redline.load.arrivals import schedule
from redline.load.crew import LoadWorker
from redline.load.frames import Arrivals, Phase, PhaseDone, RawStream, Tick
from redline.load.progress import LoadProgress, PointOutcome, StoppedBy, Tally
from redline.load.prompts import PromptSource
from redline.load.reading import Asked, Reader
from redline.load.record import RequestRecord, Status, TokenSource
from redline.load.stamping import Stamper
from redline.load.supply import Supply
from redline.load.target import resolve
from redline.load.worker import open_files_limit
from redline.spec.load import LoadPoint, LoadSpec
from redline.spec.workload import WorkloadSpec
from redline.units import NS_PER_S

__all__ = ["LoadProgress", "PointOutcome", "PromptSource", "run_point"]

_WARMUP_MAX = 16
_OPEN_WARMUP_CLIENTS = 4
_HELD_BYTES_MAX = 256 << 20
_POLL_S = 0.05
_ALIVE_EVERY_S = 0.5
_PROGRESS_EVERY_S = 0.25
_SPARE_FILES = 64

OnRecord = Callable[[RequestRecord], None]
OnProgress = Callable[[LoadProgress], None]
Ask = Callable[[], bool]


def run_point(
    endpoint: Endpoint,
    workload: WorkloadSpec,
    load: LoadSpec,
    point: LoadPoint,
    *,
    seed: int,
    prompts: PromptSource,
    on_record: OnRecord,
    on_progress: OnProgress = lambda progress: None,
    should_stop: Ask = lambda: False,
    alive: Ask = lambda: True,
    api_key: str | None = None,
) -> PointOutcome:
    """Push `endpoint` at one load point and tell how it went.

    Warm-up requests come first and are recorded as such. `should_stop` is asked at least every 50 ms, `alive` twice a
    second; when the engine is gone, or refuses connections for a second, the point ends and keeps what was measured.
    EnvironmentFault when the load worker cannot run here.
    """
    if point.kind == "closed":
        _check_files(int(point.value))
    silent_s = load.idle_timeout_s if workload.stream else load.timeout_s
    target = replace(
        resolve(endpoint.base_url),
        timeout_ns=int(load.timeout_s * NS_PER_S),
        idle_ns=int(silent_s * NS_PER_S),
        timestamps=load.stamps != "user",
    )
    # the ring is open before the first connection is
    with Stamper(target, load.stamps) as stamper, LoadWorker(target) as worker:
        told = _Told(on_record, on_progress, should_stop, alive)
        supply = Supply(endpoint, workload, prompts, seed=seed, api_key=api_key)
        return _Push(worker, stamper, load, point, seed, prompts, supply, told, api_key).run()


def _check_files(clients: int) -> None:
    limit = open_files_limit()
    if clients + _SPARE_FILES > limit:
        raise EnvironmentFault(
            f"{clients} clients need {clients + _SPARE_FILES} open files, and {limit} are allowed",
            fix=f"ulimit -Hn {clients + _SPARE_FILES} (as root), or LimitNOFILE= of the service",
        )


@dataclass(frozen=True)
class _Told:
    """Whom to tell and whom to ask."""

    on_record: OnRecord
    on_progress: OnProgress
    should_stop: Ask
    alive: Ask


class _Push:
    """The state of one load point under way."""

    def __init__(
        self,
        worker: LoadWorker,
        stamper: Stamper,
        load: LoadSpec,
        point: LoadPoint,
        seed: int,
        prompts: PromptSource,
        supply: Supply,
        told: _Told,
        api_key: str | None,
    ) -> None:
        self._worker, self._load, self._point, self._seed = worker, load, point, seed
        self._stamper = stamper
        self._prompts, self._supply, self._told = prompts, supply, told
        self._clients = int(point.value) if point.kind == "closed" else 0
        # a tokenizer that loads the server is asked after the measurement, not during it
        during = None if prompts.loads_server else prompts.count_texts
        self._reader = Reader(count=during, source=prompts.token_source, secret=api_key)
        self._late_reader = Reader(count=prompts.count_texts, source=prompts.token_source, secret=api_key)
        self._held: list[tuple[RawStream, Asked]] = []
        self._held_bytes = 0
        self._tally = Tally()
        self._outcome = PointOutcome(started_ns=now_ns())
        self._why: StoppedBy | None = None
        self._alive_at = self._progress_at = 0.0
        self._first = self._sent_before = 0

    def run(self) -> PointOutcome:
        outcome = self._outcome
        done = self._warm_up()
        if self._why is None:
            done = self._measure()
        outcome.ended_ns = done.ended_ns
        outcome.measured_from_ns = outcome.measured_from_ns or outcome.ended_ns
        self._read_held()
        self._tally.fill(outcome)
        outcome.opening_events, outcome.closing_events = self._reader.silent_events()
        self._remark(done.tick)
        return outcome

    def _warm_up(self) -> PhaseDone:
        wanted = self._load.warmup_requests or min(_WARMUP_MAX, self._clients or max(1, math.ceil(self._point.value)))
        at_once = min(self._clients or _OPEN_WARMUP_CLIENTS, wanted)
        self._supply.feed(self._worker, wanted, warmup=True)
        self._worker.start(Phase(Arrivals.CLOSED, clients=at_once, requests=wanted))
        done = self._pump("warm-up", wanted)
        if self._why is None and done.stopped_by == "refused":
            self._why = "engine-died"
        self._outcome.stopped_by = self._why or "requests"
        if self._tally.finished and self._tally.failed == self._tally.finished:
            self._outcome.notes.append(f"all {self._tally.failed} warm-up requests failed")
        return done

    def _measure(self) -> PhaseDone:
        load, outcome, clients = self._load, self._outcome, self._clients
        duration_ns = int(load.duration_s * NS_PER_S)
        phase = Phase(
            Arrivals.CLOSED if clients else Arrivals.OPEN,
            clients=clients or 1,
            requests=load.requests,
            duration_ns=duration_ns,
            drain_ns=int(load.drain_s * NS_PER_S),
            ramp_ns=int(load.ramp_s * NS_PER_S),
            preconnect=bool(clients),
        )
        if not clients:
            phase.offsets_ns = schedule(
                self._point, seed=self._seed, duration_s=load.duration_s, requests=load.requests
            )
        outcome.planned = load.requests if clients else len(phase.offsets_ns)
        self._first, self._sent_before = self._supply.made, self._tally.tick.sent
        self._supply.feed(self._worker, self._supply.first(outcome.planned, clients))
        self._tally.start_over()
        cpu, parent_cpu = self._tally.tick.cpu_s, time.process_time()
        self._worker.start(phase)
        done = self._pump("measuring", outcome.planned)
        outcome.measured_from_ns, outcome.sent = done.started_ns, done.sent
        outcome.client_cpu_s = done.tick.cpu_s - cpu
        outcome.parent_cpu_s = time.process_time() - parent_cpu
        outcome.stopped_by = self._why or _reason(done.stopped_by)
        if not clients and outcome.stopped_by == "requests" and outcome.planned != load.requests:
            outcome.stopped_by = "duration"  # the schedule was as long as the time
        return done

    def _pump(self, phase: Literal["warm-up", "measuring"], planned: int) -> PhaseDone:
        """Hear the worker out until its phase is over."""
        longest = self._load.duration_s if phase == "measuring" else 0.0
        while True:
            for heard in self._worker.hear(_POLL_S):
                if isinstance(heard, RawStream):
                    self._stamper.put(heard)
                elif isinstance(heard, Tick):
                    self._tally.ticked(heard)
                else:
                    self._take(self._stamper.flush())
                    self._tally.ticked(heard.tick)
                    self._told.on_progress(self._tally.progress(phase, planned, longest))
                    return heard
            self._take(self._stamper.ready())
            self._watch()
            if phase == "measuring" and self._why is None:
                self._top_up(planned)
            now = time.monotonic()
            if now >= self._progress_at:
                self._progress_at = now + _PROGRESS_EVERY_S
                self._told.on_progress(self._tally.progress(phase, planned, longest))

    def _watch(self) -> None:
        """Stop when the user has had enough or the engine is gone."""
        if self._why is not None:
            return
        now = time.monotonic()
        if self._told.should_stop():
            self._why = "interrupted"
        elif now >= self._alive_at:
            self._alive_at = now + _ALIVE_EVERY_S
            if not self._told.alive():
                self._why = "engine-died"
        if self._why is not None:
            self._worker.cancel()

    def _top_up(self, planned: int) -> None:
        fed, sent = self._supply.made - self._first, self._tally.tick.sent - self._sent_before
        if planned and fed >= planned:
            return
        seconds = (now_ns() - self._tally.began_ns) / NS_PER_S
        missing = self._supply.missing(fed, sent, sent / max(seconds, 0.1), planned, self._clients)
        if missing:
            self._supply.feed(self._worker, missing, under_load=True)

    def _take(self, streams: list[RawStream]) -> None:
        for raw in streams:
            self._take_one(raw)

    def _take_one(self, raw: RawStream) -> None:
        asked = self._supply.asked.pop(raw.head.number)
        record = self._reader.read(raw, asked)
        self._tally.add(raw, record)
        countable = record.status is Status.OK and record.token_source is TokenSource.CHUNKS
        if countable and self._prompts.loads_server and self._held_bytes < _HELD_BYTES_MAX:
            self._held.append((raw, asked))
            self._held_bytes += len(raw.data)
            return
        self._told.on_record(record)

    def _read_held(self) -> None:
        """Answers without usage, now that counting their tokens disturbs nobody."""
        reader = self._late_reader if self._why is None else self._reader
        for raw, asked in self._held:
            try:
                record = reader.read(raw, asked)
            except EnvironmentFault as problem:
                self._outcome.notes.append(f"answers could not be counted: {problem.what}")
                reader = self._reader
                record = reader.read(raw, asked)
            self._told.on_record(record)

    def _remark(self, tick: Tick) -> None:
        """What somebody who reads the numbers should know."""
        outcome, supply, notes = self._outcome, self._supply, self._outcome.notes
        outcome.pieces, outcome.bytes_in = tick.pieces, tick.bytes_in
        outcome.starved, outcome.retried = tick.starved, tick.retried
        outcome.short_slice = self._worker.short_slice
        outcome.stamps = self._stamper.report.as_dict()
        outcome.clock_error_ns, outcome.clock_step_ns = tick.clock_error_ns, tick.clock_step_ns
        outcome.backlog_max_bytes, outcome.spilled_bytes = tick.backlog_max, tick.spilled
        outcome.prompts_off, outcome.prompts_unverified = supply.off, supply.unverified
        notes[:0] = self._prompts.notes
        if supply.off:
            notes.append(f"{supply.off} of {supply.made} prompts could not be made exactly as long as asked")
        if tick.starved:
            notes.append(f"{tick.starved} requests were due before they were made, and left late")
        if tick.retried:
            notes.append(
                f"{tick.retried} requests were sent again because the server closed an idle connection under them"
            )
        if tick.clock_steps:
            notes.append(
                f"the wall clock was set by up to {tick.clock_step_ns / 1e6:.1f} ms while measuring; "
                "arrivals within 100 ms of that may be off by as much"
            )
        if tick.spilled:
            notes.append("records waited on disk, because storing them was slower than measuring")


def _reason(stopped_by: str) -> StoppedBy:
    """The worker's word for it as ours."""
    known: dict[str, StoppedBy] = {
        "requests": "requests",
        "duration": "duration",
        "failing": "failing",
        "refused": "engine-died",
        "cancelled": "interrupted",
    }
    return known[stopped_by]
