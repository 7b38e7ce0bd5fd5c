"""Clients that hang up and clients that read slowly, against the paced server."""

from __future__ import annotations

from statistics import median

from redline.analyse.latency import counted
from redline.load.clients import client_of
from redline.load.paced.pace import Pace
from redline.load.paced.server import PacedServer
from redline.load.record import RequestRecord, Status
from redline.spec.workload import SLOW_READER, LengthSpec
from tests.load.columns import columns
from tests.load.servers import closed, fast, push, workload

S = 1_000_000_000


def test_the_seed_decides_who_hangs_up() -> None:
    work = workload(cancel_share=0.3, slow_share=0.2)
    clients = [client_of(work, 5, str(number)) for number in range(4000)]
    assert clients == [client_of(work, 5, str(number)) for number in range(4000)]
    assert 0.27 < sum(client.cancel_after_ns > 0 for client in clients) / 4000 < 0.33
    assert 0.17 < sum(client.read_bytes_per_s > 0 for client in clients) / 4000 < 0.23
    assert not any(client.cancel_after_ns and client.read_bytes_per_s for client in clients)


def test_a_client_that_hangs_up_is_neither_a_failure_nor_a_success() -> None:
    work = workload(cancel_share=0.5, cancel_after_s=0.15, output_tokens=LengthSpec(mean=40))
    with PacedServer(Pace(ttft_ms=10, itl_ms=20)) as server:
        result = push(server, closed(4), work=work, requests=24)
    gone = [record for record in result.measured if record.status is Status.ABANDONED]
    assert 4 <= len(gone) <= 20
    assert len(gone) + result.count(Status.OK) == 24
    assert result.outcome.stopped_by == "requests"
    for record in gone:
        assert not record.failed
        assert record.chunk_ns  # the first tokens had come
        assert record.finished_ns - record.sent_ns >= 0.15 * S
        assert record.output_tokens < 40
    assert counted(columns(result.measured)).sum() == result.count(Status.OK)


def test_a_client_that_hung_up_goes_on_at_once() -> None:
    work = workload(cancel_share=1.0, cancel_after_s=0.05, output_tokens=LengthSpec(mean=100))
    with PacedServer(Pace(ttft_ms=10, itl_ms=20)) as server:
        result = push(server, closed(1), work=work, requests=60)
    assert result.count(Status.ABANDONED) == 60  # and nobody took it for nothing but failures
    pairs = zip(result.measured, result.measured[1:], strict=False)
    assert all(after.intended_ns == before.finished_ns for before, after in pairs)


def test_an_answer_that_was_quicker_than_the_client_is_an_answer() -> None:
    with PacedServer(fast()) as server:
        result = push(server, closed(2), work=workload(cancel_share=1.0, cancel_after_s=5.0), requests=10)
    assert result.count(Status.OK) == 10


def test_a_slow_reader_is_slow_and_the_others_are_not() -> None:
    """40 chunks of 2000 bytes at 20,000 bytes/s take four seconds, whatever the server does."""
    work = workload(slow_share=0.3, slow_bytes_per_s=20_000, output_tokens=LengthSpec(mean=40))
    with PacedServer(Pace(ttft_ms=5, itl_ms=2, chunk_bytes=2000)) as server:
        result = push(server, closed(6), work=work, requests=20)
    slow = [record for record in result.measured if record.request_class == SLOW_READER]
    others = [record for record in result.measured if record.request_class != SLOW_READER]
    assert slow
    assert others
    assert result.count(Status.OK) == 20

    def took(records: list[RequestRecord]) -> float:
        return median(record.finished_ns - record.sent_ns for record in records) / S

    assert took(slow) > 2.5 > took(others)
    assert counted(columns(result.measured)).sum() == len(others)
