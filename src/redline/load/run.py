"""One load point: warm-up, measurement, drain; every record delivered the moment its request ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import Literal

from redline.clock import now_ns
from redline.engines.endpoint import Endpoint
from redline.errors import EnvironmentFault, RedlineError
from redline.load.body import streams
from redline.load.canary import Listener
from redline.load.cores import CorePlan, plan_cores, wanted_workers
from redline.load.crew import Crew, Heard
from redline.load.frames import PhaseDone, Plant, RawStream, Tick
from redline.load.giving_up import gone
from redline.load.limits import check_limits
from redline.load.measured import clients_of, demand_of, longest_s, measured_phase, rows_of, traffic_of
from redline.load.progress import LoadProgress, PointOutcome, StoppedBy, Tally
from redline.load.prompts import PromptSource
from redline.load.reading import Asked, Reader
from redline.load.record import RequestRecord, Status, TokenSource
from redline.load.sessions import Sessions, sessions_of
from redline.load.stamping import Stamper
from redline.load.supply import Supply
from redline.load.target import is_loopback, resolve
from redline.load.warming import WarmUp
from redline.spec.load import LoadPoint, LoadSpec
from redline.spec.workload import WorkloadSpec
from redline.units import NS_PER_S

__all__ = ["LoadProgress", "PointOutcome", "PromptSource", "run_point"]

_HELD_BYTES_MAX = 256 << 20
_POLL_S = 0.05
_BUSY_POLL_S = 0.002
_ALIVE_EVERY_S = 0.5
_PROGRESS_EVERY_S = 0.25

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
    plant: Plant | None = None,
    traced: bool = False,
    before_measuring: Callable[[], None] = lambda: None,
) -> PointOutcome:
    """Push `endpoint` at one load point and tell how it went.

    Warm-up requests come first and are recorded as such; `before_measuring` is called once they are over. `should_stop`
    is asked at least every 50 ms, `alive` twice a second; when the engine is gone, or refuses connections for a second,
    the point ends and keeps what was measured. With `traced` every request carries a traceparent. EnvironmentFault when
    the load worker cannot run here.
    """
    silent_s = load.idle_timeout_s if streams(workload) else load.timeout_s
    target = replace(
        resolve(endpoint.base_url),
        timeout_ns=int(load.timeout_s * NS_PER_S),
        idle_ns=int(silent_s * NS_PER_S),
        timestamps=load.stamps != "user",
        **(asdict(plant) if plant else {}),
    )
    plan = _plan(endpoint, workload, load, demand_of(prompts.trace, point, load), is_loopback(target))
    check_limits(clients_of(point), plan.workers)
    waits = bool(clients_of(point)) or prompts.workload.turns.mean > 1 or load.max_in_flight > 0
    # the ring is open before the first connection is
    with ExitStack() as stack:
        stamper = stack.enter_context(Stamper(target, load.stamps))
        worker = stack.enter_context(Crew(stamper.eased(target, closed=waits), plan.workers, cores=plan.cores))
        told = _Told(on_record, on_progress, should_stop, alive, before_measuring)
        supply = Supply(endpoint, workload, prompts, seed=seed, api_key=api_key, traced=traced)
        push = _Push(worker, stamper, load, point, seed, prompts, supply, told, api_key)
        outcome = push.run()
    outcome.workers, outcome.pinning = plan.workers, plan.note
    outcome.client_cores, outcome.server_cores = list(plan.cores), list(plan.server)
    return outcome


def _plan(
    endpoint: Endpoint, workload: WorkloadSpec, load: LoadSpec, demand: tuple[str, float], loopback: bool
) -> CorePlan:
    chunks = workload.output_tokens.mean if workload.stream else 1
    wanted = wanted_workers(*demand, chunks)
    local = bool(endpoint.pids) or loopback
    return plan_cores(endpoint.pids, wanted=wanted, asked=load.workers, pin=load.pin == "auto", local=local)


@dataclass(frozen=True)
class _Told:
    """Whom to tell and whom to ask."""

    on_record: OnRecord
    on_progress: OnProgress
    should_stop: Ask
    alive: Ask
    before_measuring: Callable[[], None]


class _Push:
    """The state of one load point under way."""

    def __init__(
        self,
        worker: Crew,
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
        self._clients = clients_of(point)
        # a tokenizer that loads the server is asked after the measurement, not during it
        during = None if prompts.loads_server else prompts.count_texts
        self._listener = Listener(prompts.canaries)
        self._reader = Reader(count=during, source=prompts.token_source, secret=api_key, hear=self._listener.hear)
        self._late_reader = Reader(count=prompts.count_texts, source=prompts.token_source, secret=api_key)
        self._held: list[tuple[RawStream, Asked]] = []
        self._held_bytes = 0
        self._tally = Tally()
        self._outcome = PointOutcome(started_ns=now_ns())
        self._why: StoppedBy | None = None
        self._alive_at = self._progress_at = 0.0
        self._first = self._sent_before = 0
        self._sessions: Sessions | None = None
        self._warm_up = WarmUp(worker, load, point, prompts, supply, self._listener)

    def run(self) -> PointOutcome:
        outcome = self._outcome
        done = self._warm_up.run(lambda wanted: self._pump("warm-up", wanted), outcome, lambda: self._why)
        if self._why is None and done.stopped_by == "refused":
            self._why = "engine-died"
        outcome.stopped_by = self._why or "requests"
        if self._tally.finished and self._tally.failed == self._tally.finished:
            outcome.notes.append(f"all {self._tally.failed} warm-up requests failed")
        if self._why is None:
            done = self._measure()
        outcome.ended_ns = done.ended_ns
        outcome.measured_from_ns = outcome.measured_from_ns or outcome.ended_ns
        self._prompts.busy_until_ns = outcome.ended_ns
        self._read_held()
        self._tally.fill(outcome)
        outcome.opening_events, outcome.closing_events = self._reader.silent_events()
        self._remark(done.tick)
        return outcome

    def _with_canaries(self) -> LoadSpec:
        """Canaries come on top of the requests asked for; conversations and traces are left as they are."""
        load, canaries = self._load, self._prompts.canaries
        plain = self._prompts.trace is None and self._prompts.workload.turns.mean == 1
        if canaries is None or not load.requests or not plain:
            return load
        return load.model_copy(update={"requests": load.requests + canaries.beside(load.requests)})

    def _measure(self) -> PhaseDone:
        load, outcome, clients = self._with_canaries(), self._outcome, self._clients
        requests = load.requests
        rows = rows_of(self._prompts.trace, self._point, load)
        phase = measured_phase(self._point, load, self._seed, rows)
        outcome.traffic = traffic_of(self._point, load, self._prompts.trace, rows)
        outcome.planned = requests if clients else len(phase.offsets_ns)
        self._first, self._sent_before = self._supply.made, self._tally.tick.sent
        self._sessions = sessions_of(self._supply, load, seed=self._seed, rows=rows, timed=self._point.kind == "trace")
        outcome.max_in_flight = phase.max_in_flight if self._sessions is None else 0
        if self._sessions is not None:
            outcome.planned = load.requests
            self._sessions.prepare(phase)
        else:
            self._supply.follow(rows)
            self._supply.feed(self._worker, self._supply.first(outcome.planned, clients, self._warm_up.rate))
        self._told.before_measuring()
        if self._sessions is not None:
            self._worker.feed(self._sessions.begin(phase))
        self._tally.start_over()
        cpu, parent_cpu, pieces = self._worker.cpu_s(), time.process_time(), self._tally.tick.pieces
        self._worker.start(phase)
        done = self._pump("measuring", outcome.planned)
        outcome.measured_from_ns, outcome.sent = done.started_ns, done.sent
        spent = [after - before for after, before in zip(self._worker.cpu_s(), cpu, strict=True)]
        outcome.client_cpu_s, outcome.worker_cpu_s_max = sum(spent), max(spent)
        outcome.pieces_measured = done.tick.pieces - pieces
        outcome.parent_cpu_s = time.process_time() - parent_cpu
        outcome.stopped_by = self._why or _reason(done.stopped_by)
        if self._sessions is not None:
            self._sessions.tell(outcome)
        if not clients and outcome.stopped_by == "requests" and outcome.planned not in (0, requests):
            outcome.stopped_by = "duration"  # the schedule was as long as the time
        return done

    def _pump(self, phase: Literal["warm-up", "measuring"], planned: int) -> PhaseDone:
        """Hear the worker out until its phase is over."""
        longest = longest_s(self._point, self._load) if phase == "measuring" else 0.0
        while True:
            for heard in self._hear():
                if isinstance(heard, RawStream):
                    self._go_on(heard)
                    self._stamper.put(heard)
                elif isinstance(heard, Tick):
                    self._tally.ticked(heard)
                else:
                    self._take(self._stamper.flush())
                    self._tally.ticked(heard.tick)
                    self._told.on_progress(self._tally.progress(phase, planned, longest))
                    # few requests are refused by a dead engine faster than it is looked after
                    if self._why is None and self._tally.failed and gone(self._told.alive):
                        self._why = "engine-died"
                    return heard
            self._take(self._stamper.ready())
            self._watch()
            if phase == "measuring" and self._why is None:
                self._top_up(planned)
            now = time.monotonic()
            if now >= self._progress_at:
                self._progress_at = now + _PROGRESS_EVERY_S
                self._told.on_progress(self._tally.progress(phase, planned, longest))

    def _hear(self) -> list[Heard]:
        """A worker that died may have handed over requests that still wait for their stamps: none is lost."""
        try:
            return self._worker.hear(_BUSY_POLL_S if self._stamper.behind else _POLL_S)
        except RedlineError:
            self._take(self._stamper.flush())
            self._read_held()
            raise

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
        if self._sessions is not None:
            self._worker.feed(self._sessions.more())
            return
        fed, sent = self._supply.made - self._first, self._tally.tick.sent - self._sent_before
        if planned and fed >= planned:
            return
        seconds = (now_ns() - self._tally.began_ns) / NS_PER_S
        missing = self._supply.missing(fed, sent, sent / max(seconds, 0.1), planned, self._clients)
        if missing:
            self._supply.feed(self._worker, missing, under_load=True)

    def _go_on(self, raw: RawStream) -> None:
        """The next turn of a session, at once: it cannot wait for better stamps of the answer before."""
        asked = self._supply.asked[raw.head.number]
        if self._sessions is None or not asked.in_session or self._why is not None:
            return
        self._worker.feed(self._sessions.answered(self._reader.read(raw, asked)))
        if self._sessions.over:
            self._worker.cancel()  # nothing is in flight: that is how it learns that nothing more will come

    def _take(self, streams: list[RawStream]) -> None:
        for raw in streams:
            self._take_one(raw)

    def _take_one(self, raw: RawStream) -> None:
        asked = self._supply.asked.pop(raw.head.number)
        record = self._reader.read(raw, asked)
        if asked.warmup and asked.canary < 0:
            self._warm_up.records.append(record)
        self._tally.add(raw, record)
        if asked.in_session and not asked.keep_text:
            record.text = ""
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
            record.text = record.text if asked.keep_text else ""
            self._told.on_record(record)

    def _remark(self, tick: Tick) -> None:
        """What somebody who reads the numbers should know."""
        outcome, supply, notes = self._outcome, self._supply, self._outcome.notes
        outcome.pieces, outcome.bytes_in = tick.pieces, tick.bytes_in
        outcome.starved, outcome.retried = tick.starved, tick.retried
        outcome.short_slice, outcome.interpreted = self._worker.short_slice, self._worker.interpreted
        outcome.stamps = self._stamper.report.as_dict()
        outcome.clock_error_ns, outcome.clock_step_ns = tick.clock_error_ns, tick.clock_step_ns
        outcome.backlog_max_bytes, outcome.spilled_bytes = tick.backlog_max, tick.spilled
        outcome.canary, outcome.answers = self._listener.canary(), self._listener.answers()
        outcome.cache = self._prompts.cache_declared | {"told_by_usage": self._reader.cached_told}
        if self._sessions is not None or outcome.traffic.get("trace", {}).get("shares_blocks"):
            outcome.cache["declared"] = "natural"  # prompts share their beginnings on purpose
        outcome.prompts_off, outcome.prompts_unverified = supply.off, supply.unverified
        outcome.spread = self._reader.spread
        outcome.prompt_overhead = self._prompts.overhead
        outcome.prefixes_used = len(supply.prefixes)
        outcome.trace_prefix = supply.trace_prefix
        notes[:0] = self._prompts.notes
        notes += self._stamper.report.notes()
        if len(supply.prefixes) > 1:
            most = supply.prefixes.most_common(1)[0][1] / supply.prefixes.total()
            notes.append(
                f"{len(supply.prefixes)} shared prefixes in use, the most popular in {most:.0%} of the prompts"
            )
        if supply.off:
            notes.append(f"{supply.off} of {supply.made} prompts could not be made exactly as long as asked")
        notes += _notes_of(tick)


def _notes_of(tick: Tick) -> list[str]:
    """What the workers noticed about themselves and the server."""
    notes: list[str] = []
    if tick.starved:
        notes.append(f"{tick.starved} requests were due before they were made, and left late")
    if tick.retried:
        notes.append(f"{tick.retried} requests were sent again because the server closed an idle connection under them")
    if tick.awaits_acks:
        notes.append(
            "the server holds chunks back until those before them are acknowledged (Nagle; set TCP_NODELAY there): "
            "its times depend on how soon a client reads, and here it read at once"
        )
    if tick.clock_steps:
        notes.append(
            f"the wall clock was set by up to {tick.clock_step_ns / 1e6:.1f} ms while measuring; "
            "arrivals within 100 ms of that may be off by as much"
        )
    if tick.spilled:
        notes.append("records waited on disk, because storing them was slower than measuring")
    return notes


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
