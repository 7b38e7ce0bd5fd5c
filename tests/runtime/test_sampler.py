from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from redline.runtime.edits import words
from redline.runtime.request import Sampling
from redline.runtime.sampler import Drawn, Row, distribution, prompt_logprobs, sample
from tests.runtime.chi2 import assert_drawn_from
from tests.runtime.oracle import target

V = 16
DRAWS = 100_000
TOKENS = [1, 2, 3, 3, 5, 5, 5, 9]
PROMPT = 4
ALLOWED = {0, 2, 3, 5, 8, 15}


class FakeMatcher:
    """Allows the same tokens at every place."""

    def __init__(self, allowed: set[int]) -> None:
        self.tokens = allowed
        self.taken: list[int] = []

    def advance(self, token: int) -> None:
        assert token in self.tokens
        self.taken.append(token)

    def finished(self) -> bool:
        return False

    def fill(self, words: memoryview) -> None:
        out = np.frombuffer(words, dtype=np.uint32)
        out[:] = 0
        for token in self.tokens:
            out[token // 32] |= np.uint32(1 << (token % 32))

    def allowed(self, tokens: Any) -> int:
        return next((i for i, token in enumerate(tokens) if token not in self.tokens), len(tokens))

    def rollback(self, tokens: int) -> None:
        del self.taken[len(self.taken) - tokens :]


@dataclass(eq=False)
class Numbered(Row):
    """The same place over and over, each with its own number to draw with."""

    number: int = 0

    @property
    def position(self) -> int:
        return self.number

    @property
    def generated(self) -> int:
        return len(self.tokens) - self.prompt_len


def logits_of(seed: int, rows: int = 1, vocab: int = V) -> torch.Tensor:
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * 2


def tokens_of(drawn: list[Drawn]) -> list[int]:
    assert not any(one.fault for one in drawn)
    return [one.token for one in drawn]


CASES: dict[str, Sampling] = {
    "temperature": Sampling(temperature=0.7),
    "top-k": Sampling(temperature=1.0, top_k=5),
    "top-p": Sampling(temperature=1.2, top_p=0.8),
    "min-p": Sampling(temperature=1.5, min_p=0.1),
    "all filters": Sampling(temperature=1.4, min_p=0.02, top_k=8, top_p=0.9),
    "penalties": Sampling(repetition_penalty=1.4, presence_penalty=0.3, frequency_penalty=0.5),
    "bias": Sampling(logit_bias=((0, 3.0), (7, -100.0), (5, 1.5))),
    "held": Sampling(min_tokens=5, hold_ids=frozenset({2, 4})),
    "everything": Sampling(
        temperature=0.9,
        top_k=9,
        top_p=0.95,
        min_p=0.01,
        repetition_penalty=1.2,
        frequency_penalty=0.1,
        logit_bias=((3, 1.0),),
        min_tokens=9,
        hold_ids=frozenset({8}),
    ),
}
MASKED = {"everything", "bias"}


@pytest.mark.parametrize("name", CASES)
def test_draws_have_the_distribution(name: str) -> None:
    s, logits = CASES[name], logits_of(3)
    allowed = ALLOWED if name in MASKED else None
    wanted = target(logits[0].numpy(), s, TOKENS, PROMPT, allowed)
    matcher = FakeMatcher(allowed) if allowed else None
    row = Row(s, TOKENS, PROMPT, matcher)
    assert distribution(logits, [row])[0].numpy() == pytest.approx(wanted, abs=1e-6)
    mask = words(row, V) if matcher else None
    rows = [Numbered(s, TOKENS, PROMPT, matcher, counts=row.counts, mask=mask, number=n) for n in range(DRAWS)]
    found = tokens_of(sample(logits.expand(DRAWS, -1), rows))
    assert_drawn_from(found, wanted)


sampling_st = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.3, 1.0, 2.0]),
    top_k=st.integers(0, 20),
    top_p=st.sampled_from([0.01, 0.3, 0.7, 0.95, 1.0]),
    min_p=st.sampled_from([0.0, 0.05, 0.5]),
    repetition_penalty=st.sampled_from([0.7, 1.0, 1.5]),
    presence_penalty=st.sampled_from([-0.5, 0.0, 1.0]),
    frequency_penalty=st.sampled_from([0.0, 0.25]),
    logit_bias=st.sampled_from([(), ((4, 2.0), (6, -3.0)), ((1, -math.inf),)]),
    min_tokens=st.sampled_from([0, 4, 5]),
    hold_ids=st.sampled_from([frozenset[int](), frozenset({0, 3})]),
    seed=st.integers(0, 2**64),
    logprobs=st.sampled_from([None, 0, 3]),
)
allowed_st = st.one_of(st.none(), st.sets(st.integers(0, V - 1), min_size=3))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(sampling_st, allowed_st), min_size=1, max_size=6), st.integers(0, 1000))
def test_against_the_slow_way(asked: list[tuple[Sampling, set[int] | None]], seed: int) -> None:
    logits = logits_of(seed, len(asked))
    rows = [Row(s, TOKENS, PROMPT, FakeMatcher(allowed) if allowed else None) for s, allowed in asked]
    kept = logits.clone()
    found = distribution(logits, rows).numpy()
    drawn = sample(logits, rows)
    assert (logits == kept).all()
    for i, (s, allowed) in enumerate(asked):
        if allowed and s.min_tokens > 4 and not allowed - s.hold_ids:
            continue
        wanted = target(logits[i].numpy(), s, TOKENS, PROMPT, allowed)
        assert found[i] == pytest.approx(wanted, abs=1e-5)
        assert wanted[drawn[i].token] > 0
        assert (drawn[i].logprob is None) == (s.logprobs is None)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(sampling_st, allowed_st), min_size=2, max_size=8), st.integers(0, 1000), st.randoms())
def test_a_batch_does_not_change_what_a_row_draws(
    asked: list[tuple[Sampling, set[int] | None]], seed: int, random: Any
) -> None:
    logits = logits_of(seed, len(asked), 600)
    rows = [Row(s, TOKENS, PROMPT, FakeMatcher(allowed) if allowed else None) for s, allowed in asked]
    alone = [sample(logits[i : i + 1], [row])[0] for i, row in enumerate(rows)]
    order = list(range(len(rows)))
    random.shuffle(order)
    assert sample(logits[order], [rows[i] for i in order]) == [alone[i] for i in order]


def test_a_seed_replays_and_another_differs() -> None:
    logits = torch.zeros(40, 1000)

    def run(seed: int) -> list[int]:
        return tokens_of(sample(logits, [Row(Sampling(seed=seed), [0] * n, 0) for n in range(40)]))

    assert run(7) == run(7) != run(8)


@pytest.mark.parametrize("vocab", [200, 8192])
@pytest.mark.parametrize("top_k", [1, 7, 24, 25, 60, 199])
def test_top_k_has_exactly_k_tokens_ties_and_all(vocab: int, top_k: int) -> None:
    logits = logits_of(5, 3, vocab).mul(2).round()
    probs = distribution(logits, [Row(Sampling(top_k=top_k), [], 0)] * 3)
    for row, found in zip(logits.tolist(), probs, strict=True):
        wanted = sorted(range(vocab), key=lambda token: (-row[token], token))[:top_k]
        assert set(found.nonzero().flatten().tolist()) == set(wanted)


@pytest.mark.parametrize("sharpness", [0.0, 0.01, 1.0, 4.0])
@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.9, 0.999])
def test_top_p_is_the_smallest_set_that_suffices(sharpness: float, top_p: float) -> None:
    logits = logits_of(6, 2, 700) * sharpness
    full = torch.softmax(logits.double(), -1)
    found = distribution(logits, [Row(Sampling(top_p=top_p), [], 0)] * 2)
    for whole, kept in zip(full, found > 0, strict=True):
        inside = whole[kept]
        assert inside.sum() >= top_p - 1e-6
        assert inside.sum() - inside.min() < top_p + 1e-6
        assert not (~kept).any() or inside.min() >= whole[~kept].max()


def test_greedy_takes_the_lowest_of_those_that_tie() -> None:
    logits = torch.zeros(2, 50)
    logits[0, [7, 9, 30]] = 2
    assert tokens_of(sample(logits, [Row(Sampling(temperature=0), [], 0)] * 2)) == [7, 0]
    assert tokens_of(sample(logits, [Row(Sampling(top_k=1, seed=seed), [], 0) for seed in (1, 2)])) == [7, 0]


@pytest.mark.parametrize("vocab", [40, 8192])
@pytest.mark.parametrize(
    "s",
    [
        Sampling(temperature=0),
        Sampling(temperature=0, logprobs=2),
        Sampling(),
        Sampling(top_k=5),
        Sampling(top_p=0.5),
        Sampling(min_p=0.1),
        Sampling(presence_penalty=1.0),
    ],
)
def test_a_row_of_no_use_harms_no_other(s: Sampling, vocab: int) -> None:
    logits = logits_of(1, 5, vocab)
    rows = [Row(replace(s, seed=i), [1, 2], 1) for i in range(5)]
    good = sample(logits, rows)
    logits[1, 30] = float("nan")
    logits[2] = float("-inf")
    logits[3, 0] = float("inf")
    drawn = sample(logits, rows)
    assert [one.fault for one in drawn] == ["", "nan", "nan", "nan", ""]
    assert [drawn[0], drawn[4]] == [good[0], good[4]]
    assert all(drawn[i].token == -1 and drawn[i].logprob is None for i in (1, 2, 3))
    assert distribution(logits, rows)[:, 0].isnan().tolist() == [False, True, True, True, False]


def test_min_tokens_holds_the_end_away_until_then() -> None:
    logits = torch.zeros(1, 8)
    logits[0, 1] = 50
    s = Sampling(temperature=0, min_tokens=3, hold_ids=frozenset({1}))
    found = [tokens_of(sample(logits, [Row(s, [5] * (4 + n), 4)]))[0] for n in range(5)]
    assert found == [0, 0, 0, 1, 1]


def test_a_grammar_that_has_ended_wins_over_min_tokens() -> None:
    s = Sampling(temperature=0, min_tokens=3, hold_ids=frozenset({1}))
    assert tokens_of(sample(torch.zeros(1, 8), [Row(s, [5], 1, FakeMatcher({1}))])) == [1]


def test_draft_tokens_count_as_the_answer() -> None:
    s = CASES["everything"]
    matcher = FakeMatcher(ALLOWED)
    split = Row(s, TOKENS[:6], PROMPT, matcher, draft=(5, 3))
    whole = Row(s, [*TOKENS[:6], 5, 3], PROMPT, matcher)
    logits = logits_of(4)
    assert (distribution(logits, [split]) == distribution(logits, [whole])).all()
    assert sample(logits, [split]) == sample(logits, [whole])
    assert matcher.taken == []


def test_counts_kept_between_steps_are_those_counted_anew() -> None:
    tokens = list(TOKENS)
    kept = Row(CASES["penalties"], tokens, PROMPT)
    for step in range(100):
        logits = logits_of(step, 1, 200)
        anew = Row(CASES["penalties"], list(tokens), PROMPT)
        assert (distribution(logits, [kept]) == distribution(logits, [anew])).all()
        tokens.append((step * 37) % 200)


def test_logprobs_are_raw_and_ranked() -> None:
    logits = logits_of(9, 2, 50)
    s = Sampling(temperature=0, logprobs=4, logit_bias=((11, 1000.0),))
    biased, chosen_only = sample(logits, [Row(s, [], 0), Row(Sampling(seed=4, logprobs=0), [], 0)])
    raw = torch.log_softmax(logits.double(), -1).numpy()
    assert biased.logprob is not None
    assert biased.token == biased.logprob.token == 11
    assert biased.logprob.logprob == pytest.approx(raw[0, 11], abs=1e-5)
    assert [token for token, _ in biased.logprob.top] == np.argsort(-raw[0])[:4].tolist()
    assert [value for _, value in biased.logprob.top] == pytest.approx(np.sort(-raw[0])[:4] * -1, abs=1e-5)
    assert chosen_only.logprob is not None
    assert chosen_only.logprob.top == ()


def test_prompt_logprobs() -> None:
    logits = logits_of(9, 3, 50)
    raw = torch.log_softmax(logits.double(), -1)
    found = prompt_logprobs(logits, [4, 0, 49], 2)
    assert [one.logprob for one in found] == pytest.approx(
        [float(raw[i, t]) for i, t in enumerate([4, 0, 49])], abs=1e-5
    )
    assert [len(one.top) for one in found] == [2, 2, 2]
    assert found[1].top[0][0] == int(raw[1].argmax())
    assert prompt_logprobs(logits[:0], [], 2) == []
