"""Corrupted output from a server is caught; a sound server is left in peace."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redline.load.canary import Said, affordable, canaries_for, compared
from redline.load.features import features
from redline.load.paced.server import PacedServer
from redline.load.record import Status
from tests.load.columns import verdict
from tests.load.servers import Result, closed, fast, push, workload


def pushed(clients: int = 8, requests: int = 80, share: float = 0.05, **pace: Any) -> Result:
    work = workload(canary_share=share, output_tokens={"mean": 16})
    with PacedServer(fast(by_prompt=True, **pace)) as server:
        return push(server, closed(clients), requests=requests, work=work)


@given(st.floats(0.001, 0.5), st.integers(1, 3000))
def test_canaries_come_beside_what_was_asked_for(share: float, requests: int) -> None:
    made = canaries_for(workload(canary_share=share))
    assert made is not None
    beside = made.beside(requests)
    due = [made.due(number) for number in range(requests + beside)]
    assert sum(number < 0 for number in due) == requests
    assert share * requests - 1 <= beside <= share * (requests + beside) + 4


def test_a_short_point_has_some_and_all_take_turns() -> None:
    made = canaries_for(workload(canary_share=0.02))
    assert made is not None
    assert made.beside(60) >= 3
    due = [made.due(number) for number in range(1000)]
    assert {number for number in due if number >= 0} == set(range(len(made.prompts)))
    assert canaries_for(workload(canary_share=0)) is None


def test_a_slow_server_is_asked_less_alone() -> None:
    made = canaries_for(workload())
    assert made is None
    made = canaries_for(workload(canary_share=0.1))
    assert made is not None
    assert len(affordable(made, 0.001)) == 2 * len(made.prompts)
    assert len(affordable(made, 0.1)) == len(made.prompts)
    assert affordable(made, 5.0) == [0, 1]


def test_canaries_are_load_and_no_latency_is_taken_of_them() -> None:
    result = pushed()
    measured = [record for record in result.measured if record.canary < 0]
    canaries = [record for record in result.measured if record.canary >= 0]
    assert len(measured) == 80
    assert 5 <= len(canaries) <= 9
    assert all(record.status is Status.OK for record in canaries)
    told = result.outcome.canary
    assert told["compared"] == len(canaries)
    assert told["asked_twice"] == told["alone"] == 6
    assert (told["mismatched"], told["unlike_alone"], told["spoilt"]) == (0, 0, 0)
    alone = [record for record in result.records if record.warmup and record.canary >= 0]
    assert len(alone) == 12
    for before, after in itertools.pairwise(alone):
        assert before.finished_ns <= after.sent_ns  # one after the other
    assert not any("canar" in reason for reason in verdict(result).reasons)


@pytest.mark.parametrize(
    ("damage", "state", "word"),
    [
        ("garbage", "invalid", "garbage, a loop or nothing"),
        ("repeat", "invalid", "garbage, a loop or nothing"),
        ("swap", "invalid", "wrong from the start"),
        ("flip", "degraded", "more than near-ties explain"),
    ],
)
def test_corruption_under_load_is_caught(damage: str, state: str, word: str) -> None:
    """The server answers well alone and in the warm-up, and badly with others in flight."""
    result = pushed(damage=damage, damage_above=2, share=0.2)
    found = verdict(result)
    told = dict(zip(found.reasons, found.levels, strict=True))
    (reason,) = [reason for reason in told if word in reason]
    assert told[reason] == state
    if damage == "garbage":
        assert any("characters that no text has" in text for text in told)
    if damage == "repeat":
        assert any("repeat one piece over and over" in text for text in told)


@pytest.mark.parametrize("damage", ["garbage", "repeat"])
def test_corruption_is_caught_without_canaries_too(damage: str) -> None:
    with PacedServer(fast(by_prompt=True, damage=damage, damage_after=20)) as server:
        work = workload(canary_share=0, output_tokens={"mean": 16})
        result = push(server, closed(4), requests=60, warmup_requests=16, work=work)
    found = verdict(result)
    assert found.state == "invalid"
    assert result.outcome.canary == {}


def test_a_server_that_always_loops_is_not_accused() -> None:
    result = pushed(damage="repeat")
    assert not any("canar" in reason or "over and over" in reason for reason in verdict(result).reasons)


def test_one_flip_is_no_corruption() -> None:
    alone = {0: [Said("a b c d e f g")], 1: [Said("h i j k l m n")]}
    told = compared(alone, [(0, Said("a b c d e x y")), (1, Said("h i j k l m n"))])
    assert (told["mismatched"], told["early"], told["mixed_up"], told["spoilt"]) == (1, 0, 0, 0)
    assert 0.6 < told["agreed_share"] < 0.9


def test_another_prompts_answer_is_told() -> None:
    alone = {0: [Said(" Paris, of course")], 1: [Said(" five, six, seven")]}
    told = compared(alone, [(0, Said(" five, six, seven"))])
    assert told["mixed_up"] == 1


def test_log_probabilities_are_compared_as_far_as_the_texts_agree() -> None:
    alone = {0: [Said("abcdefgh", (-0.1, -0.2, -0.3, -0.4))]}
    same = compared(alone, [(0, Said("abcdefgh", (-0.1, -0.2, -0.3, -0.5)))])
    assert same["logprob_drift"] == pytest.approx(0.025)
    parted = compared(alone, [(0, Said("abcdxxxx", (-0.1, -0.2, -9.0, -9.0)))])
    assert parted["logprob_drift"] == pytest.approx(0.0)
    assert compared(alone, [(0, Said("abcdefgh"))])["logprob_drift"] is None


@given(st.text(max_size=300))
def test_features_of_any_text(text: str) -> None:
    found = features(text)
    assert 0 <= found.odd_share <= 1
    assert 0 <= found.loop_share <= 1
    assert 0 <= found.distinct_share <= 1


@pytest.mark.parametrize(
    ("text", "garbled", "looping"),
    [
        ("The capital of France is Paris, and it lies on the Seine.", False, False),
        ("def f(n):\n\treturn n if n < 2 else f(n - 1) + f(n - 2)\n", False, False),
        ("日本の首都は東京です。パリはフランスの首都です。", False, False),
        ("ok 🎉 naïve café — fine", False, False),
        ("!!!!!!!!!!!!!!!!!!!!!!!!", False, True),
        (" the the the the the the the the the", False, True),
        ("So: and so on and so on and so on and so on and so on and so on and so on", False, True),
        ("\ufffd\ufffd abc \ufffd\ufffd\ufffd", True, False),
        ("", False, False),
    ],
)
def test_features_by_hand(text: str, garbled: bool, looping: bool) -> None:
    assert (features(text).garbled, features(text).looping) == (garbled, looping)
