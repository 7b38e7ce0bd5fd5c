"""The engine's thread: takes requests in, plans steps, keeps the runner busy, and hands tokens out.

One turn: take in what other threads asked for, plan a step, launch it, then collect the oldest one in flight. With
`run_ahead` n, up to n steps are in flight while the next one is planned, so the device does not wait for the host.
With speculation there is no running ahead: a draft starts from tokens that are known.

With nothing to do the thread sleeps in a queue. When the runner breaks, or anything unforeseen is raised, every request
is told, `failure` says what happened, `progress` stands still, and the thread ends: nothing is retried on a device
whose state is unknown.
"""

from __future__ import annotations

import gc
import logging
import threading
import traceback
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from queue import SimpleQueue
from typing import NamedTuple

from redline.clock import now_ns
from redline.errors import EngineError
from redline.runtime import late
from redline.runtime.config import EngineConfig
from redline.runtime.request import Finish, Output, Request
from redline.runtime.roster import RequestRefused
from redline.runtime.scheduler import Scheduler
from redline.runtime.stats import Stats
from redline.runtime.step import Launched, Proposer, Runner, RunnerBroken, RunnerOutOfMemory, Step

STOP_S = 30.0
"""`stop` waits so long for the step that is running."""

log = logging.getLogger(__name__)


class EngineStopped(EngineError):
    """The engine takes no requests: it was stopped, is being drained, or has failed."""


class _InFlight(NamedTuple):
    step: Step
    launched: Launched
    started_ns: int


class EngineLoop:
    """`submit`, `abort`, `stats`, `drain` and `stop` may be called from any thread; sinks and `on_step_end` are called
    on the engine's. `on_step_end` comes once after each round of outputs, so that they can be flushed together."""

    def __init__(
        self,
        runner: Runner,
        *,
        config: EngineConfig,
        proposer: Proposer | None = None,
        on_step_end: Callable[[], None] | None = None,
    ) -> None:
        ahead = config.run_ahead if config.run_ahead is not None else int(getattr(runner, "run_ahead", 0))
        self.runner = runner
        self.on_step_end = on_step_end
        self.around_step: Callable[[Step], AbstractContextManager[None]] | None = None  # while somebody profiles
        self.progress = 0
        self.failure = ""
        self.run_ahead = 0 if proposer is not None else ahead
        self.scheduler = Scheduler(
            runner.limits,
            prefix_caching=config.enable_prefix_caching,
            itl_target_ms=config.itl_target_ms,
            run_ahead=self.run_ahead,
            released=self._released,
        )
        self._proposer = proposer
        self._stepped: Callable[[Step, float], None] | None = getattr(proposer, "stepped", None)
        self._most = config.speculation.tokens if config.speculation is not None else 4
        self._commands: SimpleQueue[Request | str | threading.Event | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._closed = ""
        self._stopping = False
        self._waiters: list[threading.Event] = []
        self._in_flight: deque[_InFlight] = deque()
        self._collected_ns = 0
        self._idle_turns = 0
        self._thread = threading.Thread(target=self._run, name="redline-engine", daemon=True)

    def start(self) -> None:
        # What is here now stays: weights, modules. A collection that walks all of it takes a tenth of a second, in the
        # middle of a step; one that only knows what came later takes a few milliseconds.
        gc.freeze()
        late.serving()
        self._thread.start()

    def submit(self, request: Request) -> None:
        """Raises `RequestRefused` when it can never run here, `EngineStopped` when the engine takes none."""
        self.scheduler.roster.check(request)
        if not request.arrived_ns:
            request.arrived_ns = now_ns()
        with self._lock:
            if self._closed:
                raise EngineStopped(self._closed)
            self._commands.put(request)

    def abort(self, request_id: str) -> None:
        """Its sink gets ABORT, unless it ends before. Unknown ids are ignored."""
        self._commands.put(request_id)

    def drain(self, timeout_s: float) -> bool:
        """Takes no new requests and waits for those that are in. True when all have ended."""
        ended = threading.Event()
        with self._lock:
            self._closed = self._closed or "the engine is being drained and takes no requests"
            if not self._thread.is_alive():
                return not self.scheduler.unfinished
            self._commands.put(ended)
        return ended.wait(timeout_s)

    def stop(self) -> None:
        """Ends every request with ABORT and the thread. Waits for the running step, but not forever; then `failure`
        says so."""
        with self._lock:
            self._closed = self._closed or "the engine was stopped"
            self._stopping = True
            self._commands.put(None)
        if self._thread.ident is None:
            self._end("")
        elif self._thread is not threading.current_thread():
            self._thread.join(STOP_S)
            if self._thread.is_alive():
                self.failure = self.failure or f"the engine's thread did not end within {STOP_S:g} s: a step hangs"
                log.warning(self.failure)

    def stats(self) -> Stats:
        """A snapshot, from any thread; numbers of one moment, give or take the step that is being taken in."""
        scheduler, roster = self.scheduler, self.scheduler.roster
        pool = roster.pool
        counters = vars(scheduler.counters) | {"spec_accepted": list(scheduler.counters.spec_accepted)}
        return Stats(
            **counters,
            **vars(late.COUNTED),
            running=roster.running,
            waiting=len(roster.waiting),
            in_flight=len(self._in_flight),
            kv_usage=1 - pool.free / pool.usable,
            kv_pages=pool.usable,
            kv_pages_kept=pool.kept,
            page_size=pool.page_size,
            max_seqs=roster.max_seqs,
            max_batched_tokens=scheduler.max_batched_tokens,
        )

    def _run(self) -> None:
        failure = ""
        try:
            while self._turn():
                pass
        except RunnerBroken as broken:
            failure = f"the device is gone: {broken}"
        except BaseException:
            failure = traceback.format_exc()
        self._end(failure)

    def _turn(self) -> bool:
        """One round; False when the thread is to end."""
        scheduler = self.scheduler
        if not scheduler.unfinished and not self._in_flight:
            self._sleep()
        self._obey()
        if self._stopping:
            return False
        if self._proposer is not None and (ready := scheduler.draftable(self._most)):
            self._proposer.propose(ready, self._most)
        step = scheduler.schedule()
        self._emit()
        launched = step is not None and self._launch(step)
        if self._in_flight and (not launched or len(self._in_flight) > self.run_ahead):
            self._collect()
        # Admission and preemption leave nobody behind; if they ever did, silence would be the worst answer.
        self._idle_turns = 0 if launched or self._in_flight or step is not None else self._idle_turns + 1
        if self._idle_turns > 2 and scheduler.unfinished:
            raise RuntimeError(f"{scheduler.unfinished} requests are here and none can go on: {self.stats()}")
        return True

    def _sleep(self) -> None:
        for waiter in self._waiters:
            waiter.set()
        self._waiters.clear()
        self._take(self._commands.get())

    def _obey(self) -> None:
        commands = self._commands
        while not commands.empty():
            self._take(commands.get())
        self._emit()

    def _take(self, command: Request | str | threading.Event | None) -> None:
        if isinstance(command, Request):
            try:
                self.scheduler.add(command, checked=True)
            except RequestRefused as refused:
                self.scheduler.events.append((command, Output((), Finish.ERROR, error=str(refused))))
        elif isinstance(command, str):
            self.scheduler.abort(command)
        elif command is not None:
            self._waiters.append(command)

    def _launch(self, step: Step) -> bool:
        started = now_ns()
        try:
            with self.around_step(step) if self.around_step is not None else nullcontext():
                launched = self.runner.launch(step)
        except RunnerOutOfMemory as error:
            log.warning("a step of %d tokens and %d sequences did not fit: %s", step.tokens, len(step.chunks), error)
            # One token can get no smaller; what is in flight may hold the memory that it lacks.
            if step.tokens > 1 or not self._in_flight:
                self.scheduler.out_of_memory(step)
                self._emit()
            return False
        self.scheduler.launched(step)
        self._in_flight.append(_InFlight(step, launched, started))
        return True

    def _collect(self) -> None:
        step, launched, started = self._in_flight[0]
        sampled = self.runner.collect(launched)
        self._in_flight.popleft()
        ended = now_ns()
        elapsed = ended - max(started, self._collected_ns)
        self._collected_ns = ended
        if self._stepped is not None:
            self._stepped(step, elapsed / 1e9)
        self.scheduler.update(sampled, step, elapsed / 1e9)
        self.progress += 1
        self._emit()

    def _emit(self) -> None:
        if not self.scheduler.events:
            return
        for request, output in self.scheduler.take_events():
            self._tell(request, output)
        if self.on_step_end is not None:
            self.on_step_end()

    def _tell(self, request: Request, output: Output) -> None:
        try:
            request.sink(output)
        except Exception:
            # A sink must not raise; one that does costs its own request, not the others.
            self.scheduler.counters.sink_errors += 1
            log.exception("the sink of request %s raised", request.id)
            self.scheduler.abort(request.id)

    def _released(self, request: Request) -> None:
        self.runner.release(request)
        if self._proposer is not None:
            self._proposer.release(request)

    def _end(self, failure: str) -> None:
        """Nothing comes after this: everybody who still waits is told."""
        with self._lock:
            self.failure = failure or self.failure
            self._closed = failure or self._closed
        if failure:
            log.error("the engine has ended: %s", failure)
        else:
            with suppress(Exception):
                while self._in_flight:
                    self.runner.collect(self._in_flight.popleft().launched)
        self._in_flight.clear()
        while not self._commands.empty():
            self._take(self._commands.get())
        finish = Finish.ERROR if failure else Finish.ABORT
        left = list(self.scheduler.roster.by_id.values())
        self.scheduler.roster.by_id.clear()
        counters = self.scheduler.counters
        counters.failed += len(left) if failure else 0
        counters.aborted += 0 if failure else len(left)
        for request, output in self.scheduler.take_events():
            self._tell(request, output)
        for request in left:
            self._tell(request, Output((), finish, error=failure))
        with suppress(Exception):
            if self.on_step_end is not None:
                self.on_step_end()
        with suppress(Exception):
            self.runner.close()
        gc.unfreeze()
        for waiter in self._waiters:
            waiter.set()
