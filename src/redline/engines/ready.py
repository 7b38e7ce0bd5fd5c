"""From "spawned" to "it answered a real request", with every phase timed.

Health is not enough: an engine may report health and die at its first token (a missing kernel, a lazy compile), so
ready means that a completion of one token came back.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from redline.clock import now_ns
from redline.engines import port as ports
from redline.engines.diagnose import Diagnosis, diagnose
from redline.engines.engine import Progress
from redline.engines.http import Reply, fetch, try_fetch
from redline.engines.log import Follower, tail
from redline.engines.process import ManagedProcess
from redline.errors import EngineStartFailed

POLL_S = 0.05
ANSWER_ATTEMPTS = 3

T = TypeVar("T")


@dataclass(frozen=True)
class Phase:
    """A part of the start-up that begins with a log line. `name` is the key in `startup_ms`, `says` is for people."""

    name: str
    says: str
    pattern: re.Pattern[str]


@dataclass
class Stopwatch:
    """Lengths of consecutive phases in ms; `enter` ends one and begins the next."""

    progress: Progress
    began_ns: int = field(default_factory=now_ns)
    lengths: dict[str, float] = field(default_factory=dict)
    name: str = "spawn"
    _entered_ns: int = 0

    def enter(self, name: str, says: str) -> None:
        self._close()
        self.name = name
        self.progress(says)

    def _close(self) -> None:
        now = now_ns()
        self.lengths[self.name] = self.lengths.get(self.name, 0.0) + (now - (self._entered_ns or self.began_ns)) / 1e6
        self._entered_ns = now

    def done(self) -> dict[str, float]:
        self._close()
        return {**self.lengths, "total": (now_ns() - self.began_ns) / 1e6}

    @property
    def elapsed_s(self) -> float:
        return (now_ns() - self.began_ns) / 1e9


@dataclass(frozen=True)
class Ready:
    """A server that answered: what it said on /v1/models, and how long each phase took."""

    root_url: str
    models: list[dict[str, Any]]
    startup_ms: dict[str, float]

    @property
    def model(self) -> dict[str, Any]:
        return self.models[0] if self.models else {}


@dataclass(frozen=True)
class Waiting:
    """What to wait for. `phases` in the order in which they happen."""

    engine: str
    root_url: str
    port: int
    model: str
    phases: tuple[Phase, ...]
    health_path: str
    timeout_s: float
    headers: Mapping[str, str] = field(default_factory=dict)


class _GaveUp(Exception):
    """The process died or the time is over; `_failed` says which."""


def wait_until_ready(process: ManagedProcess, waiting: Waiting, watch: Stopwatch) -> Ready:
    """Returns once a one-token completion was answered. Raises EngineStartFailed, with the process left as it is."""
    watch.enter("boot", "starting the process")
    follower = Follower(process.log)
    expect = 0
    try:
        while not _healthy(process, waiting, watch):
            expect = _read_log(follower, waiting.phases, expect, watch)
            time.sleep(POLL_S)
        _read_log(follower, waiting.phases, expect, watch)
        watch.enter("first_answer", "asking for a first token")
        models = _models(process, waiting, watch)
        _first_answer(process, waiting, watch)
    except _GaveUp:
        raise failed(process, waiting.engine, watch, waiting.timeout_s) from None
    return Ready(waiting.root_url, models, watch.done())


def _read_log(follower: Follower, phases: tuple[Phase, ...], expect: int, watch: Stopwatch) -> int:
    """Enters the phases whose lines came; returns the first phase that may still come. Never goes back."""
    for line in follower.new_lines():
        for index in range(expect, len(phases)):
            if phases[index].pattern.search(line):
                watch.enter(phases[index].name, phases[index].says)
                expect = index + 1
                break
    return expect


def _patiently(process: ManagedProcess, waiting: Waiting, watch: Stopwatch, call: Callable[[], T]) -> T | None:
    """`call()` on a thread, so that a death or the timeout is noticed while it blocks. None when it raised OSError."""
    results: list[T] = []

    def work() -> None:
        try:
            results.append(call())
        except OSError:
            return

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    while thread.is_alive():
        _check(process, waiting, watch)
        thread.join(POLL_S)
    _check(process, waiting, watch)
    return results[0] if results else None


def _check(process: ManagedProcess, waiting: Waiting, watch: Stopwatch) -> None:
    if not process.running() or watch.elapsed_s > waiting.timeout_s:
        raise _GaveUp


def _healthy(process: ManagedProcess, waiting: Waiting, watch: Stopwatch) -> bool:
    _check(process, waiting, watch)
    # Looked up, not tried: connecting to a free port of the ephemeral range can connect to itself, and then holds it.
    if ports.visible() and not ports.listeners(waiting.port):
        return False
    url = waiting.root_url + waiting.health_path
    reply = _patiently(process, waiting, watch, lambda: fetch(url, headers=waiting.headers, timeout_s=5.0))
    if reply is None or not reply.ok:
        return False
    return ports.answered_by(waiting.port, [proc.pid for proc in process.tree()])


def _models(process: ManagedProcess, waiting: Waiting, watch: Stopwatch) -> list[dict[str, Any]]:
    url = waiting.root_url + "/v1/models"
    reply = _patiently(process, waiting, watch, lambda: try_fetch(url, headers=waiting.headers, timeout_s=30.0))
    listed = (reply.json() or {}).get("data", []) if reply and reply.ok else []
    return sorted((m for m in listed if isinstance(m, dict)), key=lambda m: m.get("id") != waiting.model)


def one_token(root_url: str, model: str, headers: Mapping[str, str], timeout_s: float) -> Reply:
    """Asks for one token: a completion, a chat where there are no completions, or a vector where there are neither."""
    ask = {"model": model, "max_tokens": 1, "temperature": 0}
    reply = fetch(f"{root_url}/v1/completions", body={**ask, "prompt": "Hello"}, headers=headers, timeout_s=timeout_s)
    if reply.status in (404, 405, 501):
        chat = {**ask, "messages": [{"role": "user", "content": "Hello"}]}
        reply = fetch(f"{root_url}/v1/chat/completions", body=chat, headers=headers, timeout_s=timeout_s)
    if reply.status in (404, 405, 501):
        vector = {"model": model, "input": "Hello"}
        last = fetch(f"{root_url}/v1/embeddings", body=vector, headers=headers, timeout_s=timeout_s)
        return last if last.ok else reply
    return reply


def answered(reply: Reply) -> bool:
    """Whether there is an answer in it: a choice, or a vector."""
    found = reply.json()
    return reply.ok and isinstance(found, dict) and bool(found.get("choices") or found.get("data"))


def _first_answer(process: ManagedProcess, waiting: Waiting, watch: Stopwatch) -> None:
    def ask() -> Reply:
        left_s = max(1.0, waiting.timeout_s - watch.elapsed_s)
        return one_token(waiting.root_url, waiting.model, waiting.headers, left_s)

    reply: Reply | None = None
    for attempt in range(ANSWER_ATTEMPTS):
        reply = _patiently(process, waiting, watch, ask)
        if reply is not None and answered(reply):
            return
        if (reply is not None and reply.status < 500) or attempt == ANSWER_ATTEMPTS - 1:
            break  # refused, or no answer to be had
        _pause(process, waiting, watch, 0.5 * (attempt + 1))
    said = f"HTTP {reply.status}: {reply.error}" if reply else "no answer"
    raise EngineStartFailed(
        f"{waiting.engine} is up, but a completion of one token failed: {said}",
        why="A health check passed, real work did not.",
        fix="Read the log; try the same request by hand.",
        log_tail=tail(process.log, 30),
        diagnosis=diagnose(tail(process.log, 400), process.exit_status()).tag or "no-answer",
    )


def _pause(process: ManagedProcess, waiting: Waiting, watch: Stopwatch, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        _check(process, waiting, watch)
        time.sleep(POLL_S)


def failed(process: ManagedProcess, engine: str, watch: Stopwatch, timeout_s: float) -> EngineStartFailed:
    """The error for an engine that died or ran out of time, with what its log says about it."""
    status = process.exit_status()
    found = diagnose(tail(process.log, 2000), status)
    if status is None and process.missing():
        what = f"a process of {engine} (pid {process.missing()[0]}) died after {watch.elapsed_s:.1f} s"
    elif status is None:
        what = f"{engine} was not ready after {timeout_s:.0f} s; it was in phase '{watch.name}'"
        found = found if found.tag else Diagnosis("timeout", "", "Give it longer with startup_timeout_s.", "")
    else:
        ended = f"signal {-status}" if status < 0 else f"exit code {status}"
        what = f"{engine} ended {watch.elapsed_s:.1f} s after its start ({ended}), in phase '{watch.name}'"
    why = "\n".join(part for part in (found.meaning, found.line and f"Log: {found.line}") if part)
    return EngineStartFailed(
        what,
        why=why,
        fix=found.fix or f"Read the log: {process.log}",
        log_tail=tail(process.log, 30),
        diagnosis=found.tag,
    )
