from __future__ import annotations

import subprocess
import sys

from redline.store.process import alive, identity


def test_a_process_is_told_from_a_dead_one_and_from_another_of_the_same_pid() -> None:
    me = identity()
    assert alive(me)
    assert not alive({**me, "start_ticks": me["start_ticks"] + 1}), "the pid was given to another process"
    assert not alive({**me, "boot_id": "another boot"})
    assert alive({**me, "pid_namespace": "pid:[1]", "pid": 999_999_999}), "another container: nobody can tell from here"


def test_a_process_that_ended_is_dead_even_before_it_is_reaped() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    theirs = identity(child.pid)
    assert alive(theirs)
    child.kill()
    child.wait()
    assert not alive(theirs)
    assert not alive({**theirs, "start_ticks": 0}), "nobody could tell when it started, and now it is gone"
    assert child.stdin is not None
    child.stdin.close()
