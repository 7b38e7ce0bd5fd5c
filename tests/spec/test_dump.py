from __future__ import annotations

import pytest
import yaml
from hypothesis import HealthCheck, given, settings

from redline.spec.dump import dump_experiment, inline
from redline.spec.experiment import Experiment
from redline.spec.load_file import loads_experiment
from redline.spec.model import ModelSpec
from redline.spec.shorthand import expand
from redline.spec.tree import read_text
from tests.spec.experiments import TRAPS, experiments


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(experiments())
def test_what_is_written_reads_back_as_the_same_experiment(experiment: Experiment) -> None:
    text = dump_experiment(experiment)
    again = loads_experiment(text)
    assert again == experiment
    assert again.hash() == experiment.hash()
    assert dump_experiment(again) == text
    assert Experiment.model_validate_json(experiment.model_dump_json()) == experiment


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(experiments())
def test_any_yaml_reader_sees_the_same_values(experiment: Experiment) -> None:
    """Against PyYAML's own reader, which follows YAML 1.1."""
    read = yaml.safe_load(dump_experiment(experiment))
    assert read["name"] == experiment.name
    assert read["engines"][0].get("flags", {}) == experiment.engines[0].flags
    assert read["engines"][0].get("env", {}) == experiment.engines[0].env


@pytest.mark.parametrize("word", TRAPS)
def test_words_with_two_meanings_are_quoted(word: str) -> None:
    assert inline(word)[0] in "'\""


def test_every_field_is_written_with_its_description() -> None:
    experiment = Experiment.model_validate({"models": [ModelSpec(id="x")], "engines": [{"kind": "vllm"}]})
    text = dump_experiment(experiment)
    for name, info in type(experiment.load).model_fields.items():
        assert f"  {name}: " in text
        assert f"# {info.description}" in text
    assert "port" not in text  # an engine's defaults are left out


def test_open_loop_leaves_concurrency_out() -> None:
    experiment = loads_experiment("model: x\nengines: vllm\nload: {rate: 2}")
    assert "concurrency:" not in dump_experiment(experiment)
    assert loads_experiment(dump_experiment(experiment)) == experiment


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(experiments())
def test_the_long_form_has_no_longer_form(experiment: Experiment) -> None:
    once, errors = expand(read_text(dump_experiment(experiment), "text"))
    assert (expand(once), errors) == ((once, []), [])
