"""Who gets which tokens: order, budgets, pages, ends. Every step also goes through the checking runner."""

from __future__ import annotations

from itertools import pairwise

import pytest

from redline.runtime.pages import PagePool
from redline.runtime.request import Finish, Request, Status, TokenLogprob
from redline.runtime.scheduler import RequestRefused
from redline.runtime.step import Step

from .fake import Drive, Heard, alone, ask, limits, next_token

LONG = [i % 13 for i in range(50)]


def plan(step: Step | None) -> list[tuple[str, int, int, bool]]:
    assert step is not None
    return [(chunk.request.id, chunk.start, chunk.length, chunk.samples) for chunk in step.chunks]


def steps_of(drive: Drive, request: Request) -> list[tuple[int, int]]:
    return [
        (chunk.start, chunk.length) for step in drive.runner.steps for chunk in step.chunks if chunk.request is request
    ]


@pytest.mark.parametrize("budget", [1, 3, 7, 32, 100])
def test_in_chunks_or_whole_the_answer_is_the_same(budget: int) -> None:
    drive = Drive(limits(max_batched_tokens=budget))
    request, heard = drive.add(LONG, max_tokens=9)
    drive.finish()
    assert heard.tokens == alone(LONG, request.sampling)[0]
    assert steps_of(drive, request)[0] == (0, min(budget, 50))
    drive.check_empty()


def test_decodes_come_first_and_prompts_share_what_is_left() -> None:
    drive = Drive(limits(max_batched_tokens=16), prefix_caching=False)
    drive.add([1, 2, 3], id="a", max_tokens=50)
    drive.turn()
    drive.add(LONG[:20], id="b")
    drive.add(LONG[:20], id="c")
    drive.add([5], id="d")
    assert plan(drive.scheduler.schedule()) == [("a", 3, 1, True), ("b", 0, 15, False)]
    drive.turn()
    assert plan(drive.scheduler.schedule()) == [("a", 4, 1, True), ("b", 15, 5, True), ("c", 0, 10, False)]


def test_everyone_who_decodes_gets_a_token_each_step() -> None:
    drive = Drive(limits(max_seqs=8, max_batched_tokens=5))
    asked = [drive.add([i + 1] * 5, max_tokens=12) for i in range(8)]
    drive.finish()
    assert max(len(step.chunks) for step in drive.runner.steps) <= 5
    for request, heard in asked:
        starts = [start for start, _ in steps_of(drive, request)]
        assert starts == sorted(starts)
        assert heard.tokens == alone([request.tokens[0]] * 5, request.sampling)[0]


def test_priority_decides_who_comes_in_then_arrival() -> None:
    drive = Drive(limits(max_seqs=1))
    asked = {
        name: drive.add([1, 2], id=name, priority=priority)[1] for name, priority in (("a", 1), ("b", 0), ("c", 0))
    }
    order = []
    while drive.turn():
        order += [name for name, heard in asked.items() if heard.finish and name not in order]
    assert order == ["b", "c", "a"]


def test_a_large_request_is_not_overtaken_for_ever() -> None:
    """Small ones come all the time; the large one before them needs nearly the whole pool."""
    drive = Drive(limits(pages=17, max_seqs=4), prefix_caching=False)
    drive.add([1] * 8, max_tokens=8)
    drive.turn()
    large, heard = drive.add(LONG[:48], max_tokens=3)
    for _ in range(30):
        drive.add([2] * 8, max_tokens=8)
        drive.turn()
    assert heard.finish is Finish.LENGTH
    assert large.preempted == 0


def test_nobody_comes_in_who_would_be_preempted_at_once() -> None:
    drive = Drive(limits(pages=9, page_size=4), prefix_caching=False)
    first, _ = drive.add([1] * 16, max_tokens=12)
    drive.turn()
    second, _ = drive.add([2] * 12, max_tokens=4)
    for _ in range(4):
        drive.turn()
    assert (first.status, second.status) == (Status.RUNNING, Status.WAITING)
    drive.finish()
    assert drive.scheduler.counters.preemptions == 0


@pytest.mark.parametrize("run_ahead", [0, 1, 2])
def test_the_worst_is_preempted_and_finds_its_pages_again(run_ahead: int) -> None:
    drive = Drive(limits(pages=13, page_size=4, max_batched_tokens=64), run_ahead=run_ahead)
    asked = [drive.add([i + 1] * 12, priority=priority, max_tokens=16) for i, priority in enumerate((1, 0))]
    drive.finish()
    worst, heard = asked[0]
    assert (worst.preempted, asked[1][0].preempted) == (1, 0)
    assert heard.tokens == alone([1] * 12, worst.sampling)[0]
    again = [start for start, _ in steps_of(drive, worst)]
    assert any(b <= a and b > 0 for a, b in pairwise(again)), "it began again behind cached pages"
    assert worst.cached == 0, "what it found of its own is no prefix hit"
    drive.check_empty()


def test_a_prompt_under_way_is_not_pushed_out_by_a_worse_one() -> None:
    drive = Drive(limits(pages=13, page_size=4, max_batched_tokens=3))
    worse, heard = drive.add([1] * 3, priority=1, max_tokens=12)
    drive.turn()
    better, _ = drive.add(LONG[:36], priority=0, max_tokens=1)
    drive.finish()
    assert (better.preempted, worse.preempted) == (0, 1)
    assert heard.tokens == alone([1] * 3, worse.sampling)[0]


def test_nobody_is_preempted_while_pages_are_about_to_come_back() -> None:
    """One needs a page, none is free, one has just left with a step in flight, and the worst has nothing in flight."""
    met = 0
    for length in range(4, 12):
        for other in range(4, 24):
            drive = Drive(limits(pages=9, page_size=4), run_ahead=1, prefix_caching=False)
            needy, _ = drive.add([1] * length, max_tokens=9)
            leaver, _ = drive.add([2] * 4, max_tokens=9)
            bound, _ = drive.add([3] * other, priority=1, max_tokens=9, presence_penalty=1.0)
            while drive.scheduler.unfinished and not drive.scheduler.counters.preemptions:
                idle = bound.status is Status.RUNNING and not bound.books.in_flight
                if (
                    idle
                    and leaver.books.in_flight
                    and needy.computed >= needy.books.room
                    and not drive.scheduler.roster.pool.free
                ):
                    drive.abort(leaver)
                    met += 1
                    drive.turn()
                    drive.turn()
                    assert bound.preempted == 0
                    break
                drive.turn()
    assert met


@pytest.mark.parametrize("run_ahead", [1, 2])
def test_the_one_to_be_preempted_gets_no_more_tokens(run_ahead: int) -> None:
    drive = Drive(limits(pages=6, page_size=16, max_batched_tokens=64), run_ahead=run_ahead)
    better, _ = drive.add([1] * 12, max_tokens=60)
    worse, _ = drive.add([2] * 24, priority=1, max_tokens=50)
    drive.finish()
    assert (better.preempted, worse.preempted) == (0, 1)
    last = max(i for i, step in enumerate(drive.runner.steps) if better in {chunk.request for chunk in step.chunks})
    for step in drive.runner.steps[:last]:
        assert better in {chunk.request for chunk in step.chunks}


def test_a_page_is_offered_to_the_cache_once(monkeypatch: pytest.MonkeyPatch) -> None:
    offered: list[int] = []
    publish = PagePool.publish

    def noted(pool: PagePool, page: int, name: bytes) -> None:
        offered.append(page)
        publish(pool, page, name)

    monkeypatch.setattr(PagePool, "publish", noted)
    drive = Drive(limits(max_batched_tokens=7))
    drive.add(LONG[:18], max_tokens=15)
    drive.finish()
    assert len(offered) == len({*offered}) == 32 // 4


def test_a_prefix_that_is_computed_is_not_computed_again() -> None:
    drive = Drive(limits())
    first, _ = drive.add(LONG[:24], max_tokens=2)
    drive.turn()
    assert first.status is Status.RUNNING
    second, heard = drive.add([*LONG[:22], 40, 41, 42], max_tokens=5)
    drive.finish()
    assert second.cached == 20, "5 full pages of 4"
    assert steps_of(drive, second)[0] == (20, 5)
    assert heard.outputs[0].cached == 20
    assert heard.outputs[1].cached == 0
    assert heard.tokens == alone([*LONG[:22], 40, 41, 42], second.sampling)[0]
    counters = drive.scheduler.counters
    assert (counters.prefix_queries, counters.prefix_hits, counters.prompt_tokens) == (49, 20, 49)


@pytest.mark.parametrize("run_ahead", [0, 1])
@pytest.mark.parametrize("budget", [16, 1000])
def test_one_beginning_of_many_that_come_together_is_computed_once(budget: int, run_ahead: int) -> None:
    drive = Drive(limits(pages=200, max_batched_tokens=budget), run_ahead=run_ahead)
    asked = [drive.add([*LONG, i], max_tokens=2) for i in range(8)]
    drive.finish()
    assert [request.cached for request, _ in asked] == [0] + [48] * 7
    for i, (request, heard) in enumerate(asked):
        assert heard.tokens == alone([*LONG, i], request.sampling)[0]
    assert not drive.scheduler.roster._coming


def test_nobody_waits_for_a_beginning_that_never_comes() -> None:
    drive = Drive(limits(max_batched_tokens=8))
    leader, _ = drive.add(LONG, max_tokens=2)
    _, heard = drive.add(LONG, max_tokens=2)
    drive.turn()
    assert drive.scheduler.roster.running == 1
    drive.abort(leader)
    drive.finish()
    assert heard.finish is Finish.LENGTH


def test_a_short_common_beginning_is_no_reason_to_wait() -> None:
    drive = Drive(limits(max_batched_tokens=100))
    for i in range(3):
        drive.add([1] * 8 + [i + 2] * 20)
    drive.turn()
    assert len(drive.runner.steps[0].chunks) == 3


def test_a_hit_never_covers_the_whole_prompt() -> None:
    drive = Drive(limits())
    prompt = LONG[:16]
    for expected in (0, 12):
        request, heard = drive.add(prompt, max_tokens=3)
        drive.finish()
        assert request.cached == expected
        assert heard.tokens == alone(prompt, request.sampling)[0]


def test_the_answer_is_cached_for_the_next_turn_of_a_chat() -> None:
    drive = Drive(limits())
    _, heard = drive.add(LONG[:10], max_tokens=10)
    drive.finish()
    turn, _ = drive.add(LONG[:10] + heard.tokens + [1, 2, 3], max_tokens=1)
    drive.finish()
    assert turn.cached == 16, "19 positions were computed, the last token's was not"


def test_texts_of_another_salt_are_not_hit() -> None:
    drive = Drive(limits())
    cached = []
    for salt in (b"a", b"b", b"a"):
        request, _ = ask(LONG[:20])
        request.salt = salt
        drive.scheduler.add(request)
        drive.finish()
        cached.append(request.cached)
    assert cached == [0, 0, 16]


def test_without_the_cache_nothing_is_hit() -> None:
    drive = Drive(limits(), prefix_caching=False)
    for _ in range(2):
        request, _ = drive.add(LONG[:20])
        drive.finish()
        assert request.cached == 0
    assert drive.scheduler.counters.prefix_queries == 0


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ([], "no tokens"),
        ([1, 50], "token 50 is not in the vocabulary of 50"),
        ([-1, 1], "token -1 is not"),
        ([1] * 40, "40 tokens, and the context holds 40"),
        ([1] * 33, "33 tokens, and the KV cache holds 32"),
    ],
)
def test_what_can_never_run_is_refused_with_numbers(prompt: list[int], says: str) -> None:
    drive = Drive(limits(pages=9, page_size=4, max_model_len=40))
    with pytest.raises(RequestRefused, match=says):
        drive.add(prompt)
    assert drive.scheduler.unfinished == 0


def test_two_requests_of_one_id() -> None:
    drive = Drive(limits())
    drive.add([1], id="x")
    with pytest.raises(RequestRefused, match="'x' is here already"):
        drive.add([1], id="x")
    drive.finish()
    drive.add([1], id="x")


@pytest.mark.parametrize("run_ahead", [0, 1, 2])
def test_a_request_that_outgrows_the_pool_alone_fails_with_numbers(run_ahead: int) -> None:
    drive = Drive(limits(pages=5, page_size=4), run_ahead=run_ahead)
    _, heard = drive.add([1, 2, 3], max_tokens=100)
    other, fine = drive.add([4], max_tokens=3)
    drive.finish()
    assert heard.finish is Finish.ERROR
    assert "it has 17 tokens, and 4 pages of 4 hold 16" in heard.error
    assert heard.tokens == alone([1, 2, 3], ask([1], max_tokens=14)[0].sampling)[0]
    assert fine.tokens == alone([4], other.sampling)[0]
    assert drive.scheduler.counters.failed == 1
    drive.check_empty()


@pytest.mark.parametrize("run_ahead", [0, 1, 2])
@pytest.mark.parametrize(
    ("options", "length"), [({"max_tokens": 7}, 7), ({"max_tokens": 99}, 10), ({"max_tokens": 1}, 1)]
)
def test_length_ends_an_answer_and_nothing_is_computed_past_it(
    options: dict[str, int], length: int, run_ahead: int
) -> None:
    drive = Drive(limits(max_model_len=15), run_ahead=run_ahead)
    request, heard = drive.add(LONG[:5], **options)
    drive.finish()
    assert (len(heard.tokens), heard.finish) == (length, Finish.LENGTH)
    assert sum(length for _, length in steps_of(drive, request)) == 5 + length - 1
    assert drive.scheduler.counters.wasted_tokens == 0


def test_no_tokens_wanted_is_an_answer_of_none() -> None:
    drive = Drive(limits())
    _, heard = drive.add([1, 2], max_tokens=0, prompt_logprobs=0)
    drive.finish()
    assert (heard.tokens, heard.finish) == ([], Finish.LENGTH)
    assert heard.outputs[0].prompt_logprobs == (None, TokenLogprob(2, -2.0, ()))


@pytest.mark.parametrize("run_ahead", [0, 1, 2])
def test_a_stop_token_ends_it_and_costs_what_ran_ahead(run_ahead: int) -> None:
    want, _ = alone(LONG[:5], ask([1], max_tokens=30)[0].sampling)
    stop = want[6]
    at = want.index(stop)
    drive = Drive(limits(), run_ahead=run_ahead)
    _, heard = drive.add(LONG[:5], max_tokens=30, stop_ids=frozenset({stop}))
    drive.finish()
    assert (heard.tokens, heard.finish) == (want[: at + 1], Finish.STOP)
    assert drive.scheduler.counters.wasted_tokens == run_ahead
    drive.check_empty()


def test_a_stop_token_before_min_tokens_does_not_end_it() -> None:
    want, _ = alone(LONG[:5], ask([1], max_tokens=30)[0].sampling)
    drive = Drive(limits())
    _, heard = drive.add(LONG[:5], max_tokens=30, min_tokens=4, stop_ids=frozenset(want[:8]))
    drive.finish()
    assert (heard.tokens, heard.finish) == (want[:4], Finish.STOP)


def test_those_who_wait_for_the_host_sit_out_and_the_others_go_on() -> None:
    drive = Drive(limits(), run_ahead=1)
    drive.add([1, 2], id="plain", max_tokens=9)
    drive.add([1, 2, 3], id="bound", max_tokens=9, presence_penalty=0.5)
    drive.finish()
    both = [[chunk.request.id for chunk in step.chunks] for step in drive.runner.steps]
    assert both[:4] == [["plain", "bound"], ["plain"], ["plain", "bound"], ["plain"]]
    assert drive.runner.pending_seen == 1


@pytest.mark.parametrize("run_ahead", [1, 2])
def test_an_abort_keeps_pages_until_the_last_step_is_collected(run_ahead: int) -> None:
    drive = Drive(limits(), run_ahead=run_ahead)
    request, heard = drive.add(LONG[:9], max_tokens=50)
    for _ in range(4):
        drive.turn()
    assert len(drive.in_flight) == run_ahead
    pool = drive.scheduler.roster.pool
    drive.abort(request)
    assert heard.finish is Finish.ABORT
    assert pool.free < pool.usable
    assert not drive.runner.released
    drive.finish()
    assert drive.runner.released == [request]
    assert drive.scheduler.counters.wasted_tokens == run_ahead
    drive.check_empty()


def test_an_abort_of_one_that_waits() -> None:
    drive = Drive(limits(max_seqs=1))
    drive.add([1], max_tokens=5)
    waiting, heard = drive.add([2], max_tokens=5)
    drive.turn()
    drive.abort(waiting)
    drive.abort(waiting)
    assert heard.finish is Finish.ABORT
    drive.finish()
    assert waiting not in drive.runner.released, "it never had a row"
    assert drive.scheduler.counters.aborted == 1
    drive.check_empty()


@pytest.mark.parametrize("run_ahead", [0, 1])
def test_not_a_number_ends_that_request_and_its_pages_are_hit_by_nobody(run_ahead: int) -> None:
    drive = Drive(limits(max_batched_tokens=14), run_ahead=run_ahead)
    drive.runner.nan.add("bad")
    _, bad = drive.add(LONG[:20], id="bad", max_tokens=5)
    good, heard = drive.add([3, 4], max_tokens=5)
    drive.finish()
    assert (bad.tokens, bad.finish) == ([], Finish.ERROR)
    assert "not finite (nan)" in bad.error
    assert heard.tokens == alone([3, 4], good.sampling)[0]
    after, _ = drive.add(LONG[:20])
    drive.finish()
    assert after.cached == 0
    assert drive.scheduler.counters.faults == 1
    drive.check_empty()


def test_a_step_that_does_not_fit_is_made_smaller() -> None:
    drive = Drive(limits(max_batched_tokens=64))
    drive.runner.memory = 5
    asked = [drive.add([i + 1] * 9, max_tokens=6) for i in range(7)]
    drive.finish()
    scheduler = drive.scheduler
    assert scheduler.counters.out_of_memory > 0
    assert scheduler.max_batched_tokens <= 5
    assert max(len(step.chunks) for step in drive.runner.steps) <= 5
    for i, (request, heard) in enumerate(asked):
        assert heard.tokens == alone([i + 1] * 9, request.sampling)[0]
    drive.check_empty()


def test_when_running_requests_do_not_fit_any_more_the_worst_go_back() -> None:
    drive = Drive(limits(max_batched_tokens=64))
    asked = [drive.add([i + 1] * 3, max_tokens=12) for i in range(8)]
    for _ in range(3):
        drive.turn()
    drive.runner.memory = 3
    for _ in range(3):  # 8 do not fit, 4 do not, 2 do
        drive.turn()
    assert drive.scheduler.roster.running == drive.scheduler.roster.max_seqs == 2
    drive.finish()
    for i, (request, heard) in enumerate(asked):
        assert heard.tokens == alone([i + 1] * 3, request.sampling)[0]


def test_when_not_even_one_token_fits_its_request_fails() -> None:
    drive = Drive(limits())
    drive.runner.memory = 0
    _, heard = drive.add([1, 2, 3])
    drive.finish()
    assert heard.finish is Finish.ERROR
    assert "out of memory" in heard.error
    drive.check_empty()


def drafted(drive: Drive, request: Request, right: int, wrong: int) -> None:
    history = list(request.tokens)
    for _ in range(right):
        history.append(next_token(history))
    history += [(next_token(history) + 1) % 50] * wrong
    request.draft = history[len(request.tokens) :]


def test_a_draft_is_verified_and_counted_by_place() -> None:
    drive = Drive(limits())
    request, heard = drive.add(LONG[:5], max_tokens=12)
    drive.turn()
    for right, wrong in ((3, 0), (1, 2), (0, 2)):
        assert drive.scheduler.draftable(3) == [request]
        drafted(drive, request, right, wrong)
        drive.turn()
        assert len(heard.outputs[-1].tokens) == right + 1
        assert (request.draft, request.pending) == ([], 0)
        assert request.computed == len(request.tokens) - 1
    drive.finish()
    assert heard.tokens == alone(LONG[:5], request.sampling)[0]
    counters = drive.scheduler.counters
    assert (counters.spec_proposed, counters.spec_accepted) == (8, [2, 1, 1])


def test_a_draft_is_no_longer_than_the_answer_may_be() -> None:
    drive = Drive(limits())
    request, heard = drive.add(LONG[:5], max_tokens=3)
    drive.turn()
    drafted(drive, request, 6, 0)
    drive.turn()
    assert steps_of(drive, request)[-1] == (5, 2)
    assert heard.finish is Finish.LENGTH
    assert drive.scheduler.counters.wasted_tokens == 0


def test_a_stop_inside_a_draft_ends_it_there() -> None:
    want, _ = alone(LONG[:5], ask([1], max_tokens=30)[0].sampling)
    stop = want[2]
    assert stop not in want[:2]
    drive = Drive(limits())
    request, heard = drive.add(LONG[:5], max_tokens=30, stop_ids=frozenset({stop}), logprobs=0)
    drive.turn()
    drafted(drive, request, 4, 0)
    drive.turn()
    assert (heard.tokens, heard.finish) == (want[:3], Finish.STOP)
    assert [entry.token for entry in heard.outputs[-1].logprobs] == want[1:3]
    assert drive.scheduler.counters.wasted_tokens == 3


def test_drafts_take_no_token_from_others_and_preempt_nobody() -> None:
    drive = Drive(limits(pages=8, page_size=4, max_batched_tokens=6))
    asked = [drive.add([i + 1] * 4, max_tokens=7) for i in range(3)]
    for _ in range(3):
        drive.turn()
    for request, _ in asked:
        drafted(drive, request, 4, 0)
    step = drive.scheduler.schedule()
    assert step is not None
    assert {chunk.request for chunk in step.chunks} == {request for request, _ in asked}
    drive.finish()
    assert drive.scheduler.counters.preemptions == 0
    for i, (request, heard) in enumerate(asked):
        assert heard.tokens == alone([i + 1] * 4, request.sampling)[0]


def test_guesses_that_were_wrong_leave_no_wrong_names() -> None:
    drive = Drive(limits())
    request, heard = drive.add(LONG[:5], max_tokens=14)
    drive.turn()
    while request.status is Status.RUNNING:
        drafted(drive, request, 1, 5)
        drive.turn()
    again, _ = drive.add(LONG[:5] + heard.tokens + [1], max_tokens=1)
    drive.finish()
    assert again.cached == 16, "18 positions were computed"


def test_drafts_leave_prompts_their_part_of_a_step() -> None:
    drive = Drive(limits(max_batched_tokens=16, pages=200))
    asked = [drive.add([i + 1] * 3, max_tokens=30) for i in range(3)]
    drive.turn()
    prompt, _ = drive.add(LONG, max_tokens=1)
    for request, _ in asked:
        drafted(drive, request, 7, 0)
    drive.turn()
    assert steps_of(drive, prompt) == [(0, 16 - 3 - 6)]


class Letters:
    """A grammar that ends after some tokens, or breaks at one."""

    def __init__(self, length: int, breaks_at: int = -1) -> None:
        self.length = length
        self.breaks_at = breaks_at
        self.seen: list[int] = []

    def advance(self, token: int) -> None:
        if len(self.seen) == self.breaks_at:
            raise ValueError("not allowed here")
        self.seen.append(token)

    def finished(self) -> bool:
        return len(self.seen) == self.length

    def fill(self, words: memoryview) -> None:
        raise NotImplementedError


def guided(drive: Drive, matcher: Letters) -> tuple[Request, Heard]:
    request, heard = ask(LONG[:5], max_tokens=20)
    request.matcher = matcher
    drive.scheduler.add(request)
    return request, heard


@pytest.mark.parametrize("run_ahead", [0, 1])
def test_a_grammar_sees_every_token_and_ends_the_answer(run_ahead: int) -> None:
    drive = Drive(limits(), run_ahead=run_ahead)
    matcher = Letters(4)
    request, heard = guided(drive, matcher)
    drive.finish()
    assert matcher.seen == heard.tokens == alone(LONG[:5], request.sampling)[0][:4]
    assert heard.finish is Finish.STOP
    assert drive.runner.pending_seen == 0


def test_a_grammar_that_breaks_ends_its_own_request() -> None:
    drive = Drive(limits())
    _, heard = guided(drive, Letters(9, breaks_at=2))
    other, fine = drive.add([7], max_tokens=4)
    drive.finish()
    assert heard.finish is Finish.ERROR
    assert "not allowed here" in heard.error
    assert fine.tokens == alone([7], other.sampling)[0]


@pytest.mark.parametrize("budget", [4, 100])
def test_prompt_logprobs_are_gathered_over_chunks_and_need_no_cache(budget: int) -> None:
    drive = Drive(limits(max_batched_tokens=budget))
    drive.add(LONG[:10])
    drive.finish()
    request, heard = drive.add(LONG[:10], prompt_logprobs=0, max_tokens=3)
    drive.finish()
    told = heard.outputs[0].prompt_logprobs
    assert told is not None
    assert [entry and entry.token for entry in told] == [None, *LONG[1:10]]
    assert heard.outputs[1].prompt_logprobs is None
    assert request.cached == 0


def test_times_are_noted_once() -> None:
    drive = Drive(limits(pages=13, page_size=4, max_batched_tokens=64))
    asked = [drive.add([i + 1] * 12, priority=1 - i, max_tokens=16) for i in range(3)]
    drive.turn()
    drive.turn()
    times = [(request.scheduled_ns, request.first_token_ns) for request, _ in asked]
    assert all(0 < scheduled <= first for scheduled, first in times)
    drive.finish()
    assert drive.scheduler.counters.preemptions
    assert times == [(request.scheduled_ns, request.first_token_ns) for request, _ in asked]
