from __future__ import annotations

from redline.observe.event import Event
from redline.observe.span import Span
from redline.store.rows import EventRow
from redline.store.sql import query
from redline.store.store import Store
from tests.store.recorded import EXPERIMENT


def test_events_and_spans_come_back_by_their_window_and_trace(store: Store) -> None:
    run = store.begin_run(EXPERIMENT, {}, [])
    trial = store.begin_trial(run, model="m", spec=EXPERIMENT.engines[0], repeat=0)
    store.add_events(trial, [Event("block", 10, 20, "", "device"), Event("stop", 50, 60, "me (1)", "\ud800")])
    store.add_spans(
        trial,
        [
            Span("aa01", "01", "", "llm_request", "vllm", 5, 9, {"x": 1.5}),
            Span("bb01", "02", "", "other", "vllm", 1, 2),
        ],
    )
    store.flush()
    assert store.events(trial, 15, 30) == [EventRow("block", 10, 20, "", "device")]
    assert [one.kind for one in store.events(trial)] == ["block", "stop"]
    assert store.events(trial + 1) == []
    (mine,) = store.spans(trial, "aa")
    assert mine.attributes == {"x": 1.5}
    assert len(store.spans(trial)) == 2
    assert query("select count(*) from span", store.path)[1] == [(2,)]
