from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redline.load.answer import Answer, Chunk
from redline.load.counting import apportion, resolve_chunks
from redline.load.record import TokenSource


@given(st.integers(0, 500), st.lists(st.integers(0, 50), min_size=1, max_size=30))
def test_apportion_gives_everything_away_fairly(total: int, weights: list[int]) -> None:
    shares = apportion(total, weights)
    assert sum(shares) == total
    assert min(shares) >= (1 if total >= len(weights) else 0)
    for i, a in enumerate(weights):
        for j, b in enumerate(weights):
            assert not (a > b and shares[i] < shares[j] - 1), (weights, shares, i, j)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30))
def test_apportion_of_the_exact_sum_is_exact(weights: list[int]) -> None:
    assert apportion(sum(weights), weights) == weights


def answer(texts: list[str], total: int = -1, so_far: list[int] | None = None, last: bool = True) -> Answer:
    usage = so_far or [-1] * len(texts)
    chunks = [Chunk(i, text, tokens_so_far=n) for i, (text, n) in enumerate(zip(texts, usage, strict=True))]
    if chunks and last:
        chunks[-1].last = True
    return Answer(chunks=chunks, completion_tokens=total)


def counts(found: Answer, **how: object) -> tuple[list[int], list[int], int, TokenSource]:
    chunks, tokens, total, source = resolve_chunks(found, **how)  # type: ignore[arg-type]
    return [chunk.at_ns for chunk in chunks], tokens, total, source


def words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        # usage on every event: exact, whatever the texts look like
        (answer([" a", " bcd", " e"], 6, [1, 4, 6]), ([0, 1, 2], [1, 3, 2], 6, TokenSource.USAGE)),
        # … an event without text that carried tokens is a chunk, one that carried none is not
        (answer([" a", "", ""], 2, [1, 2, 2]), ([0, 1], [1, 1], 2, TokenSource.USAGE)),
        # … what only the total knows of came last
        (answer([" a", " b"], 3, [1, 2]), ([0, 1], [1, 2], 3, TokenSource.USAGE)),
        # one total: the numbers agree
        (answer([" a", " b", ""], 2), ([0, 1], [1, 1], 2, TokenSource.USAGE)),
        # … the finishing event was the end-of-sequence token
        (answer([" a", " b", ""], 3), ([0, 1, 2], [1, 1, 1], 3, TokenSource.USAGE)),
        # … an event in the middle printed nothing, and the finishing one was no token
        (answer([" a", "", " b", ""], 3), ([0, 1, 2], [1, 1, 1], 3, TokenSource.USAGE)),
        # … several tokens per chunk, by the length of the text
        (answer([" aa", " aaaa", ""], 6), ([0, 1], [2, 4], 6, TokenSource.USAGE)),
        # no usage at all
        (answer([" a", " b", ""]), ([0, 1], [1, 1], 2, TokenSource.CHUNKS)),
        (answer([]), ([], [], 0, TokenSource.NONE)),
        (answer([], 0), ([], [], 0, TokenSource.USAGE)),
        # usage that denies visible text is not believed
        (answer([" a", " b"], 0), ([0, 1], [1, 1], 2, TokenSource.CHUNKS)),
    ],
)
def test_known_answers(found: Answer, expected: tuple[list[int], list[int], int, TokenSource]) -> None:
    assert counts(found) == expected


def test_a_tokenizer_splits_a_total_and_makes_up_for_missing_usage() -> None:
    texts = [" a b c", " dddddddddddd", ""]
    assert counts(answer(texts, 4), count=words)[1] == [3, 1]
    assert counts(answer(texts), count=words) == ([0, 1], [3, 1], 4, TokenSource.TOKENIZER)


@given(st.lists(st.sampled_from(["", " a", " bcd"]), max_size=12), st.integers(-1, 40))
def test_the_counts_always_sum_up(texts: list[str], total: int) -> None:
    at, tokens, output, _ = counts(answer(texts, total))
    assert len(at) == len(tokens)
    assert min(tokens, default=0) >= 0
    if tokens:
        assert sum(tokens) == output
