from __future__ import annotations

from redline.spec.experiment import Experiment
from redline.spec.overrides import experiment_from

PLAIN = {"model": ["some/model"], "engines": ["vllm"]}


def test_watching_is_off_unless_asked_for_and_then_a_part_of_the_experiment() -> None:
    plain, explained = experiment_from(None, PLAIN), experiment_from(None, {**PLAIN, "explain": True})
    assert (plain.observe.explain, plain.observe.spans) == (False, False)
    assert explained.observe.explain
    assert plain.hash() != explained.hash()


def test_experiments_from_before_keep_their_hash() -> None:
    plain = experiment_from(None, PLAIN)
    without = plain.model_dump(mode="json")
    del without["observe"]
    assert Experiment.model_validate(without).hash() == plain.hash()
