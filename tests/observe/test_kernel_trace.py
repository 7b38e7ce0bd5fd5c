from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from redline.errors import Skipped
from redline.observe.event import Event
from redline.observe.kernel_trace import OWN_THREADS, KernelTrace, Names, open_trace, parse, tracepoints


def no_events(events: list[Event]) -> None:
    """Nobody takes them."""


def test_lines_that_are_no_event_are_left_out() -> None:
    assert parse("E\tblock\t5\t9\t\tdevice 8:0 R 8 sectors\n") == Event("block", 5, 9, "", "device 8:0 R 8 sectors")
    for line in (
        "R\n",
        "T\n",
        "",
        "E\tblock\t5\n",
        "E\tblock\tx\t9\t\t\n",
        "E\tblock\t9\t5\t\t\n",
        "Attaching 9 probes...\n",
    ):
        assert parse(line) is None


def test_without_bpftrace_tracefs_or_root_it_says_how_to_get_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    missing = open_trace([1], no_events, roots=[tmp_path])
    assert isinstance(missing, Skipped)
    assert "apt-get install bpftrace" in str(missing)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    assert "mount -t tracefs" in str(open_trace([1], no_events, roots=[tmp_path]))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "needs root" in str(open_trace([1], no_events, roots=[tmp_path]))


def test_names_are_those_that_a_person_knows() -> None:
    names = Names([])
    assert names.of(f"MainThread ({os.getpid()})") == "redline itself"
    assert names.of("swapper/0 (0)") == "idle CPU"
    assert names.of("gone (4194303)") == "gone"
    assert names.of("nobody") == "nobody"
    own = Event("run_queue", 0, 10_000_000, "make (4194303)", "2000000 others tid 7 CPU 1")
    assert names.named(own).who == OWN_THREADS
    theirs = Event("run_queue", 0, 10_000_000, "make (4194303)", "9000000 others tid 7 CPU 1")
    assert (names.named(theirs).who, names.named(theirs).text) == ("make", "tid 7 CPU 1")


@pytest.mark.skipif(
    shutil.which("bpftrace") is None or os.geteuid() != 0 or not tracepoints(),
    reason="needs bpftrace, root and tracefs: apt-get install bpftrace; mount -t tracefs nodev /sys/kernel/tracing",
)
def test_a_real_kernel_tells_who_had_the_cpu_and_who_stopped_it() -> None:
    """A child that works beside another one on the same core, half of the time, and is stopped by us once."""
    core = min(os.sched_getaffinity(0))
    work = "t = time.monotonic() + .03\n while time.monotonic() < t: pass\n time.sleep(.03)"
    spin = [sys.executable, "-c", f"import os, time\nos.sched_setaffinity(0, {{{core}}})\nwhile True:\n {work}"]
    child, rival = subprocess.Popen(spin), subprocess.Popen(spin)
    events: list[Event] = []
    try:
        trace = open_trace([child.pid], events.extend)
        assert isinstance(trace, KernelTrace)
        with trace:
            ends = time.monotonic() + 20
            while not any(event.kind == "run_queue" for event in events) and time.monotonic() < ends:
                time.sleep(0.1)
            before = time.monotonic_ns()
            child.send_signal(19)
            time.sleep(0.1)
            child.send_signal(18)
            while not any(event.kind == "signal" for event in events) and time.monotonic() < ends:
                time.sleep(0.1)
    finally:
        for one in (child, rival):
            one.kill()
            one.wait()
    assert trace.notes == []
    waits = [event for event in events if event.kind == "run_queue"]
    assert waits
    assert all(event.ended_ns - event.began_ns >= 2_000_000 for event in waits)
    stop = next(event for event in events if event.kind == "signal")
    assert stop.text.startswith(f"signal 19 to {child.pid}")
    assert stop.who == "redline itself"
    assert stop.began_ns == pytest.approx(before, abs=2_000_000_000)  # the kernel's clock is ours
    assert trace.counts["run_queue"] == len(waits)
