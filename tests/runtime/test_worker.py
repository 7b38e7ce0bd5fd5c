"""Commands to the engine's process, on a loop that only remembers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from redline.runtime import worker
from redline.runtime.config import EngineConfig
from redline.runtime.params import Constraint
from redline.runtime.request import Finish, Output, Request, Sampling
from redline.runtime.worker import Served


class Loop:
    progress = 3

    def __init__(self) -> None:
        self.done: list[tuple[str, str]] = []
        self.on_step_end: Callable[[], None] | None = None

    def submit(self, request: Request) -> None:
        self.done.append(("submit", request.id))

    def abort(self, request: str) -> None:
        self.done.append(("abort", request))


class Events:
    def __init__(self) -> None:
        self.sent: list[tuple[Any, ...]] = []
        self.came = threading.Event()

    def send(self, *message: Any) -> None:
        self.sent.append(message)
        self.came.set()


def fields(name: str) -> dict[str, Any]:
    return {"id": name, "tokens": [1], "sampling": Sampling()}


def test_who_leaves_while_a_grammar_is_compiled_is_never_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def compile_one(constraint: Constraint) -> Callable[[], Any]:
        begun.set()
        assert go_on.wait(30)
        return lambda: object()

    monkeypatch.setattr(worker, "grammars_of", lambda loop, config: compile_one)
    loop, events = Loop(), Events()
    served = Served(loop, EngineConfig(model=Path()), events)  # type: ignore[arg-type]
    constraint = Constraint("regex", "a", "structured_outputs")
    served.obey("submit", fields("leaves"), constraint)
    assert begun.wait(30)
    served.obey("submit", fields("stays"), constraint)
    served.obey("abort", "leaves")
    go_on.set()
    assert events.came.wait(30)
    ((what, progress, [(name, output, *_)], _, failure),) = events.sent
    assert (what, progress, name, failure) == ("step", 3, "leaves", "")
    assert Output(*output).finish is Finish.ABORT
    served._compiling.shutdown(wait=True)
    assert loop.done == [("submit", "stays")]
    served.obey("abort", "stays")
    assert loop.done == [("submit", "stays"), ("abort", "stays")]
    assert len(events.sent) == 1
