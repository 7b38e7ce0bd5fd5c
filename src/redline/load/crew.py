"""redline's side of the load workers: start them, feed them, hear from them, notice their death.

Nothing here knows what a request means. A `Crew` is any number of workers that behave as one.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace

import orjson

from redline.clock import now_ns
from redline.errors import EnvironmentFault, RedlineError
from redline.load.frames import (
    FrameReader,
    Kind,
    Outgoing,
    Phase,
    PhaseDone,
    RawStream,
    Target,
    Tick,
    pack,
    pack_bodies,
    pack_json,
    unpack_stream,
)
from redline.load.giving_up import GivingUp
from redline.load.idle import lead_ns
from redline.load.outbox import IN_MEMORY_MAX
from redline.load.share import Deal, merged_done, merged_tick, split
from redline.load.worker import Worker

Heard = RawStream | Tick | PhaseDone
_READ = 1 << 20
_BODIES_PER_FRAME = 256
_LEAD_NS = 20_000_000  # for several workers to have read their phase before it begins


class LoadWorker:
    """A worker process, from construction to `close()`. `in_thread` runs the same code in a thread, for tests."""

    def __init__(
        self, target: Target, *, in_thread: bool = False, in_memory_max: int = IN_MEMORY_MAX, name: str = "load worker"
    ) -> None:
        self.name = name
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        self._control = ours
        self._reader = FrameReader()
        self.ready = False
        self.open_files = 0
        self.short_slice = False
        self.interpreted = ""
        """Why it reads answers in Python; '' when compiled C does."""
        self.process: subprocess.Popen[bytes] | None = None
        self._send(pack_json(Kind.TARGET, asdict(target)))
        if in_thread:
            self._thread = threading.Thread(target=_run_in_thread, args=(theirs, in_memory_max), daemon=True)
            self._thread.start()
            return
        command = [sys.executable, "-m", "redline.load.worker", str(theirs.fileno())]
        try:
            # a session of its own: Ctrl-C at the terminal is redline's to handle
            self.process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True
            )
        finally:
            theirs.close()

    def __enter__(self) -> LoadWorker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        return self._control.fileno()

    def _send(self, frame: bytes) -> None:
        try:
            self._control.sendall(frame)
        except OSError as error:
            raise self._dead() from error

    def feed(self, bodies: Iterable[Outgoing]) -> None:
        """Whole HTTP requests, to be sent in this order."""
        batch: list[Outgoing] = []
        for item in bodies:
            batch.append(item)
            if len(batch) == _BODIES_PER_FRAME:
                self._send(pack_bodies(batch))
                batch = []
        if batch:
            self._send(pack_bodies(batch))

    def start(self, phase: Phase) -> None:
        self._send(pack_json(Kind.PHASE, asdict(phase)))

    def cancel(self) -> None:
        """Cut off what is in flight; its records and the end of the phase follow at once."""
        self._send(pack(Kind.CANCEL, b""))

    def hear(self, timeout_s: float) -> list[Heard]:
        """What came within the time, one read at most. RedlineError when the worker is dead."""
        poll = select.poll()  # not select(2): descriptors may be above 1024
        poll.register(self._control.fileno(), select.POLLIN)
        if not poll.poll(timeout_s * 1000):
            return []
        try:
            data = self._control.recv(_READ)
        except ConnectionResetError:
            data = b""
        if not data:
            raise self._dead()
        heard: list[Heard] = []
        for kind, payload in self._reader.feed(data):
            if kind is Kind.STREAM:
                heard.append(unpack_stream(payload))
            elif kind is Kind.TICK:
                heard.append(Tick(**orjson.loads(payload)))
            elif kind is Kind.PHASE_DONE:
                values = orjson.loads(payload)
                heard.append(PhaseDone(**{**values, "tick": Tick(**values["tick"])}))
            elif kind is Kind.READY:
                about = orjson.loads(payload)
                self.ready, self.open_files, self.short_slice = True, about["open_files"], about["short_slice"]
                self.interpreted = about["interpreted"]
            elif kind is Kind.FAULT:
                raise RedlineError(
                    f"the {self.name} failed", why=orjson.loads(payload)["traceback"], fix="this is a bug: report it"
                )
        return heard

    def _dead(self) -> RedlineError:
        code = self.process.wait(5) if self.process else None
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        return EnvironmentFault(
            f"the {self.name} ended unexpectedly ({how})",
            why="signal 9 is usually the kernel's out-of-memory killer" if code == -9 else "",
            fix="what was measured until then is kept; run the point again",
        )

    def hang_up(self) -> None:
        """Tell it to end, without waiting until it has."""
        if self._control.fileno() >= 0:
            self._control.close()

    def close(self) -> None:
        """Twice is fine."""
        self.hang_up()
        if self.process is not None and self.process.poll() is None:
            try:
                self.process.wait(2)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Crew:
    """Several load workers that behave as one: a phase is split over them, what they say is merged.

    `cores` gives each worker a core of its own. With one worker nothing is split and nothing held back.
    """

    def __init__(self, target: Target, workers: int = 1, *, cores: Sequence[int] = (), in_thread: bool = False) -> None:
        self.workers: list[LoadWorker] = []
        self._deal = Deal(workers)
        self._done: list[PhaseDone] = []
        self._giving_up: GivingUp | None = None
        self._forced = ""
        self._ticks = [Tick() for _ in range(workers)]
        try:
            for number in range(workers):
                name = "load worker" if workers == 1 else f"load worker {number + 1} of {workers}"
                worker = LoadWorker(target, in_thread=in_thread, name=name)
                self.workers.append(worker)
                if number < len(cores) and worker.process is not None:
                    os.sched_setaffinity(worker.process.pid, {cores[number]})
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def ready(self) -> bool:
        return all(worker.ready for worker in self.workers)

    @property
    def open_files(self) -> int:
        """Descriptors that all workers together may have."""
        return sum(worker.open_files for worker in self.workers)

    @property
    def interpreted(self) -> str:
        return next((worker.interpreted for worker in self.workers if worker.interpreted), "")

    @property
    def short_slice(self) -> bool:
        return all(worker.short_slice for worker in self.workers)

    def cpu_s(self) -> list[float]:
        """CPU seconds of each worker so far, as of its last tick."""
        return [tick.cpu_s for tick in self._ticks]

    def filenos(self) -> list[int]:
        """Readable when a worker has something to say."""
        return [worker.fileno() for worker in self.workers]

    def feed(self, bodies: Iterable[Outgoing]) -> None:
        """Whole HTTP requests, to be sent in this order; each goes to the worker that will send it."""
        self._hand_out(self._deal.of(bodies, self._ticks))

    def _hand_out(self, hands: Sequence[Sequence[Outgoing]]) -> None:
        for worker, hand in zip(self.workers, hands, strict=True):
            worker.feed(hand)

    def start(self, phase: Phase) -> None:
        """All workers begin at one instant: now with a single one, else after the time that telling them takes."""
        phases = split(phase, len(self.workers))
        self._done, self._forced = [], ""
        if len(self.workers) > 1:
            self._giving_up = GivingUp(phase, merged_tick(self._ticks))
            self._hand_out(self._deal.begin(phases, self._ticks))
            if not phase.start_ns:
                lead = lead_ns(max(part.clients for part in phases)) if phase.preconnect else 0
                start_ns = now_ns() + _LEAD_NS + lead
                phases = [replace(part, start_ns=start_ns) for part in phases]
        self._deal.playing = len(phases)
        for worker, part in zip(self.workers, phases, strict=False):
            worker.start(part)

    def cancel(self) -> None:
        """Cut off what is in flight; its records and the end of the phase follow at once."""
        for worker in self.workers:
            worker.cancel()

    def hear(self, timeout_s: float) -> list[Heard]:
        """What came within the time, one read per worker at most. RedlineError, naming it, when a worker is dead."""
        poll = select.poll()
        numbers = {worker.fileno(): number for number, worker in enumerate(self.workers)}
        for fd in numbers:
            poll.register(fd, select.POLLIN)
        heard: list[Heard] = []
        for fd, _ in poll.poll(timeout_s * 1000):
            for item in self.workers[numbers[fd]].hear(0):
                merged = self._merge(numbers[fd], item)
                if merged is not None:
                    heard.append(merged)
        return heard

    def _merge(self, number: int, item: Heard) -> Heard | None:
        if isinstance(item, RawStream):
            return item
        self._ticks[number] = item if isinstance(item, Tick) else item.tick
        if len(self.workers) == 1:
            return item
        tick = merged_tick(self._ticks)
        if isinstance(item, PhaseDone):
            self._done.append(item)
            self._deal.over(number)
            if len(self._done) < self._deal.playing:
                return None
            self._giving_up = None
            return merged_done(self._done, tick, self._forced)
        if self._giving_up is not None and not self._forced:
            self._forced = self._giving_up.judge(tick, now_ns())
            if self._forced:
                self.cancel()
        return tick

    def close(self) -> None:
        """Twice is fine."""
        for worker in self.workers:
            worker.hang_up()
        for worker in self.workers:
            worker.close()


def _run_in_thread(control: socket.socket, in_memory_max: int) -> None:
    with control:
        try:
            Worker(control, in_memory_max).run()
        except ConnectionResetError:
            return
