"""Reading and signalling single processes; what the guard does as a whole is in test_process.py."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from redline.engines import guard
from redline.engines.guard import descendants, read_proc
from tests.engines.test_process import until


def test_a_reused_pid_is_not_signalled() -> None:
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    now = read_proc(sleeper.pid)
    assert now is not None
    guard.send_signal(now._replace(start=now.start - 1), signal.SIGKILL)
    time.sleep(0.1)
    assert sleeper.poll() is None
    guard.send_signal(now, signal.SIGKILL)
    assert sleeper.wait(5) == -signal.SIGKILL
    guard.send_signal(now, signal.SIGKILL)  # gone meanwhile: nothing happens


def test_read_proc_handles_odd_names(tmp_path: Path) -> None:
    odd = tmp_path / "a) R (b"
    odd.symlink_to(sys.executable)
    child = subprocess.Popen(
        [str(odd), "-c", "import time; time.sleep(30)"], env={**os.environ, "PYTHONHOME": sys.base_prefix}
    )
    try:
        assert until(lambda: (p := read_proc(child.pid)) is not None and p.parent == os.getpid() and p.state in "RSD")
    finally:
        child.kill()
        child.wait()


def test_descendants_come_parents_first() -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    try:
        assert until(lambda: len(descendants(child.pid)) == 1)
        below = [p for p in descendants(os.getpid()) if p.pid == child.pid or p.parent == child.pid]
        assert [p.pid for p in below] == [child.pid, descendants(child.pid)[0].pid]
    finally:
        assert child.stdin is not None
        child.stdin.close()
        child.wait()


def test_no_such_process() -> None:
    assert read_proc(2**22 + 1) is None
    assert descendants(2**22 + 1) == []
