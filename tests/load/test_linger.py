from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from redline.load.frames import Target
from redline.load.linger import Linger
from redline.load.paced.server import PacedServer
from redline.load.prompts import prompt_source
from redline.spec.load import LoadPoint
from tests.load.scripted import ScriptedServer, Step
from tests.load.servers import fast, push, workload
from tests.load.streams import DONE, OK_HEAD, chunked, text_event

_MS = 1_000_000
_SECOND = 1_000 * _MS


def _conns(streaming: int, silent: int = 0) -> Any:
    return [SimpleNamespace(data=[b"x"])] * streaming + [SimpleNamespace(data=[])] * silent


def _after_a_second(chunks_per_s: int, streaming: int, silent: int = 0, answers: int = 0, **bounds: int) -> int:
    linger = Linger(cast(Target, SimpleNamespace(**{"linger_ns": _MS, "linger_most_ns": 4 * _MS, **bounds})))
    for _ in range(2):
        linger.reads, linger.answers = chunks_per_s, answers
        linger.adapt(_conns(streaming, silent), _SECOND)
        assert linger.reads == 0
    return linger.ns


@pytest.mark.parametrize(
    ("gap_ms", "rests_ms"),
    [(1, 1.0), (2, 1.0), (4, 2.0), (6, 3.0), (8, 4.0), (200, 4.0)],
)
def test_a_worker_rests_for_half_of_the_gap_between_chunks(gap_ms: int, rests_ms: float) -> None:
    streams = 80
    rest = _after_a_second(streams * 1000 // gap_ms, streams)
    assert rest / _MS == pytest.approx(rests_ms, rel=0.02)
    # streams that have brought nothing yet would make the gap look longer than it is
    assert _after_a_second(streams * 1000 // gap_ms, streams, silent=1000) == rest


def test_nothing_that_streams_is_no_reason_to_sleep_long() -> None:
    assert _after_a_second(0, 0) == _MS


def test_where_requests_wait_for_answers_the_rest_stays_short_and_without_a_ring_there_is_none() -> None:
    assert _after_a_second(100, 100, linger_ns=_MS // 2, linger_most_ns=0) == _MS // 2
    assert _after_a_second(100, 100, linger_ns=0, linger_most_ns=0) == 0


@pytest.mark.parametrize(("gap_ms", "no_proof"), [(4, 0.4), (20, 0.25)])
def test_chunks_that_answer_a_read_end_the_rest_unless_something_else_explains_them(
    gap_ms: int, no_proof: float
) -> None:
    """Chance explains some, and a starved server's bursts explain a quarter."""
    chunks = 80 * 1000 // gap_ms
    assert _after_a_second(chunks, 80, answers=int(chunks * no_proof))
    assert not _after_a_second(chunks, 80, answers=int(chunks * (no_proof + 0.2)))


@pytest.mark.parametrize("nodelay", [False, True])
def test_a_server_that_waits_for_acknowledgements_is_read_at_once(nodelay: bool) -> None:
    pair, last = chunked(text_event("a"), last=False), chunked(text_event("z", "stop"), DONE)
    both: list[Step] = [*pair, 0.001, *pair, 0.03]
    steps: list[Step] = [OK_HEAD, *both * 40, *last]
    with PacedServer(fast()) as well, ScriptedServer(lambda _: steps, nodelay=nodelay) as server:
        prompts = prompt_source(well.endpoint, workload(), seed=1, tokenizer_path=None, needed=20)
        result = push(cast(Any, server), LoadPoint("poisson", 10.0), prompts=prompts, requests=16, warmup_requests=0)
    if result.outcome.stamps["tier"] != "packet":
        pytest.skip("no packet ring here, and so nothing is read late (CAP_NET_RAW)")
    assert not any(record.failed for record in result.measured)
    assert any("TCP_NODELAY" in note for note in result.outcome.notes) is not nodelay
