from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from redline.runtime.ngram import NgramIndex, NgramProposer
from redline.runtime.request import Request, Sampling
from tests.runtime.test_sampler import FakeMatcher


def brute(tokens: list[int], shortest: int, longest: int, most: int) -> list[int]:
    """Looks everywhere, from the end."""
    for length in range(longest, shortest - 1, -1):
        if length >= len(tokens):
            continue
        for place in range(len(tokens) - 1, length - 1, -1):
            if tokens[place - length : place] == tokens[len(tokens) - length :]:
                text = list(tokens)
                for i in range(most):
                    text.append(text[place + i])
                return text[len(tokens) :]
    return []


def request(tokens: list[int], sampling: Sampling | None = None, matcher: FakeMatcher | None = None) -> Request:
    return Request("r", tokens, sampling or Sampling(max_tokens=100), lambda _: None, matcher=matcher)


@given(
    st.lists(st.integers(0, 3), max_size=60),
    st.lists(st.integers(1, 6), min_size=1, max_size=20),
    st.integers(1, 3),
    st.integers(0, 3),
    st.integers(0, 6),
)
def test_against_brute_force(tokens: list[int], steps: list[int], shortest: int, more: int, most: int) -> None:
    index, known = NgramIndex(shortest, shortest + more), 0
    for step in steps:
        known = min(known + step, len(tokens))
        index.update(tokens[:known])
        assert index.guess(tokens[:known], most) == brute(tokens[:known], shortest, shortest + more, most)


def test_a_period_goes_on() -> None:
    index = NgramIndex(2, 3)
    tokens = [9, 1, 2, 3, 1, 2, 3, 1, 2]
    index.update(tokens)
    assert index.guess(tokens, 7) == [3, 1, 2, 3, 1, 2, 3]


def test_a_step_costs_its_new_tokens_only() -> None:
    class Counted(list[int]):
        reads = 0

        def __getitem__(self, at):  # type: ignore[no-untyped-def]
            Counted.reads += 1
            return super().__getitem__(at)

    costs = []
    for size in (100, 10_000):
        tokens = Counted(i * i % 1009 for i in range(size))
        index = NgramIndex(2, 4)
        index.update(tokens)
        tokens.append(5)
        Counted.reads = 0
        index.update(tokens)
        index.guess(tokens, 4)
        costs.append(Counted.reads)
    assert costs[0] == costs[1] < 20


def test_a_draft_leaves_room_for_the_token_after_it_and_stops_at_an_end() -> None:
    proposer = NgramProposer()
    tokens = [1, 2, 3, 4, 5, 6, 1, 2]
    for sampling, wanted in [
        (Sampling(max_tokens=100), [3, 4, 5, 6]),
        (Sampling(max_tokens=3), [3, 4]),
        (Sampling(max_tokens=1), []),
        (Sampling(max_tokens=100, stop_ids=frozenset({4})), [3, 4]),
    ]:
        one = request(list(tokens), sampling)
        proposer.propose([one], 4)
        assert one.draft == wanted
        proposer.release(one)


def test_what_the_grammar_forbids_is_not_guessed() -> None:
    one = request([1, 2, 3, 4, 5, 6, 1, 2], matcher=FakeMatcher({3, 4}))
    NgramProposer().propose([one], 4)
    assert one.draft == [3, 4]


def test_no_guess_replaces_an_old_one() -> None:
    one = request([1, 2, 3])
    one.draft = [7]
    NgramProposer().propose([one], 4)
    assert one.draft == []


def test_a_released_request_is_forgotten() -> None:
    proposer = NgramProposer()
    one = request([1, 2, 3, 1, 2])
    proposer.propose([one], 4)
    proposer.release(one)
    proposer.release(one)
    other = request([8, 9, 1, 2])
    proposer.propose([other], 4)
    assert other.draft == []
