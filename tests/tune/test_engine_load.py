from __future__ import annotations

from pathlib import Path

import pytest

from redline.errors import Skipped
from redline.hooks import ENGINES
from redline.node.load_time import Way, load_time
from redline.spec.engine import EngineSpec
from redline.spec.model import ModelSpec
from redline.tune import engine_load
from redline.tune.engine_load import engine_ways


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(ENGINES, "stub", "tests.engines.stub_engine:StubEngine")
    (tmp_path / "model.safetensors").write_bytes(b"x" * 5000)
    return tmp_path


def ways_of(folder: Path, **flags: str) -> list[Way]:
    return engine_ways(ModelSpec(id="stub-model"), folder, [EngineSpec(kind="stub", flags=flags)])


def test_a_start_is_timed_by_the_engines_own_phase(folder: Path) -> None:
    cold, warm = ways_of(folder)
    assert (cold.name, warm.name, cold.size) == ("stub, cold", "stub, warm", 5000)
    (timed,) = load_time([warm], repeats=1)
    assert timed.skipped is None
    assert timed.median is not None
    assert timed.median > 0


def test_one_way_per_strategy_that_the_engine_knows(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(engine_load.STRATEGIES, "stub", ("key", ("lazy", "eager")))
    assert [way.name for way in ways_of(folder)] == [
        "stub lazy, cold", "stub lazy, warm", "stub eager, cold", "stub eager, warm",
    ]  # fmt: skip
    assert [way.name for way in ways_of(folder, key="mine")] == ["stub, cold", "stub, warm"]
    monkeypatch.setitem(engine_load.STRATEGIES, "stub", ("unknown-to-it", ("lazy",)))
    assert [way.name for way in ways_of(folder)] == ["stub, cold", "stub, warm"]


def test_an_engine_that_does_not_start_is_skipped_with_its_reason(folder: Path) -> None:
    took = ways_of(folder, fault="die")[1].load()
    assert isinstance(took, Skipped)
    assert took.reason.startswith("it does not start")
    took = ways_of(folder, nonsense="1")[1].load()
    assert isinstance(took, Skipped)
    assert "nonsense" in took.reason
