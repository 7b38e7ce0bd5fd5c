"""Traces: what the parsers take and refuse, what is cut, and what is sent."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redline.errors import SpecError
from redline.load.paced.server import PacedServer
from redline.load.prompts import prompt_source
from redline.load.record import RequestRecord, Status
from redline.load.trace import Row, Trace, fitted, read_trace
from redline.load.traced import TracePrompts
from redline.spec.load import LoadPoint
from tests.load.servers import fast, push, workload

S = 1_000_000_000

MOONCAKE = """
{"timestamp": 0, "input_length": 600, "output_length": 4, "hash_ids": [0, 1]}
{"timestamp": 100, "input_length": 700, "output_length": 5, "hash_ids": [0, 2]}
{"timestamp": 250, "input_length": 30, "output_length": 6, "hash_ids": [7]}
"""
BURSTGPT = """Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45,GPT-4,30,0,30,API log
118.5,ChatGPT,1087,230,1317,Conversation log
"""
AZURE_2023 = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:17:03.9799600,4808,10
2023-11-16 18:17:04.0319600,3180,8
"""
AZURE_2024 = """TIMESTAMP,ContextTokens,GeneratedTokens
2024-05-10 00:00:00.009930+00:00,2162,5
2024-05-10 00:00:01.509930+00:00,2399,6
"""


def span(at_ms: int, took_ms: int, prompt: int, output: int, session: str = "") -> dict[str, Any]:
    said = {"gen_ai.usage.input_tokens": {"intValue": str(prompt)}, "gen_ai.usage.output_tokens": {"intValue": output}}
    if session:
        said["gen_ai.conversation.id"] = {"stringValue": session}
    begin = 1_700_000_000 * S + at_ms * 1_000_000
    return {
        "name": "chat m",
        "startTimeUnixNano": str(begin),
        "endTimeUnixNano": str(begin + took_ms * 1_000_000),
        "attributes": [{"key": key, "value": value} for key, value in said.items()],
    }


def otlp(*spans: dict[str, Any]) -> str:
    return "\n".join(
        orjson.dumps({"resourceSpans": [{"resource": {}, "scopeSpans": [{"spans": [one]}]}]}).decode() for one in spans
    )


OTEL = otlp(
    span(0, 100, 50, 10, "a"), {"name": "a database", "startTimeUnixNano": "1"}, span(400, 100, 80, 12, "a"),
    span(200, 50, 40, 5),
)  # fmt: skip


def read(tmp_path: Path, text: str, kind: str = "auto") -> Trace:
    path = tmp_path / "trace"
    path.write_text(text)
    return read_trace(str(path), kind)


def shapes(trace: Trace) -> list[tuple[float, int, int]]:
    return [(round(row.at_s, 6), row.prompt_tokens, row.output_tokens) for row in trace.rows]


def test_formats_are_found_by_themselves(tmp_path: Path) -> None:
    mooncake = read(tmp_path, MOONCAKE)
    assert shapes(mooncake) == [(0, 600, 4), (0.1, 700, 5), (0.25, 30, 6)]
    assert mooncake.rows[1].hash_ids == (0, 2)
    burst = read(tmp_path, BURSTGPT)
    assert shapes(burst) == [(0, 472, 18), (113.5, 1087, 230)]
    assert burst.notes == ("1 requests of the trace have no prompt or no answer, and are left out",)
    assert shapes(read(tmp_path, AZURE_2023)) == [(0, 4808, 10), (0.052, 3180, 8)]
    assert shapes(read(tmp_path, AZURE_2024)) == [(0, 2162, 5), (1.5, 2399, 6)]
    assert shapes(read(tmp_path, "\ufeff" + AZURE_2024.replace("\n", "\r\n"))) == [(0, 2162, 5), (1.5, 2399, 6)]


def test_spans_of_one_conversation_are_a_session(tmp_path: Path) -> None:
    trace = read(tmp_path, OTEL)
    assert shapes(trace) == [(0, 50, 10), (0.2, 40, 5), (0.4, 80, 12)]
    assert trace.has_sessions
    assert [(row.session, row.turn, round(row.think_s, 6)) for row in trace.rows] == [
        ("a", 0, 0),
        ("", 0, 0),
        ("a", 1, 0.3),
    ]


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        (MOONCAKE + "{", 5, "not JSON"),
        (MOONCAKE.replace("700", '"many"'), 3, "input_length"),
        (MOONCAKE.replace('"output_length": 6', '"length": 6'), 4, "output_length"),
        (MOONCAKE.replace("[7]", '"7"'), 4, "hash_ids"),
        (BURSTGPT.replace("1087", "-3"), 4, "Request tokens"),
        (BURSTGPT.replace("118.5,", ""), 4, "5 columns instead of 6"),
        (AZURE_2023.replace("3180", "3.5"), 3, "whole number"),
        (AZURE_2023.replace("18:17:04.0319600", "noon"), 3, "TIMESTAMP"),
        (OTEL.replace('"intValue":12', '"intValue":"a few"'), 3, "output_tokens"),
        (OTEL + "\n[]", 5, "not a JSON object"),
        ("a,b\n1,2", 1, "no known format"),
        ("", 1, "no known format"),
    ],
)
def test_what_is_wrong_has_a_line(tmp_path: Path, text: str, line: int, says: str) -> None:
    with pytest.raises(SpecError) as caught:
        read(tmp_path, text)
    assert says in str(caught.value)
    assert caught.value.line == line


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(SpecError, match="cannot read"):
        read_trace("/no/such/trace")


@given(
    st.binary(max_size=300) | st.text(max_size=200).map(lambda text: text.encode()),
    st.sampled_from(["auto", "mooncake", "burstgpt", "azure", "otel"]),
    st.sampled_from(["", BURSTGPT, AZURE_2023, MOONCAKE]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_bytes_do_more_than_be_refused(tmp_path: Path, junk: bytes, kind: str, before: str) -> None:
    path = tmp_path / "trace"
    path.write_bytes(before.encode() + junk)
    try:
        trace = read_trace(str(path), kind)
    except SpecError:
        return
    assert trace.rows
    assert all(row.prompt_tokens > 0 and row.output_tokens > 0 for row in trace.rows)


rows = st.lists(
    st.builds(Row, at_s=st.floats(0, 100), prompt_tokens=st.integers(1, 5000), output_tokens=st.integers(1, 5000)),
    min_size=1,
    max_size=30,
)


@given(rows, st.floats(0.1, 10), st.floats(0, 100), st.floats(0.1, 100))
def test_a_cut_is_a_window_played_faster(found: list[Row], speed: float, from_s: float, duration_s: float) -> None:
    trace = Trace(tuple(sorted(found, key=lambda row: row.at_s)))
    cut = trace.cut(speed=speed, from_s=from_s, duration_s=duration_s)
    assert len(cut) == sum(from_s <= row.at_s < from_s + duration_s * speed for row in trace.rows)
    assert all(-1e-9 <= row.at_s <= duration_s + 1e-6 for row in cut)
    assert [row.at_s for row in cut] == sorted(row.at_s for row in cut)


def test_a_session_that_began_before_the_cut_is_left_out() -> None:
    found = (Row(0, 5, 5, session="a"), Row(1, 9, 5, session="b"), Row(2, 20, 5, session="a", turn=1, think_s=1.5))
    assert [row.session for row in Trace(found).cut(speed=2, from_s=0.5, duration_s=9)] == ["b"]
    whole = Trace(found).cut(speed=2, from_s=0, duration_s=9)
    assert [(row.at_s, row.think_s) for row in whole] == [(0, 0), (0.5, 0), (1, 0.75)]


@given(rows, st.integers(20, 6000), st.integers(1, 10))
def test_lengths_that_do_not_fit_are_made_to(found: list[Row], limit: int, least: int) -> None:
    fit, changed = fitted(found, limit=limit, least=least)
    assert all(row.prompt_tokens + row.output_tokens <= limit or row.prompt_tokens == 1 for row in fit)
    assert all(row.output_tokens >= 1 and row.prompt_tokens >= 1 for row in fit)
    assert changed == sum(a != b for a, b in zip(found, fit, strict=True))


@pytest.fixture(scope="module")
def server() -> Iterator[PacedServer]:
    with PacedServer(fast()) as made:
        yield made


def ordered(records: list[RequestRecord]) -> list[RequestRecord]:
    return sorted(records, key=lambda record: record.intended_ns)


@pytest.mark.parametrize("speed", [1.0, 2.0])
def test_a_trace_is_sent_as_it_was_recorded(server: PacedServer, tmp_path: Path, speed: float) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text(MOONCAKE)
    work = workload(kind="trace", path=str(path))
    result = push(server, LoadPoint("trace", speed), work=work, duration_s=2)
    found = ordered(result.measured)
    offsets = [(record.intended_ns - result.outcome.measured_from_ns) / S for record in found]
    assert offsets == pytest.approx([0, 0.1 / speed, 0.25 / speed], abs=1e-6)
    assert [(record.prompt_tokens, record.output_tokens) for record in found] == [(600, 4), (700, 5), (30, 6)]
    assert result.outcome.traffic["trace"]["requests"] == 3


def test_requests_share_the_blocks_that_their_hashes_share(server: PacedServer) -> None:
    found = [
        Row(0, 1200, 4, hash_ids=(1, 2, 3)), Row(1, 1500, 4, hash_ids=(1, 2, 4)), Row(2, 1100, 4, hash_ids=(1, 5, 6)),
        Row(3, 1200, 4, hash_ids=(9, 2, 3)),
    ]  # fmt: skip
    source = prompt_source(server.endpoint, workload(), seed=1, tokenizer_path=None, needed=8)
    texts = [p.text for p in TracePrompts(source, found, 0).prompts(7, 0, 4)]
    tokens = [source.tokenizer.ids(text) for text in texts] if source.tokenizer else []
    assert [len(ids or []) for ids in tokens] == [1200, 1500, 1100, 1200]

    def shared(a: int, b: int) -> int:
        pairs = zip(tokens[a] or [], tokens[b] or [], strict=False)
        return next((i for i, (x, y) in enumerate(pairs) if x != y), 10_000)

    assert 1020 <= shared(0, 1) <= 1060  # two blocks of 512, and no more than chance beyond
    assert 508 <= shared(0, 2) <= 540
    assert shared(0, 3) <= 20
    other = [p.text for p in TracePrompts(source, found, 0).prompts(8, 0, 1)]
    assert other[0][:200] != texts[0][:200]  # another load point finds nothing of this one in the cache


def test_sessions_of_a_trace_are_held_again(server: PacedServer, tmp_path: Path) -> None:
    path = tmp_path / "spans.jsonl"
    path.write_text(OTEL)
    work = workload(kind="trace", path=str(path), api="chat")
    result = push(server, LoadPoint("trace", 2.0), work=work, duration_s=3)
    assert result.count(Status.OK) == 3
    by_session = defaultdict(list)
    for record in ordered(result.measured):
        by_session[record.session].append(record)
    first, alone = by_session[0], by_session[1]
    assert [record.turn for record in first] == [0, 1]
    assert first[1].intended_ns - first[0].finished_ns == pytest.approx(0.15 * S, abs=2_000_000)
    assert abs(first[1].prompt_tokens - 80) <= 12  # 20 tokens of the user's own, after 50 + 10
    assert alone[0].intended_ns - first[0].intended_ns == pytest.approx(0.1 * S, abs=1000)


def test_a_closed_loop_takes_the_lengths_of_a_trace(server: PacedServer, tmp_path: Path) -> None:
    path = tmp_path / "azure.csv"
    path.write_text(AZURE_2024.replace("2162", "40").replace("2399", "50"))
    result = push(server, LoadPoint("closed", 1), work=workload(kind="trace", path=str(path)), requests=4)
    assert [(r.prompt_tokens, r.output_tokens) for r in ordered(result.measured)] == [(40, 5), (50, 6)] * 2


def test_a_window_with_nothing_in_it(server: PacedServer, tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text(MOONCAKE)
    with pytest.raises(SpecError, match="no request from 50 s on"):
        push(server, LoadPoint("trace", 1.0), work=workload(kind="trace", path=str(path)), trace_from_s=50)


def test_lengths_beyond_the_model_are_cut_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text(MOONCAKE)
    with PacedServer(fast(max_model_len=400)) as small:
        result = push(small, LoadPoint("trace", 1.0), work=workload(kind="trace", path=str(path)), duration_s=2)
    assert [(r.prompt_tokens, r.output_tokens) for r in ordered(result.measured)] == [(396, 4), (395, 5), (30, 6)]
    assert "2 of 3 requests of the trace do not fit into 400 tokens, and are changed to fit" in result.outcome.notes
