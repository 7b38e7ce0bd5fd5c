"""The real measurement, short, on this CPU."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from redline.errors import EnvironmentFault, UsageError
from redline.store.ceilings import ceilings_of
from redline.tune.ceilings import measured_card, node_ceilings

pytest.importorskip("torch")
import torch

from redline.runtime import ceilings_probe  # it imports torch


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


def test_a_type_that_is_emulated_does_not_take_for_ever() -> None:
    calls = []

    def slow() -> None:
        time.sleep(0.1)
        calls.append(1)

    found = ceilings_probe._best(torch.device("cpu"), slow, 1.0, 0.01)
    assert found["rounds"] == 1
    assert len(calls) == 3
    assert found["per_s"] <= 10.0


BOX = {"gpu": {"driver": "580", "devices": [{"name": "NVIDIA L4"}, {"name": "NVIDIA H200"}]}, "cpu": {"model": "EPYC"}}


@pytest.mark.parametrize(
    ("told", "card"),
    [
        ({"device": "cuda", "name": "NVIDIA H200"}, ("NVIDIA H200", "580")),
        ({"device": "cuda", "name": "NVIDIA L4"}, ("NVIDIA L4", "580")),
        ({"device": "cuda", "name": "NVIDIA L4 MIG 1g.5gb"}, ("NVIDIA L4", "580")),
        ({"device": "cpu"}, ("EPYC", "")),
    ],
)
def test_the_card_is_the_one_that_was_measured(told: dict[str, str], card: tuple[str, str]) -> None:
    """CUDA's first GPU need not be NVML's first."""
    assert measured_card(told, BOX) == card


def test_a_measurement_that_was_killed_says_at_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("redline.tune.ceilings.PATIENCE_S", 1.5)
    stuck = tmp_path / "python"
    stuck.write_text("#!/bin/sh\necho 'redline-ceilings bf16' >&2\nexec sleep 60\n")
    stuck.chmod(0o755)
    with pytest.raises(EnvironmentFault) as caught:
        node_ceilings(python=str(stuck), cache=tmp_path)
    assert "at: bf16" in (caught.value.why or "")
