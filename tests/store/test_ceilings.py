from __future__ import annotations

from pathlib import Path

import pytest

from redline.errors import EnvironmentFault
from redline.store.ceilings import Ceilings, card_of, ceilings_of, from_dict, keep, kept, known_ceilings

ONE = Ceilings("H200", "580.1", "2.11", 4.1e12, 3.9e12, {"bf16": 7.8e14, "tf32": 3e14}, measured_wall="2026-01-01")


def test_once_for_each_card_driver_and_torch(tmp_path: Path) -> None:
    again = Ceilings("H200", "580.1", "2.11", 4.2e12, 0, {}, measured_wall="2026-01-02")
    other = Ceilings("H200", "570.0", "2.11", 4.0e12, 0, {}, measured_wall="2026-01-03")
    paths = [keep(one, tmp_path) for one in (ONE, again, other)]
    assert paths[0] == paths[1] != paths[2]
    assert [one.read for one in kept(tmp_path)] == [4.0e12, 4.2e12]
    assert ceilings_of("H200", "580.1", tmp_path) == again
    assert ceilings_of("H200", "1.0", tmp_path) == other  # another driver is better than nothing
    assert ceilings_of("H100", "580.1", tmp_path) is None


def test_a_damaged_file_is_left_out(tmp_path: Path) -> None:
    path = keep(ONE, tmp_path)
    path.write_text('{"card": ')
    (path.parent / "other.json").write_text("[]")
    assert kept(tmp_path) == []


def test_back_from_json(tmp_path: Path) -> None:
    assert from_dict(ONE.as_dict() | {"of a newer redline": 1}) == ONE


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "ceilings").write_text("a file")
    with pytest.raises(EnvironmentFault, match="cannot be written"):
        keep(ONE, tmp_path)


def test_the_ceiling_of_a_type() -> None:
    assert ONE.flops_of("bfloat16") == (7.8e14, "bf16")
    assert ONE.flops_of("float32") == (3e14, "tf32")
    assert ONE.flops_of("fp8") is None


def test_the_card_of_a_box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = {"driver": "580.1", "devices": [{"name": "H200"}, {"name": "H100"}]}
    assert card_of({"gpu": gpu, "cpu": {"model": "EPYC", "threads": 2}}) == ("H200", "580.1")
    assert card_of({"gpu": {"skipped": "none"}, "cpu": {"model": "EPYC", "threads": 2}}) == ("EPYC × 2", "")
    assert card_of({}) == ("", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert known_ceilings({"gpu": gpu}) == {}
    keep(ONE)
    assert known_ceilings({"gpu": gpu})["ceilings"]["read"] == 4.1e12
