"""Whatever happens around it, an answer is the one that the request would get alone, and no page is lost."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redline.runtime.request import Finish, Request

from .fake import VOCAB, Drive, Heard, alone, limits, next_token


def prompts(rng: random.Random) -> list[int]:
    """Short texts with few beginnings, so that prefixes are shared."""
    stem = [[1, 2, 3, 4] * 5, [7] * 11, [9, 8] * 6][rng.randrange(3)]
    return stem[: rng.randint(1, len(stem))] + [rng.randrange(VOCAB) for _ in range(rng.randint(0, 6))]


def guess(rng: random.Random, drive: Drive, most: int) -> None:
    for request in drive.scheduler.draftable(most):
        if rng.random() < 0.7:
            history = list(request.tokens)
            for _ in range(rng.randint(1, most)):
                history.append(next_token(history) if rng.random() < 0.7 else rng.randrange(VOCAB))
            request.draft = history[len(request.tokens) :]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 1 << 30),
    pages=st.integers(14, 40),
    page_size=st.sampled_from([1, 2, 4, 8]),
    max_seqs=st.integers(1, 6),
    budget=st.integers(1, 24),
    run_ahead=st.integers(0, 2),
    caching=st.booleans(),
    drafts=st.booleans(),
)
def test_answers_and_pages(
    seed: int, pages: int, page_size: int, max_seqs: int, budget: int, run_ahead: int, caching: bool, drafts: bool
) -> None:
    rng = random.Random(seed)
    room = limits(
        pages=-(-pages * 3 // page_size) + 1, page_size=page_size, max_seqs=max_seqs, max_batched_tokens=budget,
        max_model_len=41,
    )  # fmt: skip
    drive = Drive(room, run_ahead=run_ahead, prefix_caching=caching)
    asked: list[tuple[list[int], Request, Heard]] = []
    while len(asked) < 14 or drive.scheduler.unfinished:
        if len(asked) < 14 and rng.random() < 0.4:
            prompt = prompts(rng)
            asked.append(
                (
                    prompt,
                    *drive.add(
                        prompt,
                        priority=rng.randrange(2),
                        max_tokens=rng.randint(1, 25),
                        min_tokens=rng.randrange(4),
                        stop_ids=frozenset({3, 5} if rng.random() < 0.5 else ()),
                        repetition_penalty=rng.choice([1.0, 1.0, 1.2]),
                    ),
                )
            )
        if asked and rng.random() < 0.03:
            drive.abort(rng.choice(asked)[1])
        if drafts:
            guess(rng, drive, 3)
        drive.turn()
    drive.finish()
    for prompt, request, heard in asked:
        want, finish = alone(prompt, request.sampling, room.max_model_len)
        if heard.finish is Finish.ABORT:
            assert heard.tokens == want[: len(heard.tokens)]
        else:
            assert (heard.tokens, heard.finish, heard.error) == (want, finish, "")
    drive.check_empty()
    if not caching:
        assert drive.scheduler.counters.prefix_hits == 0
        assert drive.scheduler.roster.pool.kept == 0


@pytest.mark.parametrize("run_ahead", [0, 1])
def test_very_many_short_requests_leave_nothing(run_ahead: int) -> None:
    drive = Drive(limits(pages=40, max_seqs=64, max_batched_tokens=256), run_ahead=run_ahead, checked=False)
    rng = random.Random(1)
    ended = 0
    for _ in range(50_000 // 50):
        batch = [
            drive.add([rng.randrange(4), rng.randrange(4)] * 2, max_tokens=1 + rng.randrange(2)) for _ in range(50)
        ]
        drive.abort(batch[-1][0])
        drive.finish()
        ended += sum(heard.finish is not None for _, heard in batch)
        drive.runner.steps.clear()
        drive.runner.released.clear()
    assert ended == 50_000
    drive.check_empty()
