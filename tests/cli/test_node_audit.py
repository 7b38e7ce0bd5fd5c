from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from redline.cli.node import application
from redline.errors import UsageError
from tests.node.fake_boxes import built


def audit(*arguments: str, code: int = 0) -> Result:
    done = CliRunner().invoke(application(), ["audit", *arguments], env={"COLUMNS": "100"})
    assert done.exit_code == code, done.output
    return done


@pytest.fixture
def careless() -> str:
    return str(built("epyc_8gpu").root)


def test_drift_ends_with_five_and_fits_a_hundred_columns(careless: str) -> None:
    text = audit("--root", careless, code=5).stdout
    assert "cpu.cores_for_engine" in text
    assert "TuneD's profile sets schedutil" in text
    assert max(map(len, text.splitlines())) <= 100
    assert "look first at: cpu.cores_for_engine" in text
    ids = [line.split()[2] for line in text.splitlines() if line.startswith(("  drift", "  overridden"))]
    assert ids.count("cpu.governor") == 1, "places that say the same share a line"


def test_what_is_not_ok_comes_in_full_the_rest_on_demand(careless: str) -> None:
    short, everything = (audit("--root", careless, *more, code=5).stdout for more in ([], ["--all"]))
    assert "gpu.nvlink" in short
    assert "  ok " not in short
    assert "  ok " in everything
    assert "n/a" in everything
    assert len(everything) > len(short)


def test_only_and_weight_decide_the_exit_code(careless: str) -> None:
    assert "vm.max_map_count" in audit("--root", careless, "--only", "vm.max_map_count", code=5).stdout
    audit("--root", careless, "--only", "vm.max_map_count", "--fail-on", "high", code=0)
    assert "  ok " in audit("--root", careless, "--only", "vm.dirty_bytes,fs.atime", "--profile", "vm", code=5).stdout


def test_a_tuned_box_ends_with_nought() -> None:
    assert "drift" not in audit("--root", str(built("xeon_a100").root), "--only", "vm,thp,gpu").stdout


def test_json(careless: str) -> None:
    data = json.loads(audit("--root", careless, "--json", "--only", "cpu.governor", code=5).stdout)
    assert (data["profile"], data["ok"], data["counts"]) == ("latency", False, {"overridden": 16})
    row = data["settings"][0]
    assert (row["id"], row["owner"], row["want"]) == (
        "cpu.governor",
        "tuned",
        {"op": "equals", "values": ["performance"]},
    )


def test_this_box_itself() -> None:
    done = CliRunner().invoke(application(), ["audit", "--json"])
    assert done.exit_code in (0, 5)
    assert len({row["id"] for row in json.loads(done.stdout)["settings"]}) >= 90


def test_a_folder_that_is_no_box_and_a_name_that_is_no_setting(tmp_path: Path, careless: str) -> None:
    for arguments in (["--root", str(tmp_path / "nowhere")], ["--root", careless, "--only", "vm.swapiness"]):
        done = CliRunner().invoke(application(), ["audit", *arguments])
        assert isinstance(done.exception, UsageError)
