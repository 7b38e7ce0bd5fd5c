from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from redline.observe import proc
from redline.observe.proc import Tree, children, high_water, rollup, usage

PARENT = """
import subprocess, sys
hold = "import sys; block = bytearray(60_000_000); print('up', flush=True); sys.stdin.read()"
child = subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
child.stdout.readline()
print(child.pid, flush=True)
for line in sys.stdin:
    if line.strip() == "end child":
        child.stdin.close(); child.wait(); print("ended", flush=True)
"""


@contextmanager
def family() -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process with one child, and the child's pid."""
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=-1, stdout=-1, text=True) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        yield parent, int(parent.stdout.readline())
        parent.stdin.close()


def test_against_psutil() -> None:
    mine, theirs = usage(os.getpid()), psutil.Process()
    assert mine is not None
    assert mine.rss_bytes == pytest.approx(theirs.memory_info().rss, rel=0.1)
    assert mine.cpu_s == pytest.approx(sum(theirs.cpu_times()[:2]), abs=0.5)
    assert mine.threads == pytest.approx(theirs.num_threads(), abs=3)
    assert high_water(os.getpid()) >= mine.rss_bytes * 0.9  # type: ignore[operator]


def test_shared_pages_are_counted_once() -> None:
    shared = rollup(os.getpid())
    mine = usage(os.getpid())
    assert shared is not None
    assert mine is not None
    assert 0 < shared <= mine.rss_bytes * 1.1


def test_descendants_are_found_and_their_cpu_time_is_kept() -> None:
    with family() as (parent, child):
        tree = Tree((parent.pid,))
        members = tree.look()
        assert set(members) == {parent.pid, child}
        assert members[child].rss_bytes > 60_000_000
        assert children(parent.pid) == [child]
        before = tree.cpu_s
        assert before > 0
        assert parent.stdin is not None
        assert parent.stdout is not None
        parent.stdin.write("end child\n")
        parent.stdin.flush()
        parent.stdout.readline()
        assert set(tree.look()) == {parent.pid}
        assert tree.cpu_s >= before


def test_a_child_that_lost_its_parent_stays_in_the_tree() -> None:
    with family() as (parent, child):
        tree = Tree((parent.pid,))
        tree.look()
        parent.kill()
        parent.wait()
        # the orphan reads its closed input and ends by itself; until then it is still the engine's
        members = tree.look()
        assert parent.pid not in members
        give_up = time.monotonic() + 10
        while usage(child) is not None and time.monotonic() < give_up:
            time.sleep(0.02)
        assert tree.look() == {}


def test_a_pid_that_was_given_to_another_process_is_not_followed() -> None:
    me = os.getpid()
    tree = Tree((me,))
    first = tree.look()[me]
    tree.members[me] = proc.Usage(first.start_ticks - 1, first.cpu_s, 0, 1)
    assert me not in tree.look()


def test_what_is_gone_is_none() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert usage(child.pid) is None
    assert rollup(child.pid) is None
    assert children(child.pid) == []
