"""The samplers in a process of their own: no interpreter lock is shared with the load generator's bookkeeping, and a
driver that hangs can be left behind.

It is told its plan on stdin, whose end means that redline is gone; it writes lines to stdout:

    L <number> <sampler> <JSON columns>     a new layout
    T <layout> <t_ns> <JSON values>         a tick
    S <JSON>                                what it says of itself, once a second
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import orjson

from redline.observe.sample import Layout, Layouts, Sample, Tick
from redline.observe.samplers import Plan, Samplers

Hear = Callable[[str, Tick], None]
STATUS_EVERY_S = 1.0
STOP_S = 4.0
RESTARTS = 2


class Apart:
    """redline's side. `hear` gets the name of the sampler and its tick, in a thread of ours; `told` is what the
    samplers said last, and `tell` is called when that is new."""

    def __init__(self, plan: Plan, hear: Hear, tell: Callable[[], None] = lambda: None) -> None:
        self._plan, self._hear, self._tell = plan, hear, tell
        self.told: dict[str, Any] = {}
        self.notes: list[str] = []
        self._stopping = False
        self._lock = threading.Lock()
        self._process = self._start()
        self._thread = threading.Thread(target=self._listen, name="redline-samplers", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self) -> None:
        """Waits for its last ticks; kills it when they do not come."""
        with self._lock:
            self._stopping = True
            process = self._process
        with suppress(OSError):
            if process.stdin is not None:
                process.stdin.close()
        try:
            process.wait(STOP_S + 2)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            self.notes.append("the sampler process did not end and was killed: the last samples are missing")
        self._thread.join(5)

    def _start(self) -> subprocess.Popen[bytes]:
        # a session of its own: Ctrl-C at the terminal is redline's to handle
        process = subprocess.Popen(
            [sys.executable, "-m", "redline.observe.apart"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        assert process.stdin is not None
        with suppress(OSError):
            process.stdin.write(orjson.dumps(asdict(self._plan)) + b"\n")
            process.stdin.flush()
        return process

    def _listen(self) -> None:
        for restart in range(RESTARTS + 1):
            self._lines()
            code = self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                with suppress(OSError):
                    if pipe is not None:
                        pipe.close()
            if self._stopping:
                return
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            again = restart < RESTARTS
            self.notes.append(
                f"the sampler process died ({how}): "
                + ("it was started again, samples are missing in between" if again else "no samples from here on")
            )
            if again:
                time.sleep(0.2)
                if not self._started_again():
                    return

    def _started_again(self) -> bool:
        """False once the run ends."""
        with self._lock:
            if not self._stopping:
                self._process = self._start()
            return not self._stopping

    def _lines(self) -> None:
        layouts: dict[str, tuple[str, Layout]] = {}
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if not line.endswith(b"\n"):
                return  # it was killed in the middle of it
            try:
                self._line(line.decode().rstrip("\n"), layouts)
            except Exception as error:  # the run is worth more than its samples
                said = f"a line of the sampler process was lost: {type(error).__name__}: {error}"
                if said not in self.notes:
                    self.notes.append(said)

    def _line(self, line: str, layouts: dict[str, tuple[str, Layout]]) -> None:
        kind, _, rest = line.partition(" ")
        if kind == "T":
            number, t_ns, values = rest.split(" ", 2)
            sampler, layout = layouts[number]
            self._hear(sampler, Tick(int(t_ns), layout, values))
        elif kind == "L":
            number, sampler, columns = rest.split(" ", 2)
            layouts[number] = (sampler, Layout(tuple(map(tuple, orjson.loads(columns)))))
        elif kind == "S":
            self.told = orjson.loads(rest)
            self._tell()


class _Out:
    """The sampler process's side of the pipe. Threads write whole lines."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._layouts = Layouts()
        self._numbers: dict[Layout, int] = {}

    def ticks(self, sampler: str, samples: list[Sample]) -> None:
        with self._lock:
            lines = []
            for tick in self._layouts.ticks(samples):
                number = self._numbers.get(tick.layout)
                if number is None:
                    number = self._numbers[tick.layout] = len(self._numbers)
                    lines.append(f"L {number} {sampler} {orjson.dumps(tick.layout.columns).decode()}\n")
                lines.append(f"T {number} {tick.t_ns} {tick.values}\n")
            self._write("".join(lines))

    def status(self, told: dict[str, Any]) -> None:
        with self._lock:
            self._write(f"S {orjson.dumps(told).decode()}\n")

    def _write(self, text: str) -> None:
        data = memoryview(text.encode())
        while data:
            data = data[os.write(1, data) :]


def _serve() -> None:
    given = orjson.loads(sys.stdin.buffer.readline())
    plan = Plan(**given | {"pids": tuple(given["pids"]), "samplers": tuple(given["samplers"])})
    out = _Out()
    samplers = Samplers(plan, out.ticks)
    samplers.start()
    poll = select.poll()
    poll.register(0, select.POLLIN)
    while not poll.poll(STATUS_EVERY_S * 1000) or os.read(0, 4096):
        samplers.look()
        out.status(samplers.told() | {"process": _process()})
    samplers.stop(STOP_S)
    out.status(samplers.told() | {"process": _process()})


def _process() -> dict[str, float]:
    """The whole process, its start included."""
    return {"cpu_s": time.process_time(), "pid": os.getpid()}


def main() -> None:
    with suppress(BrokenPipeError):  # redline is gone
        _serve()
    os._exit(0)  # a thread that hangs in a driver must not keep the process


if __name__ == "__main__":
    main()
