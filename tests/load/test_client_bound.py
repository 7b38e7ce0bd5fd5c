"""Clients that measure themselves: what other benchmarks fell for comes out as what it is, in the verdict too."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from redline.load.paced.server import PacedServer
from redline.load.record import Status
from redline.spec.load import LoadPoint
from redline.spec.workload import LengthSpec
from tests.load.columns import verdict
from tests.load.servers import Result, fast, push, workload


def ttft_ms(result: Result, start: str, level: float) -> float:
    good = [record for record in result.measured if record.status is Status.OK]
    return float(np.percentile([(record.chunk_ns[0] - getattr(record, start)) / 1e6 for record in good], level))


def test_a_cap_in_the_client_makes_the_server_look_good_from_the_send_only() -> None:
    """vLLM #54101: TTFT p99 of 507 ms from the send and 3,330 ms from the schedule, with `max_concurrency` set."""
    with PacedServer(fast(ttft_ms=100.0, itl_ms=10.0)) as server:
        result = push(server, LoadPoint("constant", 40), duration_s=3.0, drain_s=5.0, max_in_flight=4)
    assert ttft_ms(result, "intended_ns", 99) > 4 * ttft_ms(result, "sent_ns", 99)
    found = verdict(result, asked=("constant", 40.0))
    assert found.state == "client-bound"
    assert any("waited in the client for the cap of 4 in flight" in reason for reason in found.reasons), found
    assert any("never left the client" in reason for reason in found.reasons), found


@contextmanager
def stopping(server: PacedServer, after_s: float, for_s: float) -> Iterator[Callable[[], None]]:
    """The server's process stands still once, `after_s` after the call that is given."""
    assert server.process is not None
    pid = server.process.pid
    timers = [threading.Timer(after_s, os.kill, (pid, signal.SIGSTOP))]
    timers.append(threading.Timer(after_s + for_s, os.kill, (pid, signal.SIGCONT)))

    def begin() -> None:
        for timer in timers:
            timer.start()

    try:
        yield begin
    finally:
        for timer in timers:
            timer.cancel()
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("cap", [0, 2])
def test_a_server_that_stands_still_shows_from_the_intended_start(cap: int) -> None:
    """Coordinated omission: with a cap two requests meet the stall and the others wait to be sent, so the p99 counted
    from the send knows nothing of it. Without one it is in both."""
    work = workload(output_tokens=LengthSpec(mean=4))
    with PacedServer(fast(ttft_ms=2.0, itl_ms=1.0)) as server, stopping(server, 0.4, 1.2) as stall:
        result = push(
            server, LoadPoint("constant", 120), work=work, duration_s=4.0, drain_s=5.0, max_in_flight=cap,
            before_measuring=stall,
        )  # fmt: skip
    intended, sent = ttft_ms(result, "intended_ns", 99), ttft_ms(result, "sent_ns", 99)
    assert intended > 800
    if cap:
        assert sent < intended / 3
        assert verdict(result).state == "client-bound"
    else:
        assert sent > 800
