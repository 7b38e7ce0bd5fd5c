from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from redline.engines import guard
from redline.engines.guard import Proc, descendants, read_proc
from redline.engines.process import ManagedProcess, spawn
from redline.errors import EnvironmentFault

DEAF = """
import signal, time
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(600)
"""

TREE = f"""
import os, subprocess, sys, time
deaf = {DEAF!r}
subprocess.Popen([sys.executable, "-c", deaf])                            # same group
subprocess.Popen([sys.executable, "-c", deaf], start_new_session=True)    # a session of its own
if os.fork() == 0:                                                        # a daemon: its parent is gone
    os.setsid()
    if os.fork() == 0:
        os.execv(sys.executable, [sys.executable, "-c", deaf])
    os._exit(0)
os.wait()
print("tree up", flush=True)
time.sleep(600)
"""


def until(condition: Callable[[], bool], timeout_s: float = 20.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.01)
    return condition()


def gone(procs: list[Proc]) -> bool:
    """True when none of exactly these processes lives."""
    return not any((now := read_proc(p.pid)) and now.start == p.start and not now.dead for p in procs)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., ManagedProcess]]:
    started: list[ManagedProcess] = []

    def start(code: str, **options: object) -> ManagedProcess:
        process = spawn([sys.executable, "-c", code], env=dict(os.environ), log=tmp_path / "log", **options)  # type: ignore[arg-type]
        started.append(process)
        return process

    yield start
    for process in started:
        process.stop(0.0)


def says(process: ManagedProcess, word: str) -> Callable[[], bool]:
    return lambda: word in process.log_tail(200)


def test_runs_logs_and_keeps_the_exit_status(run: Callable[..., ManagedProcess]) -> None:
    process = run("import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)")
    assert until(lambda: process.exit_status() is not None)
    assert process.exit_status() == 7
    assert not process.running()
    assert sorted(process.log_tail().splitlines()) == ["err", "out"]


def test_exactly_the_given_environment_and_folder(tmp_path: Path) -> None:
    code = "import os; print(sorted(k for k in os.environ if k != 'LC_CTYPE'), os.getcwd())"
    with spawn([sys.executable, "-c", code], env={"ONLY": "1"}, log=tmp_path / "log", cwd=tmp_path) as process:
        assert until(lambda: process.exit_status() == 0)
        assert process.log_tail() == f"['ONLY'] {tmp_path}"


def test_a_session_of_its_own_and_default_signals(run: Callable[..., ManagedProcess]) -> None:
    code = """
        import os, signal, time
        ignored = [s.name for s in signal.Signals if signal.getsignal(s) == signal.SIG_IGN]
        print(os.getsid(0) == os.getpid(), os.isatty(0), ignored, signal.pthread_sigmask(0, []), flush=True)
        time.sleep(60)
    """
    process = run(textwrap.dedent(code))
    assert until(says(process, "set()"))
    # Python itself ignores SIGPIPE and SIGXFSZ; a guard that leaked more would show here.
    assert process.log_tail() == "True False ['SIGPIPE', 'SIGXFSZ'] set()"
    assert os.getsid(process.pid) != os.getsid(0)


def test_stop_is_graceful_first(run: Callable[..., ManagedProcess]) -> None:
    code = """
        import signal, sys, time
        def end(*_):
            print("bye", flush=True); sys.exit(4)
        signal.signal(signal.SIGTERM, end); print("up", flush=True); time.sleep(60)
    """
    process = run(textwrap.dedent(code))
    assert until(says(process, "up"))
    stopped = process.stop(20.0)
    assert (stopped.exit_status, stopped.killed, stopped.stuck) == (4, (), ())
    assert "bye" in process.log_tail()
    assert process.stop(20.0) == stopped


def test_workers_get_no_signal_while_the_first_process_ends_them_itself(run: Callable[..., ManagedProcess]) -> None:
    code = """
        import os, signal, sys, time
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, lambda *_: print("worker hit", flush=True))
            signal.signal(signal.SIGUSR1, lambda *_: (print("worker asked", flush=True), os._exit(0)))
            while True: time.sleep(60)
        child = [int(p) for p in open("/proc/self/task/%d/children" % os.getpid()).read().split()][0]
        def end(*_):
            os.kill(child, signal.SIGUSR1); os.wait(); sys.exit(0)
        signal.signal(signal.SIGTERM, end); print("up", flush=True); time.sleep(60)
    """
    process = run(textwrap.dedent(code))
    assert until(says(process, "up"))
    time.sleep(0.2)
    assert process.stop(30.0).killed == ()
    assert "worker asked" in process.log_tail()
    assert "worker hit" not in process.log_tail()


def test_stop_kills_what_ignores_sigterm_wherever_it_hides(run: Callable[..., ManagedProcess]) -> None:
    process = run(TREE)
    assert until(lambda: process.log_tail().count("deaf") == 3)
    tree = list(process.tree())
    assert tree[0].pid == process.pid
    assert len(tree) == 4
    assert len({os.getsid(p.pid) for p in tree}) == 3
    stopped = process.stop(0.5)
    assert gone(tree)
    assert len(stopped.killed) == 3
    assert stopped.exit_status == -signal.SIGTERM


def test_a_second_more_impatient_stop_hurries_the_first(run: Callable[..., ManagedProcess]) -> None:
    process = run(DEAF)
    assert until(says(process, "deaf"))
    patient = threading.Thread(target=process.stop, args=(300.0,))
    patient.start()
    time.sleep(0.2)
    process.stop(0.0)
    patient.join(20)
    assert not patient.is_alive()
    assert process.exit_status() == -signal.SIGKILL


def test_when_the_first_process_dies_nothing_of_it_is_left(run: Callable[..., ManagedProcess]) -> None:
    process = run(TREE)
    assert until(lambda: process.log_tail().count("deaf") == 3)
    tree = list(process.tree())
    os.kill(process.pid, signal.SIGKILL)
    assert until(lambda: process.exit_status() == -signal.SIGKILL, 5)
    assert until(lambda: gone(tree))


def test_a_watched_worker_that_dies_is_noticed(run: Callable[..., ManagedProcess]) -> None:
    process = run(TREE)
    assert until(lambda: process.log_tail().count("deaf") == 3)
    worker = process.tree()[1]
    process.watch([process.pid, worker.pid])
    assert process.running()
    os.kill(worker.pid, signal.SIGKILL)
    assert until(lambda: not process.running(), 5)
    assert process.exit_status() is None
    assert process.missing() == (worker.pid,)


PARENT = """
import os, sys, time
from pathlib import Path
from redline.engines.process import spawn
process = spawn([sys.executable, "-c", {tree!r}], env=dict(os.environ), log=Path({log!r}), orphan_grace_s=0.3)
if {fork}:
    if os.fork() == 0:           # holds our end of the socket, and lives on
        time.sleep(25)
        os._exit(0)
while process.log_tail().count("deaf") < 3:
    time.sleep(0.01)
print(process._guard.pid, *[p.pid for p in process.tree()], flush=True)
sys.stdin.read()                 # until they have been looked at
{then}
"""


def start_parent(
    tmp_path: Path, *, fork: bool = False, then: str = "time.sleep(600)"
) -> tuple[subprocess.Popen[str], list[Proc]]:
    """A redline-like process with an engine tree; returns it with its guard and the tree."""
    code = PARENT.format(tree=TREE, log=str(tmp_path / "log"), fork=fork, then=then)
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdin is not None
    assert parent.stdout is not None
    pids = [int(word) for word in parent.stdout.readline().split()]
    procs = [proc for pid in pids if (proc := read_proc(pid))]
    parent.stdin.close()
    assert len(procs) == 5
    return parent, procs


@pytest.mark.parametrize("fork", [False, True], ids=["alone", "forked-child-holds-the-socket"])
def test_kill_9_of_redline_leaves_no_process(tmp_path: Path, fork: bool) -> None:
    parent, procs = start_parent(tmp_path, fork=fork)
    left = [p for p in descendants(parent.pid) if p not in procs and p.parent == parent.pid]
    parent.kill()
    try:
        assert until(lambda: gone(procs)), [p for p in procs if not gone([p])]
    finally:
        parent.wait()
        for proc in left:
            guard.send_signal(proc, signal.SIGKILL)
        assert parent.stdout is not None
        parent.stdout.close()


@pytest.mark.parametrize("then", ["sys.exit(0)", "os._exit(1)", "raise SystemExit", "os.abort()"])
def test_any_end_of_redline_leaves_no_process(tmp_path: Path, then: str) -> None:
    parent, procs = start_parent(tmp_path, then=then)
    try:
        parent.wait(20)
        assert until(lambda: gone(procs))
    finally:
        assert parent.stdout is not None
        parent.stdout.close()


def test_the_engine_outlives_the_thread_that_started_it(run: Callable[..., ManagedProcess]) -> None:
    # PR_SET_PDEATHSIG would fire here: it watches the thread that forked, not the process.
    started: list[ManagedProcess] = []
    thread = threading.Thread(
        target=lambda: started.append(run("import time; print('up', flush=True); time.sleep(60)"))
    )
    thread.start()
    thread.join()
    assert until(says(started[0], "up"))
    time.sleep(0.3)
    assert started[0].running()


def test_when_the_guard_is_killed_the_engine_dies_and_stop_ends_the_rest(run: Callable[..., ManagedProcess]) -> None:
    process = run(TREE)
    assert until(lambda: process.log_tail().count("deaf") == 3)
    tree = list(process.tree())
    process._guard.kill()
    assert until(lambda: gone(tree[:1]), 5)
    assert not process.running()
    process.stop(1.0)
    assert gone(tree)


def test_only_its_own_processes_are_signalled(run: Callable[..., ManagedProcess]) -> None:
    bystander = subprocess.Popen([sys.executable, "-c", DEAF], stdout=subprocess.DEVNULL)
    process = run(DEAF)
    assert until(says(process, "deaf"))
    process.stop(0.0)
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


def test_what_cannot_be_executed(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="No such file"):
        spawn(["/no/such/program"], env={}, log=tmp_path / "log")
    script = tmp_path / "plain"
    script.write_text("x")
    with pytest.raises(EnvironmentFault, match="Permission denied"):
        spawn([str(script)], env={}, log=tmp_path / "log2")


def test_stop_from_a_signal_handler_while_stopping(tmp_path: Path) -> None:
    code = f"""
        import os, signal, sys
        from pathlib import Path
        from redline.engines.process import spawn
        process = spawn([sys.executable, "-c", {DEAF!r}], env=dict(os.environ), log=Path({str(tmp_path / "log")!r}))
        while "deaf" not in process.log_tail(): pass
        signal.signal(signal.SIGALRM, lambda *_: process.stop(0.0))
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        print(process.stop(300.0).exit_status)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=30)
    assert done.stdout.strip() == "-9", done.stderr
