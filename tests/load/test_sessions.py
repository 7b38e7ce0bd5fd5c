"""Conversations against the paced server, which counts the tokens of every message that it is sent."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from redline.load.datasets import read_rounds, rounds_of
from redline.load.paced.pace import Pace
from redline.load.paced.server import PacedServer
from redline.load.record import RequestRecord, Status
from redline.spec.load import LoadPoint
from redline.spec.turns import TurnsSpec
from redline.spec.workload import LengthSpec, WorkloadSpec
from tests.load.servers import closed, fast, push, workload

S = 1_000_000_000


@pytest.fixture(scope="module")
def server() -> Iterator[PacedServer]:
    with PacedServer(fast()) as made:
        yield made


def chats(turns: int = 3, **changes: Any) -> WorkloadSpec:
    values = {"api": "chat", "turns": TurnsSpec(mean=turns), "turn_tokens": LengthSpec(mean=6), **changes}
    return workload(**values)


def by_session(records: list[RequestRecord]) -> dict[int, list[RequestRecord]]:
    found: dict[int, list[RequestRecord]] = defaultdict(list)
    for record in sorted(records, key=lambda record: record.turn):
        found[record.session].append(record)
    return dict(found)


def test_every_turn_repeats_the_conversation_so_far(server: PacedServer) -> None:
    # one client: of two, a faster one may begin a session that the other then lacks the requests to finish
    result = push(server, closed(1), work=chats(), requests=12)
    assert result.count(Status.OK) == result.outcome.sent == 12
    assert result.outcome.stopped_by == "requests"
    sessions = by_session(result.measured)
    assert [len(turns) for turns in sessions.values()] == [3, 3, 3, 3]
    for turns in sessions.values():
        assert [record.turn for record in turns] == [0, 1, 2]
        assert turns[0].prompt_tokens == 32
        for before, after in itertools.pairwise(turns):
            grown = after.prompt_tokens - before.prompt_tokens
            assert before.output_tokens + 6 <= grown <= before.output_tokens + 6 + 14  # and the template's own
    assert not any(record.text for record in result.measured)
    counts = result.outcome.traffic["sessions"]
    assert (counts["begun"], counts["finished"], counts["broken"]) == (4, 4, 0)


def test_a_client_holds_one_session_after_the_other(server: PacedServer) -> None:
    result = push(server, closed(1), work=chats(2), requests=10)
    ordered = sorted(result.measured, key=lambda record: record.intended_ns)
    assert [(record.session, record.turn) for record in ordered] == [(i // 2, i % 2) for i in range(10)]
    for before, after in itertools.pairwise(ordered):
        # our own time to write the next turn is send lag; packet stamps move the end by microseconds, later
        assert abs(after.intended_ns - before.finished_ns) < 2_000_000
        assert after.sent_ns > after.intended_ns


def test_think_time_counts_from_the_end_of_the_answer(server: PacedServer) -> None:
    work = chats(think_time_s=0.05, think_time="constant")
    result = push(server, LoadPoint("constant", 8), work=work, duration_s=1.0, drain_s=5)
    sessions = by_session(result.measured)
    assert len(sessions) == 8
    starts = sorted(turns[0].intended_ns for turns in sessions.values())
    assert [start - result.outcome.measured_from_ns for start in starts] == [i * S // 8 for i in range(8)]
    later = [pair for turns in sessions.values() for pair in itertools.pairwise(turns)]
    assert len(later) >= 12
    assert all(abs(after.intended_ns - before.finished_ns - S // 20) < 2_000_000 for before, after in later)


def test_think_times_are_drawn_by_the_seed(server: PacedServer) -> None:
    def gaps(seed: int) -> list[int]:
        result = push(server, closed(2), work=chats(think_time_s=0.03), requests=6, seed=seed)
        sessions = by_session(result.measured)
        pairs = (pair for _, turns in sorted(sessions.items()) for pair in itertools.pairwise(turns))
        return [after.intended_ns - before.finished_ns for before, after in pairs]

    first = gaps(1)
    assert len(set(first)) == len(first)
    assert gaps(1) == pytest.approx(first, abs=4_000_000)
    assert gaps(2) != pytest.approx(first, abs=4_000_000)


def test_a_failed_turn_ends_its_session_and_its_client_goes_on() -> None:
    with PacedServer(fast(faults={"http-500": 0.2})) as broken:
        result = push(broken, closed(2), work=chats(4), requests=30)
    sessions = by_session(result.measured)
    assert result.outcome.sent == 30
    for turns in sessions.values():
        assert not any(record.failed for record in turns[:-1])
    assert result.outcome.traffic["sessions"]["broken"] == sum(record.failed for record in result.measured) > 0


def test_a_session_that_outgrows_the_model_ends_early() -> None:
    with PacedServer(fast(max_model_len=80)) as small:
        result = push(small, closed(1), work=chats(10), requests=8)
    assert result.count(Status.OK) == 8
    assert result.outcome.traffic["sessions"]["cut_short"] > 0
    assert any("would not have fitted" in note for note in result.outcome.notes)


def test_time_ends_sessions_too() -> None:
    with PacedServer(Pace(ttft_ms=20, itl_ms=10)) as slow:
        result = push(slow, closed(3), work=chats(100), duration_s=0.6, drain_s=3)
    assert result.outcome.stopped_by == "duration"
    assert {record.status for record in result.measured} == {Status.OK}


def test_recorded_conversations_are_held_again(server: PacedServer, tmp_path: Path) -> None:
    talk = [
        {"from": "human", "value": "What is rain?"},
        {"from": "gpt", "value": "Water that falls from clouds, more or less"},
        {"from": "human", "value": "And snow?"},
        {"from": "gpt", "value": "The same, frozen"},
    ]
    path = tmp_path / "share.json"
    path.write_bytes(orjson.dumps([{"id": "a", "conversations": talk}] * 3))
    result = push(server, closed(1), work=chats(9, kind="sharegpt", path=str(path)), requests=4)
    sessions = by_session(result.measured)
    assert [[record.turn for record in turns] for turns in sessions.values()] == [[0, 1], [0, 1]]
    assert [record.asked_output_tokens for record in sessions[0]] == [11, 4]  # 4/3 of the words recorded


def test_rounds_are_cut_at_answers() -> None:
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b c"},
        {"role": "user", "content": "d"},
    ]
    assert rounds_of(messages) == [((messages[0], messages[1]), 2), ((messages[3],), 0)]
    assert rounds_of([{"role": "assistant", "content": "b"}]) == []


def test_jsonl_conversations(tmp_path: Path) -> None:
    path = tmp_path / "talk.jsonl"
    rows = [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
                          {"role": "user", "content": "c"}]}, {"prompt": "alone"}]  # fmt: skip
    path.write_bytes(b"\n".join(map(orjson.dumps, rows)))
    assert [len(rounds) for rounds in read_rounds("jsonl", path)] == [2, 1]


def test_sessions_over_several_workers(server: PacedServer) -> None:
    result = push(server, closed(4), work=chats(3), requests=24, workers=2)
    assert result.count(Status.OK) == result.outcome.sent == 24
    assert result.outcome.stopped_by == "requests"
    sessions = by_session(result.measured)
    assert all([record.turn for record in turns] == list(range(len(turns))) for turns in sessions.values())
    counts = result.outcome.traffic["sessions"]
    whole = sum(len(turns) == 3 for turns in sessions.values())
    assert (counts["begun"], counts["finished"], counts["broken"]) == (len(sessions), whole, 0)
    assert whole >= len(sessions) - 4  # when the requests are up each client may be in the middle of one


def test_stopping_by_hand_keeps_what_was_said(server: PacedServer) -> None:
    asked: list[int] = []

    def enough() -> bool:
        asked.append(1)
        return len(asked) > 60

    result = push(server, closed(2), work=chats(50, think_time_s=0.02), duration_s=30, should_stop=enough)
    assert result.outcome.stopped_by == "interrupted"
    assert not any(record.failed for record in result.records)
