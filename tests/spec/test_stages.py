from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from redline.errors import SpecError
from redline.spec.dump import dump_experiment
from redline.spec.load import LoadPoint
from redline.spec.load_file import load_experiment
from redline.spec.overrides import experiment_from

BASE: dict[str, Any] = {"model": ["x"], "engines": "vllm"}


def test_the_short_form_is_the_long_form(tmp_path: Path) -> None:
    found = experiment_from(None, BASE | {"stages": "2..10/s:30, 5/s:10s"}).load
    assert [stage.model_dump(exclude_defaults=True) for stage in found.stages] == [
        {"rate": 2.0, "to": 10.0, "duration_s": 30.0},
        {"rate": 5.0, "duration_s": 10.0},
    ]
    assert [stage.label for stage in found.stages] == ["2 → 10 req/s", "5 req/s"]
    assert found.points == [LoadPoint("stages", (6 * 30 + 5 * 10) / 40)]
    closed = experiment_from(None, BASE | {"stages": ["8..32:20", "32:.5"]}).load
    assert closed.points == [LoadPoint("stages-closed", 32)]
    assert closed.points[0].label == "stages, up to 32 clients"


def test_a_file_with_stages_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "exp.yaml"
    path.write_text(
        "model: x\nengine: vllm\nload:\n  arrivals: gamma\n  burstiness: 0.25\n  stages:\n"
        "    - {rate: 1, to: 3.5, duration_s: 5, arrivals: gamma}\n    - {rate: 2, duration_s: 5}\n"
    )
    experiment = load_experiment(path)
    again = tmp_path / "again.yaml"
    again.write_text(dump_experiment(experiment))
    assert load_experiment(again) == experiment


@pytest.mark.parametrize(
    ("load", "says"),
    [
        ("stages: [{rate: 2, duration_s: 5}]\n  rate: 3", "cannot be had together"),
        ("stages: [{duration_s: 5}]", "either rate or concurrency"),
        ("stages: [{rate: 2, concurrency: 2, duration_s: 5}]", "either rate or concurrency"),
        ("stages: [{rate: 2, duration_s: 5}, {concurrency: 2, duration_s: 5}]", "cannot be mixed"),
        ("stages: [{rate: 0, duration_s: 5}]", "no stage sends anything"),
        ("stages: [{concurrency: 2, to: 2.5, duration_s: 5}]", "2.5 is no number of clients"),
        ("stages: [{rate: 2}]", "is missing"),
        ("stages: 3 to 5", "load.stages"),
        ("burstiness: 0.5", "gamma"),
        ("rate: 1\n  trace_speed: 2", "cannot be had together"),
    ],
)
def test_what_cannot_be_is_an_error_with_its_line(tmp_path: Path, load: str, says: str) -> None:
    path = tmp_path / "exp.yaml"
    path.write_text(f"model: x\nengine: vllm\nload:\n  {load}\n")
    with pytest.raises(SpecError, match=says) as caught:
        load_experiment(path)
    assert "exp.yaml" in str(caught.value)


def test_a_flag_for_one_kind_replaces_the_files_other_kind(tmp_path: Path) -> None:
    path = tmp_path / "exp.yaml"
    path.write_text("model: x\nengine: vllm\nload: {stages: [{rate: 2, duration_s: 5}]}\n")
    assert experiment_from(path, {"concurrency": "4"}).load.points == [LoadPoint("closed", 4)]
    assert experiment_from(path, {"trace_speed": "1,2"}).load.points == [LoadPoint("trace", 1), LoadPoint("trace", 2)]
