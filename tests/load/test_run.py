from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from redline.errors import EnvironmentFault
from redline.load import limits
from redline.load.arrivals import schedule
from redline.load.paced.pace import FAULTS, Pace
from redline.load.paced.server import PacedServer
from redline.load.prompts import prompt_source
from redline.load.record import RequestRecord, Status, TokenSource
from redline.spec.load import LoadPoint
from tests.load.servers import closed, fast, push, workload


@pytest.fixture(scope="module")
def server() -> Iterator[PacedServer]:
    with PacedServer(fast()) as made:
        yield made


def test_a_closed_loop_sends_what_was_asked(server: PacedServer) -> None:
    result = push(server, closed(5), requests=40, warmup_requests=3)
    outcome = result.outcome
    assert (outcome.stopped_by, outcome.planned, outcome.sent) == ("requests", 40, 40)
    assert [record.index for record in result.records if record.warmup] == [0, 1, 2]
    assert sorted(record.index for record in result.measured) == list(range(3, 43))
    assert result.count(Status.OK) == 40
    for record in result.measured:
        assert record.intended_ns <= record.sent_ns <= record.chunk_ns[0] <= record.chunk_ns[-1] <= record.finished_ns
        assert (record.prompt_tokens, record.asked_prompt_tokens) == (32, 32)
        assert (record.output_tokens, record.asked_output_tokens) == (8, 8)
        assert record.token_source is TokenSource.USAGE
        assert outcome.measured_from_ns <= record.intended_ns
        assert record.finished_ns <= outcome.ended_ns
    assert max(record.finished_ns for record in result.records if record.warmup) < outcome.measured_from_ns
    assert (outcome.prompts_off, outcome.starved, outcome.retried) == (0, 0, 0)
    assert outcome.client_cpu_s < 2
    assert result.progress[-1].planned == 40


def test_a_client_goes_on_the_instant_it_is_free(server: PacedServer) -> None:
    result = push(server, closed(1), requests=20, stamps="kernel")
    for before, after in itertools.pairwise(result.measured):
        assert after.intended_ns == before.finished_ns
        assert (before.connected_ns == 0) == (before.index > 0 or not before.warmup)
    in_flight = [(r.intended_ns, 1) for r in result.measured] + [(r.finished_ns, -1) for r in result.measured]
    running, most = 0, 0
    for _, step in sorted(in_flight, key=lambda pair: (pair[0], pair[1])):
        running += step
        most = max(most, running)
    assert most == 1


def test_a_ramp_spreads_the_first_requests(server: PacedServer) -> None:
    result = push(server, closed(4), requests=60, ramp_s=0.4)
    first = sorted(result.measured, key=lambda record: record.index)[0]
    assert first.intended_ns == result.outcome.measured_from_ns
    begun = {record.intended_ns - first.intended_ns for record in result.measured}
    assert {0, 100_000_000, 200_000_000, 300_000_000} <= begun


@pytest.mark.parametrize("kind", ["constant", "poisson"])
def test_an_open_loop_keeps_its_schedule(server: PacedServer, kind: str) -> None:
    point = LoadPoint(kind, 60)  # type: ignore[arg-type]
    result = push(server, point, duration_s=1.0, seed=5)
    offsets = schedule(point, seed=5, duration_s=1.0)
    by_index = sorted(result.measured, key=lambda record: record.index)
    assert [record.intended_ns - result.outcome.measured_from_ns for record in by_index] == offsets
    assert result.outcome.planned == len(offsets) == result.outcome.sent
    assert (result.outcome.stopped_by, result.count(Status.OK)) == ("duration", len(offsets))


def test_a_late_send_does_not_move_the_next() -> None:
    """A server slower than the rate: everything is sent on time all the same, and nothing is capped."""
    with PacedServer(Pace(ttft_ms=500, itl_ms=1)) as slow:
        result = push(slow, LoadPoint("constant", 100), duration_s=0.3, drain_s=3)
    lags = [record.sent_ns - record.intended_ns for record in result.measured]
    assert len(lags) == 30
    assert sorted(lags)[15] < 20_000_000  # the median left on time, with up to 30 in flight
    assert max(record.intended_ns for record in result.measured) < min(record.finished_ns for record in result.measured)


def test_time_ends_a_point_and_what_hangs_is_cancelled_not_failed() -> None:
    with PacedServer(Pace(ttft_ms=20, itl_ms=100)) as slow:
        began = time.monotonic()
        result = push(slow, closed(3), duration_s=0.4, drain_s=0.2, warmup_requests=1, work=workload())
        took = time.monotonic() - began
    assert result.outcome.stopped_by == "duration"
    assert result.count(Status.CANCELLED) == 3
    assert not any(record.failed for record in result.records)
    assert all(record.chunk_ns for record in result.measured)  # what came before the cut is kept
    assert took < 8


def test_the_drain_lets_slow_ones_finish() -> None:
    with PacedServer(Pace(ttft_ms=20, itl_ms=40)) as slow:
        result = push(slow, closed(2), duration_s=0.4, drain_s=5)
    assert result.outcome.stopped_by == "duration"
    assert {record.status for record in result.measured} == {Status.OK}


def test_stopping_by_hand_is_quick_and_keeps_everything() -> None:
    with PacedServer(Pace(ttft_ms=20, itl_ms=50)) as slow:
        measured: list[RequestRecord] = []
        stop_at: list[float] = []

        def enough() -> bool:
            if len(measured) >= 6 and not stop_at:
                stop_at.append(time.monotonic())
            return bool(stop_at)

        def keep(record: RequestRecord) -> None:
            if not record.warmup:
                measured.append(record)

        result = push(slow, closed(4), on_record=keep, should_stop=enough, duration_s=60, drain_s=30)
        took = time.monotonic() - stop_at[0]
    assert result.outcome.stopped_by == "interrupted"
    assert took < 15.0  # and not the thirty seconds of the drain
    assert 1 <= result.count(Status.CANCELLED) <= 4
    assert result.outcome.sent == len(result.measured)


def test_stopping_during_the_warm_up() -> None:
    with PacedServer(Pace(ttft_ms=20, itl_ms=500)) as slow:
        stop_at = time.monotonic() + 1.0
        result = push(slow, closed(2), should_stop=lambda: time.monotonic() > stop_at, warmup_requests=50)
    assert result.outcome.stopped_by == "interrupted"
    assert result.measured == []
    assert result.outcome.sent == 0


def test_an_engine_that_dies_ends_the_point_and_costs_nothing_measured() -> None:
    with PacedServer(fast(die_after=30)) as mortal:
        began = time.monotonic()
        result = push(mortal, closed(4), duration_s=30, alive=lambda: mortal.alive)
        took = time.monotonic() - began
    assert result.outcome.stopped_by == "engine-died"
    assert took < 10
    assert result.count(Status.OK) >= 20
    assert result.count(Status.RESET) >= 1
    assert all(record.error for record in result.measured if record.failed)


def test_an_engine_that_dies_before_it_is_looked_after_has_died() -> None:
    """The few requests that are left are refused, and the point is over, in less time than passes between two looks."""
    with PacedServer(fast(die_after=4)) as mortal:
        result = push(mortal, closed(1), requests=6, alive=lambda: mortal.alive)
    assert result.outcome.stopped_by == "engine-died"
    # all six where nobody looked in between, which a busy box may
    assert result.count(Status.OK) == 1
    assert 2 <= len(result.measured) <= 6


def test_an_engine_that_nobody_watches_is_found_dead_by_its_refusals() -> None:
    with PacedServer(fast(die_after=10)) as mortal:
        result = push(mortal, closed(4), duration_s=30)
    assert result.outcome.stopped_by == "engine-died"
    assert result.count(Status.CONNECT) >= 8
    assert "connection refused" in {record.error for record in result.measured if record.status is Status.CONNECT}


def test_nothing_but_failures_ends_the_point_early() -> None:
    with PacedServer(fast(faults={"http-500": 1})) as broken:
        result = push(broken, closed(4), duration_s=60)
    assert result.outcome.stopped_by == "failing"
    failed = [record for record in result.measured if record.failed]
    assert {record.error for record in failed} == {"HTTP 500: planted failure"}
    assert 50 <= len(failed) < 100
    assert "all 2 warm-up requests failed" in result.outcome.notes


EXPECTED = {
    "http-500": Status.HTTP,
    "refuse": Status.CONNECT,
    "reset": Status.RESET,
    "close": Status.RESET,
    "stall": Status.TIMEOUT,
    "error-event": Status.MALFORMED,
    "malformed": Status.MALFORMED,
    "empty": Status.EMPTY,
    "no-done": Status.OK,
    "no-finish": Status.RESET,
    "slow-headers": Status.OK,
    "not-http": Status.MALFORMED,
    "not-sse": Status.MALFORMED,
}


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_every_fault_comes_out_as_what_it_is(api: str) -> None:
    assert set(EXPECTED) == set(FAULTS)
    with PacedServer(fast(faults=dict.fromkeys(FAULTS, 0.07))) as faulty:
        result = push(faulty, closed(10), requests=120, work=workload(api=api), idle_timeout_s=0.6, warmup_requests=1)
        truth = {entry.number: entry for entry in faulty.truth()}
    planted = Counter(EXPECTED[entry.fault] if entry.fault else Status.OK for entry in truth.values())
    got = Counter(record.status for record in result.records)
    assert got == planted
    assert len(planted) >= 7
    assert result.outcome.stopped_by == "requests"
    for record in result.records:
        assert bool(record.error) is record.failed


@pytest.mark.parametrize(
    "pace",
    [
        fast(framing="length"),
        fast(framing="close"),
        fast(newline="crlf"),
        fast(split=3),
        fast(events_per_send=3),
        fast(tokens_per_chunk=3),
        fast(tokens_per_chunk=3, usage="final"),
        fast(usage="none"),
        fast(reasoning=3),
    ],
    ids=lambda pace: f"{pace.framing} {pace.newline} {pace.split} {pace.events_per_send} {pace.usage} {pace.reasoning}",
)
def test_every_way_to_frame_an_answer(pace: Pace) -> None:
    with PacedServer(pace) as framed:
        result = push(framed, closed(3), requests=9, work=workload(api="chat", keep_text=True))
        truth = {entry.number: entry for entry in framed.truth()}
    assert result.count(Status.OK) == 9
    texts = {record.text for record in result.records}
    assert texts == {" the of and to in is it for"}
    for record in result.records:
        assert sum(record.chunk_tokens) == record.output_tokens == 8
        if pace.usage == "continuous" and pace.events_per_send == 1:
            assert record.chunk_tokens == truth[record.index + 1].tokens
        assert record.answer_first_ns == record.chunk_ns[pace.reasoning]
        assert (record.connected_ns > 0) or pace.framing != "close" or record.index > 1
    wanted = TokenSource.SERVER_TOKENIZER if pace.usage == "none" else TokenSource.USAGE
    assert {record.token_source for record in result.records} == {wanted}


def test_without_any_tokenizer_chunks_are_counted_and_marked() -> None:
    with PacedServer(fast(usage="none", tokenizer=False)) as bare:
        result = push(bare, closed(2), requests=4)
    assert {record.token_source for record in result.records} == {TokenSource.CHUNKS}
    assert result.outcome.prompts_off == 0


def test_answers_that_are_not_streamed(server: PacedServer) -> None:
    result = push(server, closed(2), requests=6, work=workload(stream=False), idle_timeout_s=0.001)
    assert result.count(Status.OK) == 6
    assert all(record.chunk_ns == [record.finished_ns] for record in result.measured)
    assert all(record.chunk_tokens == [8] for record in result.measured)


def test_the_api_key_is_sent_and_never_told() -> None:
    with PacedServer(fast(api_key="sk-right")) as locked:
        good = push(locked, closed(1), requests=3, api_key="sk-right")
        bad = push(locked, closed(1), requests=3, api_key="sk-wrong-key")
    assert good.count(Status.OK) == 3
    assert bad.count(Status.HTTP) == 3
    assert all("401" in record.error and "sk-wrong" not in record.error for record in bad.measured)
    assert not any("sk-wrong" in note for note in bad.outcome.notes)


def test_too_many_clients_for_the_open_files(server: PacedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "open_files_limit", lambda: 256)
    with pytest.raises(EnvironmentFault, match="open files"):
        push(server, closed(250), requests=1)


def test_more_requests_than_were_made_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed loop bounded by time takes as many as it can get; they are made while it runs."""
    # few at first and none too fast, so that a slow box needs more too, and can make them in time
    monkeypatch.setattr("redline.load.supply._FIRST_UNKNOWN", 64)
    monkeypatch.setattr("redline.load.supply._AHEAD_S", 0.0)
    for _attempt in range(3):  # a box that stands still for longer than the requests in stock last starves it rightly
        with PacedServer(fast(ttft_ms=50, itl_ms=10)) as server:
            result = push(server, closed(40), duration_s=2.0)
        if not result.outcome.starved:
            break
    assert len(result.measured) > 64 + 4 * 40
    assert result.outcome.starved == 0
    assert result.outcome.prompts_unverified > 0  # the server is not asked about tokens while it is measured
    wrong = [record for record in result.measured if record.prompt_tokens not in (0, 32)]
    assert len(wrong) <= 0.01 * len(result.measured)


def test_a_slow_parent_does_not_delay_the_worker() -> None:
    """Storing takes longer than serving: requests leave on time all the same, and every record arrives."""
    with PacedServer(Pace(ttft_ms=5, itl_ms=1)) as quick:
        slow = push(
            quick,
            LoadPoint("constant", 150),
            duration_s=0.6,
            on_record=lambda record: time.sleep(0.02),
            drain_s=10,
        )
    assert slow.count(Status.OK) == 90
    lags = sorted(record.sent_ns - record.intended_ns for record in slow.measured)
    assert lags[len(lags) // 2] < 20_000_000  # 90 records of 20 ms each are 1.8 s of parent time
    span = max(r.finished_ns for r in slow.measured) - min(r.intended_ns for r in slow.measured)
    assert span < 1.6e9


def test_a_record_is_delivered_when_its_request_ends() -> None:
    seen: list[tuple[int, RequestRecord]] = []
    with PacedServer(Pace(ttft_ms=60, itl_ms=5)) as steady:
        push(steady, closed(1), requests=5, on_record=lambda record: seen.append((time.monotonic_ns(), record)))
    for at, record in seen:
        assert 0 <= at - record.finished_ns < 3e9
    assert seen[0][0] < seen[-1][1].sent_ns


def test_the_same_seed_sends_the_same_prompts(server: PacedServer) -> None:
    source = prompt_source(server.endpoint, workload(), seed=3, tokenizer_path=None, needed=10)
    again = prompt_source(server.endpoint, workload(), seed=3, tokenizer_path=None, needed=10)
    assert source.prompts(9, 0, 10) == again.prompts(9, 0, 5) + again.prompts(9, 5, 5)
    assert source.prompts(9, 0, 10) != source.prompts(10, 0, 10)
