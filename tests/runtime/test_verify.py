"""Speculation changes how fast tokens come, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from redline.runtime.draws import Purpose, uniform
from redline.runtime.request import Sampling
from redline.runtime.sampler import Drawn, Row, sample, verify, verify_all
from tests.runtime.chi2 import assert_drawn_from
from tests.runtime.oracle import target
from tests.runtime.test_sampler import FakeMatcher, sampling_st

V = 8
DRAWS = 100_000
FEWER = 20_000
"""Where the draws themselves are proven elsewhere."""
PROMPT = [1, 2, 3]


def model(tokens: list[int], vocab: int = V) -> torch.Tensor:
    """Logits [1, V] that depend on the last two tokens."""
    seed = tokens[-1] * 31 + tokens[-2]
    return torch.randn(1, vocab, generator=torch.Generator().manual_seed(seed)) * 1.5


def logits_along(tokens: list[int], draft: list[int]) -> torch.Tensor:
    return torch.cat([model([*tokens, *draft[:i]]) for i in range(len(draft) + 1)])


def alone(s: Sampling, count: int, matcher: FakeMatcher | None = None) -> list[int]:
    tokens = list(PROMPT)
    for _ in range(count):
        (drawn,) = sample(model(tokens), [Row(s, tokens, len(PROMPT), matcher)])
        tokens.append(drawn.token)
    return tokens


drafts_st = st.lists(st.integers(0, V - 1), max_size=4)


@settings(max_examples=25, deadline=None)
@given(sampling_st, st.lists(drafts_st, min_size=12, max_size=12), st.booleans(), st.randoms(use_true_random=False))
def test_text_is_the_same_with_and_without_guesses(
    s: Sampling, drafts: list[list[int]], masked: bool, random: Any
) -> None:
    s = replace(s, logit_bias=((4, 2.0), (6, -3.0)) if s.logit_bias else (), hold_ids=frozenset({0}), min_tokens=3)
    matcher = FakeMatcher({0, 1, 2, 5, 6}) if masked else None
    wanted = alone(s, 12, matcher)
    tokens = list(PROMPT)
    row = Row(s, tokens, len(PROMPT), matcher)
    for draft in drafts:
        if random.random() < 0.7:
            right = wanted[len(tokens) : len(tokens) + len(draft)]
            draft = right[: random.randint(0, len(right))] + draft[len(right) :]
        drawn = verify(logits_along(tokens, draft), row, draft)
        assert 1 <= len(drawn) <= len(draft) + 1
        assert matcher is None or matcher.taken == []
        tokens += [one.token for one in drawn]
        if len(tokens) >= len(wanted):
            break
    assert tokens[: len(wanted)] == wanted[: len(tokens)]


def test_right_guesses_all_stand_and_one_more_comes() -> None:
    for s in (Sampling(temperature=0), Sampling(seed=5)):
        wanted = alone(s, 5)
        drawn = verify(logits_along(PROMPT, wanted[3:7]), Row(s, PROMPT, 3), wanted[3:7])
        assert [one.token for one in drawn] == wanted[3:]


def test_a_guess_without_a_distribution_leaves_the_distribution_as_it_is() -> None:
    s = Sampling(temperature=0.8, top_k=6, top_p=0.9, repetition_penalty=1.3)
    draft = [4]
    logits = logits_along(PROMPT, draft).repeat(FEWER, 1)
    rows = [Row(seeded(s, seed), PROMPT, 3) for seed in range(FEWER)]
    check_two_tokens(s, tokens_of(verify_all(logits, rows, [draft] * FEWER)), draft)


@pytest.mark.parametrize(
    ("s", "draws"),
    [
        (Sampling(), DRAWS),
        (Sampling(presence_penalty=1.0, top_k=5, min_tokens=9, hold_ids=frozenset({4})), FEWER),
    ],
)
def test_guesses_drawn_from_a_distribution_leave_the_distribution_as_it_is(s: Sampling, draws: int) -> None:
    q = torch.softmax(torch.randn(1, V, generator=torch.Generator().manual_seed(3)), -1)
    edges = q[0].double().cumsum(-1).numpy()
    numbers = np.array([uniform(seed, 3, Purpose.DRAFT) for seed in range(draws)]) * edges[-1]
    guesses = np.minimum(np.searchsorted(edges, numbers, side="right"), V - 1).tolist()
    along = {guess: logits_along(PROMPT, [guess]) for guess in range(V)}
    drawn: list[list[int]] = []
    for start in range(0, draws, 5000):
        part = guesses[start : start + 5000]
        rows = [Row(seeded(s, start + i), PROMPT, 3) for i in range(len(part))]
        logits = torch.cat([along[guess] for guess in part])
        drawn += tokens_of(verify_all(logits, rows, [[guess] for guess in part], [q] * len(part)))
    check_two_tokens(s, drawn)
    # The rule accepts with probability sum of min(p, q), which choosing independently does not reach.
    p = target(model(PROMPT)[0].numpy(), s, PROMPT, 3)
    wanted = np.minimum(p, q[0].numpy()).sum()
    share = np.mean([len(tokens) == 2 for tokens in drawn])
    assert abs(share - wanted) < 5 * np.sqrt(wanted * (1 - wanted) / draws) + 1e-6


def seeded(s: Sampling, seed: int) -> Sampling:
    return Sampling(**{**s.__dict__, "seed": seed})


def tokens_of(drawn: list[list[Drawn]]) -> list[list[int]]:
    return [[one.token for one in tokens] for tokens in drawn]


def check_two_tokens(s: Sampling, drawn: list[list[int]], draft: list[int] | None = None) -> None:
    first = [tokens[0] for tokens in drawn]
    assert_drawn_from(first, target(model(PROMPT)[0].numpy(), s, PROMPT, 3))
    for token in draft or range(V):
        second = [tokens[1] for tokens in drawn if len(tokens) == 2 and tokens[0] == token]
        wanted = target(model([*PROMPT, token])[0].numpy(), s, [*PROMPT, token], 3)
        if second:
            assert_drawn_from(second, wanted)


def test_what_the_grammar_forbids_is_rejected() -> None:
    matcher = FakeMatcher({1, 2, 5})
    probs = torch.full((3, V), 1 / V)
    for s in (Sampling(temperature=0), Sampling(seed=3), Sampling(seed=4, top_k=2)):
        wanted = alone(s, 3, matcher)[3:]
        draft = [wanted[0], 7, 1]
        assert [one.token for one in verify(logits_along(PROMPT, draft), Row(s, PROMPT, 3, matcher), draft)] == wanted[
            :2
        ]
        drawn = verify(logits_along(PROMPT, draft), Row(s, PROMPT, 3, matcher), draft, probs)
        assert len(drawn) <= 2
        assert {one.token for one in drawn} <= {1, 2, 5}
        assert matcher.taken == []


def test_nothing_comes_after_the_end() -> None:
    s = Sampling(temperature=0, stop_ids=frozenset({6}))
    logits = torch.zeros(4, V)
    for place, token in enumerate([2, 6, 3, 3]):
        logits[place, token] = 9
    assert [one.token for one in verify(logits, Row(s, PROMPT, 3), [2, 6, 3])] == [2, 6]
    probs = torch.full((3, V), 1 / V)
    sampled = replace(s, temperature=0.1)
    assert [one.token for one in verify(logits, Row(sampled, PROMPT, 3), [2, 6, 3], probs)] == [2, 6]


@pytest.mark.parametrize("probs", [None, torch.full((2, V), 1 / V)])
@pytest.mark.parametrize("temperature", [0.0, 0.01])
def test_a_fault_ends_what_came_before_it(probs: torch.Tensor | None, temperature: float) -> None:
    logits = torch.zeros(3, V)
    logits[0, 2] = 9
    logits[1] = float("nan")
    drawn = verify(logits, Row(Sampling(temperature=temperature), PROMPT, 3), [2, 2], probs)
    assert [(one.token, one.fault) for one in drawn] == [(2, ""), (-1, "nan")]


def test_a_batch_is_its_rows_one_by_one() -> None:
    samplings = [Sampling(temperature=0), Sampling(seed=1), Sampling(seed=2, logprobs=2), Sampling(seed=3)]
    drafts = [[1, 2], [3], [4, 4, 4], []]
    probs = [None, torch.full((1, V), 1 / V), torch.full((3, V), 1 / V), None]
    rows = [Row(s, PROMPT, 3) for s in samplings]
    parts = [logits_along(PROMPT, draft) for draft in drafts]
    together = verify_all(torch.cat(parts), rows, drafts, probs)
    assert together == [verify(*each) for each in zip(parts, rows, drafts, probs, strict=True)]
    assert together[2][0].logprob is not None
    assert len(together[2][0].logprob.top) == 2
