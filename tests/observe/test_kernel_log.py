from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from redline.errors import Skipped
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
