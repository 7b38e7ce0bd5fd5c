"""Runs one command, and ends everything that the command started when redline asks or is gone.

A stand-in between redline and the engine: `python -I -S guard.py FD`, any Python ≥ 3.9, no redline needed. FD is one
end of a SOCK_SEQPACKET pair (JSON messages both ways); stdin holds the order (argv, env, cwd, owner, orphan_grace_s);
stdout and stderr are the engine's log.

Why a process of its own. PR_SET_PDEATHSIG reaches only the direct child, fires when the *thread* that forked ends, and
engines fork workers that make sessions of their own. The guard is a child subreaper: whatever the engine forks,
daemonises or orphans stays its descendant, so one walk over /proc finds every process, by pid and start time, and
never by name. It has one thread, so the engine's own PDEATHSIG (SIGKILL, should the guard be killed) means what it
says. It watches redline twice: the socket's end of file, and a pidfd of the owner, because a forked child of redline
may hold the socket open after redline was killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import sys
import time
from typing import Any, NamedTuple

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
SWEEP_GRACE_S = 2.0
"""For what is left once the engine's first process has ended: it had its SIGTERM, or asked to be alone."""
KILL_PATIENCE_S = 10.0
"""After SIGKILL only uninterruptible sleep (a hung driver or mount) keeps a process: say so then, and go on trying."""


class Proc(NamedTuple):
    """One process: `start` (clock ticks since boot) tells it from a later one with the same pid."""

    pid: int
    parent: int
    group: int
    state: str
    start: int
    threads: int

    @property
    def dead(self) -> bool:
        return self.state in "ZXx" and self.threads <= 1


def read_proc(pid: int) -> Proc | None:
    """The process with this pid now; None when there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return Proc(pid, int(fields[1]), int(fields[2]), fields[0].decode(), int(fields[19]), int(fields[17]))


def descendants(root: int) -> list[Proc]:
    """Every process below `root` (zombies too), parents before children."""
    children: dict[int, list[Proc]] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdigit() and (proc := read_proc(int(name))):
            children.setdefault(proc.parent, []).append(proc)
    found: list[Proc] = []
    queue = [root]
    while queue:
        below = children.pop(queue.pop(0), [])
        found += below
        queue += [proc.pid for proc in below]
    return found


def send_signal(proc: Proc, number: int) -> None:
    """Signals exactly this process: a pidfd is opened first, then the start time compared, so a reused pid is safe."""
    try:
        fd = os.pidfd_open(proc.pid)
    except ProcessLookupError:
        return
    except (OSError, AttributeError):  # a kernel before 5.3
        fd = -1
    try:
        now = read_proc(proc.pid)
        if now is None or now.start != proc.start:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if fd >= 0:
                signal.pidfd_send_signal(fd, number)
            else:
                os.kill(proc.pid, number)
    finally:
        if fd >= 0:
            os.close(fd)


class Guard:
    def __init__(self, link: socket.socket, order: dict[str, Any]) -> None:
        self.link = link
        self.order = order
        self.leader = 0
        self.leader_gone = False
        self.ending = False
        self.deadline = 0.0
        self.poll = select.poll()
        self.poll.register(link, select.POLLIN)
        self.owner_fd = self.watch_owner(order["owner"])
        self.wake, wake = os.pipe()
        os.set_blocking(self.wake, False)
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        self.poll.register(self.wake, select.POLLIN)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self.on_signal)

    def watch_owner(self, owner: int) -> int:
        try:
            fd = os.pidfd_open(owner)
            self.poll.register(fd, select.POLLIN)
        except (OSError, AttributeError):
            return -1
        return fd

    def on_signal(self, number: int, _frame: object) -> None:
        if number != signal.SIGCHLD:
            self.ask(self.order["orphan_grace_s"])

    def ask(self, grace_s: float) -> None:
        """Ends the engine within `grace_s`; a second, more impatient call shortens the first."""
        wanted = time.monotonic() + grace_s
        self.deadline = min(self.deadline, wanted) if self.ending else wanted
        self.ending = True

    def tell(self, **event: object) -> None:
        with contextlib.suppress(OSError):
            self.link.send(json.dumps(event).encode())

    def wait(self, timeout_s: float | None) -> None:
        """Sleeps until something happens, then handles it: a message, the owner's end, a child's end."""
        for fd, _ in self.poll.poll(None if timeout_s is None else timeout_s * 1000):
            if fd == self.wake:
                with contextlib.suppress(BlockingIOError):
                    os.read(self.wake, 4096)
            elif fd == self.link.fileno():
                self.read_link()
            elif fd == self.owner_fd:
                self.poll.unregister(fd)
                self.ask(self.order["orphan_grace_s"])
        if os.getppid() != self.order["owner"] and not self.ending:
            self.ask(self.order["orphan_grace_s"])
        self.reap()

    def read_link(self) -> None:
        try:
            message = self.link.recv(65536)
        except OSError:
            message = b""
        if message:
            self.ask(float(json.loads(message)["stop"]))
        else:
            self.poll.unregister(self.link)
            self.ask(self.order["orphan_grace_s"])

    def reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.leader:
                self.leader_gone = True
                self.tell(event="exit", code=os.waitstatus_to_exitcode(status))

    def living(self) -> list[Proc]:
        self.reap()
        return [proc for proc in descendants(os.getpid()) if not proc.dead]

    def run(self) -> None:
        self.leader = self.launch()
        while not self.leader_gone and not self.ending:
            self.wait(None if self.owner_fd >= 0 else 0.5)
        self.end()

    def end(self) -> None:
        """SIGTERM to the first process, a third of the grace later to its group; SIGKILL to what outlives the grace.

        The first process alone at first: engines end their workers in order, and call it a crash when a worker goes
        by itself. Once it has ended, everything that is left gets its SIGTERM.
        """
        if not self.ending:
            self.ask(SWEEP_GRACE_S)
        began, pause = time.monotonic(), 0.01
        group_at = began + (self.deadline - began) / 3
        told: set[int] = set()
        while (left := self.living()) and time.monotonic() < self.deadline:
            if self.leader_gone and 0 not in told:
                told.add(0)
                self.ask(SWEEP_GRACE_S)
            late = time.monotonic() > group_at
            for proc in left:
                due = self.leader_gone or proc.pid == self.leader or (late and proc.group == self.leader)
                if due and proc.pid not in told:
                    told.add(proc.pid)
                    send_signal(proc, signal.SIGTERM)
            self.wait(min(pause, max(0.0, self.deadline - time.monotonic())))
            pause = min(pause * 1.5, 0.1)
        self.kill()

    def kill(self) -> None:
        killed: set[int] = set()
        patience = time.monotonic() + KILL_PATIENCE_S
        while left := self.living():
            for proc in left:
                send_signal(proc, signal.SIGKILL)
                killed.add(proc.pid)
            self.wait(0.02)
            if time.monotonic() > patience:
                self.tell(event="stuck", pids=[proc.pid for proc in left])
                patience = float("inf")
        self.tell(event="gone", killed=sorted(killed))

    def launch(self) -> int:
        """Forks and executes the engine in a session of its own: Ctrl-C in redline's terminal does not reach it."""
        libc = ctypes.CDLL(None, use_errno=True)
        guard = os.getpid()
        failed, report = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                self.become_engine(libc, guard)
            except OSError as error:
                os.write(report, f"{error.errno} {error.strerror}: {error.filename or ''}".encode())
            finally:
                os._exit(127)
        os.close(report)
        with open(failed, "rb") as file:  # noqa: PTH123 - ends when exec closed the other side
            trouble = file.read().decode()
        if trouble:
            number, _, text = trouble.partition(" ")
            self.tell(event="failed", errno=int(number), text=text)
        else:
            self.tell(event="started", pid=pid)
        return pid

    def become_engine(self, libc: ctypes.CDLL, guard: int) -> None:
        os.setsid()
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != guard:
            os._exit(127)
        signal.set_wakeup_fd(-1)
        for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
            with contextlib.suppress(OSError, ValueError):
                signal.signal(number, signal.SIG_DFL)  # Python ignores SIGPIPE, and exec would keep that
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        if self.order["cwd"]:
            os.chdir(self.order["cwd"])
        os.execvpe(self.order["argv"][0], self.order["argv"], self.order["env"])


def main() -> None:
    link = socket.socket(fileno=int(sys.argv[1]))
    link.set_inheritable(False)
    order = json.load(sys.stdin)
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        link.send(json.dumps({"event": "failed", "errno": ctypes.get_errno(), "text": "not a subreaper"}).encode())
        return
    Guard(link, order).run()


if __name__ == "__main__":
    main()
