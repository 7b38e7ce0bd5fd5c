"""The engine `paced`: an adapter around the paced server, known for the time of a test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from redline import hooks
from tests.tune.paced_engine import PacedEngine


class _Nowhere:
    path = None
    tokenizer_path = None


@pytest.fixture
def paced(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(hooks.ENGINES, "paced", "tests.tune.paced_engine:PacedEngine")
    monkeypatch.setattr("redline.tune.trial.resolve_model", lambda model: _Nowhere())
    PacedEngine.started.clear()
    yield
    assert all(running.stops for running in PacedEngine.started), "an engine was left running"
