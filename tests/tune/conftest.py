"""The engine `paced`: an adapter around the paced server, known for the time of a test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from redline import hooks
from redline.analyse import verdict
from redline.analyse.rules import calibrated, client
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


@pytest.fixture
def client_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """No point is held against the load generator. The box that runs the tests may be so busy that one is, with reason;
    a test that needs points to be used, and asks nothing of their verdicts, says so with this."""
    kept = tuple(rule for rule in verdict.RULES if rule not in (*client.RULES, *calibrated.RULES))
    monkeypatch.setattr(verdict, "RULES", kept)
