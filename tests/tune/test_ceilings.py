"""The real measurement, short, on this CPU."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from redline.errors import EnvironmentFault, UsageError
from redline.store.ceilings import ceilings_of
from redline.tune.ceilings import node_ceilings

pytest.importorskip("torch")


def test_this_cpu(tmp_path: Path) -> None:
    said: list[str] = []
    found, path = node_ceilings(device="cpu", seconds=0.02, progress=said.append, cache=tmp_path)
    assert path.exists()
    assert found.read > 1e8
    assert found.copy > 1e8
    assert found.flops["fp32"] > 1e9
    assert said[:2] == ["measuring reading", "measuring copying"]
    assert set(found.spread) >= {"read", "copy", "fp32"}
    assert ceilings_of(found.card, cache=tmp_path) == found


def test_a_python_without_torch(tmp_path: Path) -> None:
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    with pytest.raises(EnvironmentFault, match="torch is not installed"):
        node_ceilings(python=str(bare), cache=tmp_path)


def test_a_device_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="could not be measured"):
        node_ceilings(device="meta:nowhere", cache=tmp_path)


def test_no_time_makes_no_measurement(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        node_ceilings(seconds=0, cache=tmp_path)
