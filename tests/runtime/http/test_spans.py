from __future__ import annotations

import time

import pytest

from redline.clock import ClockOffset
from redline.observe.otlp import JSON, OtlpReceiver, read_spans
from redline.observe.span import Span
from redline.runtime.http.spans import Ended, SpanSender, encode

MS = 1_000_000
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
ENDED = Ended(f"00-{TRACE}-00f067aa0ba902b7-01", "r7", "stop", 10 * MS, 14 * MS, 20 * MS, 80 * MS, 12, 30, 1)


def received(batch: list[Ended]) -> list[Span]:
    return read_spans(encode(batch, "tiny"), JSON, ClockOffset(time.time_ns() - time.monotonic_ns(), 0))


def test_a_request_is_a_span_with_its_phases_below_it() -> None:
    whole, *phases = received([ENDED])
    assert (whole.trace_id, whole.parent_id, whole.name) == (TRACE, "00f067aa0ba902b7", "llm_request")
    assert [phase.name for phase in phases] == ["queue", "prefill", "decode"]
    assert all(phase.parent_id == whole.span_id and phase.trace_id == TRACE for phase in phases)
    assert [round((p.ended_ns - p.began_ns) / MS) for p in phases] == [4, 6, 60]
    told = whole.attributes
    assert told["gen_ai.latency.time_in_queue"] == pytest.approx(0.004)
    assert told["gen_ai.latency.time_in_model_prefill"] == pytest.approx(0.006)
    assert (told["gen_ai.usage.prompt_tokens"], told["gen_ai.usage.completion_tokens"]) == (12, 30)


def test_what_never_began_has_no_such_phase_and_a_broken_parent_none() -> None:
    waited = ENDED._replace(trace="no-traceparent", reason="abort", scheduled_ns=0, first_token_ns=0)
    whole, *phases = received([waited])
    assert [phase.name for phase in phases] == ["queue"]
    assert whole.parent_id == ""
    assert len(whole.trace_id) == 32
    assert "gen_ai.latency.time_in_model_decode" not in whole.attributes


def test_they_are_sent_in_batches_and_what_waits_is_sent_at_the_end() -> None:
    spans: list[Span] = []
    with OtlpReceiver(spans.extend) as receiver:
        sender = SpanSender(receiver.url, "tiny")
        for _ in range(3):
            sender.add(ENDED)
        sender.close()
    assert len(spans) == 12
    assert sender.dropped == 0


def test_nobody_there_costs_the_spans_alone() -> None:
    with OtlpReceiver(lambda spans: None) as receiver:
        url = receiver.url
    sender = SpanSender(url, "tiny")
    sender.add(ENDED)
    sender.close()
    assert sender.dropped == 1
    with pytest.raises(ValueError, match="not an http"):
        SpanSender("grpc://x:4317", "tiny")
