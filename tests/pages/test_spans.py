from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from redline.pages.spans import events_of, spans_of
from redline.store.browse import Browser, Whereabouts
from tests.store.recorded import record

FOUND = Whereabouts("run", 7, 3, "vllm", "m", "1 client", 0, record(10, chunks=4))
DUE, MS = FOUND.record.intended_ns, 1_000_000


class Traced:
    """What a reader of a store with spans and events has."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    def spans(self, trial_id: int, trace: str) -> list[Any]:
        self.asked.append((trial_id, trace))
        ring = {"began_ns": DUE, "ended_ns": DUE, "service": "vllm", "attributes": {}}
        return [
            SimpleNamespace(span_id="a", parent_id="gone", name="llm_request", service="vllm", began_ns=DUE + 2 * MS,
                            ended_ns=DUE + 99 * MS, attributes={"gen_ai.latency": {"queue": 0.001}}),
            SimpleNamespace(span_id="b", parent_id="a", name="prefill", service="vllm", began_ns=DUE + 3 * MS,
                            ended_ns=DUE + 5 * MS, attributes={}),
            SimpleNamespace(span_id="c", parent_id="d", name="ring", **ring),
            SimpleNamespace(span_id="d", parent_id="c", name="ring", **ring),
        ]  # fmt: skip

    def events(self, trial_id: int, from_ns: int, to_ns: int) -> list[Any]:
        self.asked.append((trial_id, from_ns, to_ns))
        return [SimpleNamespace(kind="reclaim", began_ns=DUE + MS, ended_ns=DUE + 4 * MS, who="cat", text="")]


def test_spans_lie_where_they_belong_in_the_life_of_the_request() -> None:
    reader = Traced()
    whole, part, *rings = spans_of(cast(Browser, reader), FOUND, {"trace_prefix": "00ab"})
    assert reader.asked == [(7, "00ab000000000000000a")]
    assert (whole.depth, part.depth) == (0, 1)
    assert (part.start_ms, part.ms) == (3.0, 2.0)
    assert whole.left + whole.width == 100  # it goes on beyond the last byte
    assert whole.attributes == (("gen_ai.latency.queue", "0.001"),)
    assert [one.depth for one in rings] == [2, 2]


def test_events_of_its_life() -> None:
    reader = Traced()
    (event,) = events_of(cast(Browser, reader), FOUND)
    assert reader.asked == [(7, DUE, FOUND.record.finished_ns)]
    assert (event.name, event.by, event.ms) == ("direct reclaim of memory", "cat", 3.0)
    row = SimpleNamespace(kind="run_queue", began_ns=DUE, ended_ns=DUE + MS, who="cat", text="tid 5 CPU 1")
    reader.events = lambda trial_id, from_ns, to_ns: [row]  # type: ignore[method-assign]
    (event,) = events_of(cast(Browser, reader), FOUND)
    assert event.name == "engine had no CPU: tid 5 CPU 1"


def test_without_a_trace_there_is_none(filled: Path) -> None:
    assert spans_of(cast(Browser, Traced()), FOUND, {}) == []
    with Browser.open(filled) as reader:
        assert spans_of(reader, FOUND, {"trace_prefix": "00ab"}) == []
