from __future__ import annotations

from typing import Any

import pytest

from redline.engines.hf_server.fault import ApiError
from redline.runtime.params import SamplingParams

EOS = frozenset({1})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 0),
        ("n", 1000),
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("top_p", 0),
        ("top_p", 1.5),
        ("top_k", -2),
        ("min_p", 1.1),
        ("repetition_penalty", 0),
        ("presence_penalty", 2.1),
        ("frequency_penalty", -2.1),
        ("max_tokens", 0),
        ("min_tokens", -1),
        ("stop", ["a", ""]),
        ("logit_bias", {100: 1.0}),
        ("logit_bias", {1: 101.0}),
        ("stop_token_ids", [-1]),
    ],
)
def test_what_cannot_be_is_named(name: str, value: Any) -> None:
    with pytest.raises(ApiError) as caught:
        SamplingParams(**{name: value}).check(vocab_size=100)
    assert (caught.value.status, caught.value.param) == (400, name)
    SamplingParams().check(100)


def test_what_ends_an_answer() -> None:
    plain = SamplingParams(stop_token_ids=[7]).sampling(5, EOS, 0)
    assert plain.stop_ids == {1, 7}
    assert not plain.hold_ids
    assert SamplingParams(stop_token_ids=[7], ignore_eos=True).sampling(5, EOS, 0).stop_ids == {7}
    assert SamplingParams(min_tokens=2).sampling(5, EOS, 0).hold_ids == {1}
    with pytest.raises(ApiError, match="min_tokens=6 is more than 5"):
        SamplingParams(min_tokens=6).sampling(5, EOS, 0)


def test_each_choice_has_a_seed_of_its_own() -> None:
    given = [SamplingParams(seed=-3).sampling(1, EOS, choice).seed for choice in range(3)]
    assert len(set(given)) == 3
    assert all(0 <= seed < 2**63 for seed in given)
    assert given == [SamplingParams(seed=-3).sampling(1, EOS, choice).seed for choice in range(3)]
    drawn = {SamplingParams().sampling(1, EOS, 0).seed for _ in range(3)}
    assert len(drawn) == 3


def test_neutral_values_ask_for_nothing() -> None:
    assert SamplingParams(temperature=0).sampling(1, EOS, 0).plain_greedy
    assert SamplingParams(top_k=-1).sampling(1, EOS, 0).top_k == 0
    assert SamplingParams(stop="x").stops == ("x",)
