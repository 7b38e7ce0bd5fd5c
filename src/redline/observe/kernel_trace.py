"""bpftrace beside a run: started, read line by line, stopped; or a `Skipped` that says what is missing."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from redline.errors import Skipped
from redline.observe.event import Event
from redline.observe.kernel_script import Probe, probes_for, render
from redline.observe.proc import Tree, read, usage

Keep = Callable[[list[Event]], None]
ROOTS = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
READY_S = 20.0
STOP_S = 5.0
MOST_EVENTS = 200_000
"""More of them would be a box so full of events that each explains nothing."""
MOST_NAMES = 10_000
OWN_THREADS = "the engine's own threads"
_NO_TRACEPOINTS = "as root: mount -t tracefs nodev /sys/kernel/tracing"


class KernelTrace:
    """Use as a context manager; `keep` gets events, in a thread of ours. `counts` and `notes` are complete after it."""

    def __init__(self, program: str, probes: Sequence[Probe], keep: Keep, pids: Sequence[int] = ()) -> None:
        self.kinds = tuple(dict.fromkeys(probe.kind for probe in probes))
        self.counts: Counter[str] = Counter()
        self.notes: list[str] = []
        self.cpu_s = 0.0
        """Of bpftrace itself; what its tracepoints cost is paid by those who pass them."""
        self._keep, self._program = keep, program
        self._ready = threading.Event()
        self._stopping = False
        self._names = Names(pids)

    def __enter__(self) -> KernelTrace:
        # a session of its own: Ctrl-C at the terminal is redline's to handle
        self._process = subprocess.Popen(
            ["bpftrace", "-B", "line", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True, text=True, errors="replace",
        )  # fmt: skip
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.write(self._program)
            self._process.stdin.close()
        self._thread = threading.Thread(target=self._listen, name="redline-kernel", daemon=True)
        self._thread.start()
        if not self._ready.wait(READY_S):
            self.notes.append(f"bpftrace did not begin within {READY_S:.0f} s: kernel events may be missing")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stopping = True
        self.cpu_s = used.cpu_s if (used := usage(self._process.pid)) else 0.0
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._thread.join(STOP_S)
        for pipe in (self._process.stdout, self._process.stderr):
            with suppress(OSError):
                if pipe is not None:
                    pipe.close()

    def _listen(self) -> None:
        process = self._process
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            for line in process.stdout:
                if line.startswith("R"):
                    self._ready.set()
                event = parse(line)
                if event is not None and self.counts.total() < MOST_EVENTS:
                    self.counts[event.kind] += 1
                    self._keep([self._names.named(event)])
        except Exception as error:  # the run is worth more than its events
            self.notes.append(f"kernel events could not be kept: {type(error).__name__}: {error}")
        finally:
            self._ready.set()
        if self.counts.total() >= MOST_EVENTS:
            self.notes.append(f"only the first {MOST_EVENTS} kernel events were kept")
        if process.wait() and not self._stopping:
            said = [line for line in process.stderr.read().splitlines() if line.strip()]
            self.notes.append(f"bpftrace ended by itself: {said[-1] if said else f'exit code {process.returncode}'}")


def open_trace(
    pids: Sequence[int], keep: Keep, *, port: int = 0, roots: Sequence[Path] = ROOTS
) -> KernelTrace | Skipped:
    """Of the processes `pids` with their descendants, of TCP on `port`, and of the box. Starts nothing yet."""
    if shutil.which("bpftrace") is None:
        return Skipped("kernel events are not watched: there is no bpftrace", "apt-get install bpftrace")
    if os.geteuid() != 0:
        return Skipped("kernel events are not watched: bpftrace needs root", "run redline as root")
    available = tracepoints(roots)
    if not available:
        return Skipped("kernel events are not watched: no tracepoints are to be seen", _NO_TRACEPOINTS)
    probes = probes_for(available, engine=bool(pids))
    if not probes:
        return Skipped("kernel events are not watched: this kernel has none of the tracepoints", "another kernel")
    return KernelTrace(render(probes, threads_of(pids), port), probes, keep, pids)


def tracepoints(roots: Sequence[Path] = ROOTS) -> frozenset[str]:
    """`category:name` of all that this kernel has; empty where tracefs is not mounted or not ours to read."""
    for root in roots:
        with suppress(OSError):
            lines = (root / "available_events").read_text().split()
            if lines:
                return frozenset(lines)
    return frozenset()


def threads_of(pids: Sequence[int]) -> list[int]:
    """Every thread of the processes and their descendants, as the first pid namespace of /proc numbers them."""
    found: list[int] = []
    for pid in Tree(tuple(pids)).look() if pids else ():
        with suppress(OSError), os.scandir(f"/proc/{pid}/task") as threads:
            found += [int(thread.name) for thread in threads]
    return sorted(set(found))


class Names:
    """From the thread that the kernel names, `comm (tid)`, to the process that a person knows. Looked up while it
    lives."""

    def __init__(self, engine: Sequence[int]) -> None:
        self._engine, self._own = Tree(tuple(engine)), Tree((os.getpid(),))
        self._known: dict[str, str] = {}

    def named(self, event: Event) -> Event:
        """An event whose `who` a person knows. Where the engine's own threads had the CPU for most of a wait, it is
        they that were waited for."""
        others, _, rest = event.text.partition(" others ")
        if event.kind == "run_queue" and others.isdigit() and rest:
            if 2 * int(others) < event.ended_ns - event.began_ns:
                return replace(event, who=OWN_THREADS, text=rest)
            event = replace(event, text=rest)
        return replace(event, who=self.of(event.who))

    def of(self, who: str) -> str:
        """`comm (pid)`; the engine and redline by name; unchanged where the thread is gone already."""
        if who not in self._known:
            if len(self._known) > MOST_NAMES:
                self._known.clear()
            self._known[who] = self._name(who)
        return self._known[who]

    def _name(self, who: str) -> str:
        comm, _, rest = who.rpartition(" (")
        tid = rest.rstrip(")")
        if not comm or not tid.isdigit():
            return who
        if tid == "0":
            return "idle CPU"
        status = read(f"/proc/{tid}/status")
        pid = next((line.split()[1] for line in status.splitlines() if line.startswith("Tgid:")), "")
        if not pid:
            return comm
        if self._engine.roots and int(pid) in self._engine.look():
            return OWN_THREADS
        if int(pid) in self._own.look():
            return "redline itself"
        if pid != tid:  # a thread has a name of its own, which tells little
            comm = read(f"/proc/{pid}/comm").strip() or comm
        return f"{comm} ({pid})"


def parse(line: str) -> Event | None:
    """None for lines that are no event, and for one that was cut off."""
    words = line.rstrip("\n").split("\t")
    if len(words) != 6 or words[0] != "E" or not (words[2].isdigit() and words[3].isdigit()):
        return None
    began, ended = int(words[2]), int(words[3])
    return Event(words[1], began, ended, words[4], words[5]) if ended >= began else None
