from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from redline.errors import Skipped
from redline.observe.event import Event
from redline.observe.kernel_faults import KernelFaults
from redline.observe.kernel_log import KernelLog


def opened(path: Path) -> KernelLog:
    log = KernelLog.open(path)
    assert isinstance(log, KernelLog)
    return log


def test_xids_with_their_times(tmp_path: Path) -> None:
    path = tmp_path / "kmsg"
    at = int((time.monotonic() - 5) * 1e6)
    path.write_text(
        "6,1,100,-;Linux version 6.18\n"
        f"4,2,{at},-;NVRM: Xid (PCI:0000:3b:00): 79, pid=12, name=python, GPU has fallen off the bus.\n"
        " SUBSYSTEM=pci\n DEVICE=+pci:0000:3b:00.0\n"
        f"4,3,{at},c;NVRM: Xid (PCI:0000:41:00 GPU-I:05): 31, pid='<unknown>', MMU Fault\n"
        f"4,4,{at},-;NVRM: Xid (0000:41:00): 63, SIMULATED row remapping\n"
        "4,5,x,-;NVRM: Xid (PCI:0000:41:00): 13, a broken head\n"
    )
    log = opened(path)
    first, second, third = log.read()
    assert (first.number, first.pci, first.kind, first.simulated) == (79, "0000:3b:00", "hardware", False)
    assert abs(first.at_wall_s - (time.time() - 5)) < 2
    assert (second.number, second.pci, second.kind) == (31, "0000:41:00", "application")
    assert (third.number, third.kind, third.simulated) == (63, "other", True)
    assert log.read() == []
    with path.open("a") as more:
        more.write(f"4,6,{at},-;NVRM: Xid (PCI:0000:3b:00): 48, do")
    assert log.read() == [], "half a line waits for its end"
    with path.open("a") as more:
        more.write("uble bit error\n")
    assert [xid.number for xid in log.read()] == [48]
    log.close()


def test_what_cannot_be_read_is_skipped_with_words(tmp_path: Path) -> None:
    found = KernelLog.open(tmp_path / "none")
    assert isinstance(found, Skipped)
    assert "CAP_SYSLOG" in found.how_to_get_it


@pytest.mark.skipif(not os.access("/dev/kmsg", os.R_OK), reason="/dev/kmsg cannot be read here: run as root")
def test_the_real_log_is_read_to_its_end_without_waiting() -> None:
    log = KernelLog.open()
    if isinstance(log, Skipped):
        pytest.skip(str(log))
    began = time.monotonic()
    log.read()
    log.read()
    assert time.monotonic() - began < 30
    log.close()


def test_new_ones_are_events_while_a_run_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "kmsg"
    path.write_text("4,1,4000000,-;NVRM: Xid (PCI:0000:17:00): 31, from before\n")
    found: list[Event] = []
    watch = KernelFaults.open(found.extend, path)
    assert isinstance(watch, KernelFaults)
    began_ns = time.monotonic_ns()
    ahead = began_ns // 1000 + 90_000_000
    with watch, path.open("a") as more:
        more.write(f"4,2,{ahead},-;NVRM: Xid (PCI:0000:17:00): 79, GPU has fallen off\n SUB=x\n6,3,1,-;usb 1-1: new\n")
        more.write("4,4,1,-;SIMULATED NVRM: Xid (PCI:0): 48, double bit\n")
    assert [(one.kind, one.who) for one in found] == [("xid", "Xid 79"), ("xid", "Xid 48 (SIMULATED)")]
    for one in found:  # the log's clock may have drifted by minutes, and what was written meanwhile was written now
        assert began_ns <= one.began_ns <= time.monotonic_ns()
    assert "fallen off" in found[0].text
    assert watch.notes == []
    assert isinstance(KernelFaults.open(found.extend, tmp_path / "none"), Skipped)


def test_a_log_that_cannot_be_read_or_kept_any_more_is_told(tmp_path: Path) -> None:
    path = tmp_path / "kmsg"
    path.write_text("")

    def broken(events: list[Event]) -> None:
        raise OSError("disk full")

    watch = KernelFaults.open(broken, path)
    assert isinstance(watch, KernelFaults)
    with watch, path.open("a") as more:
        more.write("4,2,5000000,-;NVRM: Xid (PCI:0000:17:00): 79, GPU has fallen off\n")
    assert watch.notes == ["the kernel log was not watched to the end: OSError: disk full"]
