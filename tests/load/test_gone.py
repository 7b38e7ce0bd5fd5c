"""A server that goes on for clients that are gone, caught by its own count of requests."""

from __future__ import annotations

from typing import Any

import pytest

from redline.analyse.finding import Verdict
from redline.load.paced.pace import Pace
from redline.load.paced.server import PacedServer
from redline.observe.metrics import ServerWatch
from redline.spec.workload import LengthSpec
from tests.load.columns import reasons, verdict
from tests.load.servers import closed, push, workload

GONE, BUSY = "clients that are gone", "before the first request"


def judged(server: PacedServer, **changes: Any) -> Verdict:
    """Four clients; some hang up after a fifth of their answer, or all are cut off in the middle of it."""
    load = {key: changes.pop(key) for key in ("requests", "duration_s", "drain_s") if key in changes}
    with ServerWatch(server.endpoint.metrics_url, lambda _: None, interval_s=0.05) as watch:
        result = push(server, closed(4), work=workload(**changes), before_measuring=watch.mark, **load)
    return verdict(result, server=watch.as_dict())


@pytest.mark.parametrize("outlives", [True, False])
def test_clients_that_hang_up_and_a_server_that_does_not_notice(outlives: bool) -> None:
    with PacedServer(Pace(ttft_ms=10, itl_ms=10, metrics=True, outlives=outlives)) as server:
        found = judged(
            server, cancel_share=0.6, cancel_after_s=0.2, output_tokens=LengthSpec(mean=100), requests=40, drain_s=2.0
        )
    said = reasons(found, GONE)
    assert bool(said) == outlives, found
    if outlives:
        ((level, text),) = said
        assert level == "degraded"
        assert "more in it than we had in flight" in text


@pytest.mark.parametrize("outlives", [True, False])
def test_requests_that_are_cut_off_at_the_end_and_what_the_next_point_finds(
    outlives: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("redline.observe.metrics.SETTLE_S", 0.5)
    answers = LengthSpec(mean=450)
    with PacedServer(Pace(ttft_ms=10, itl_ms=10, metrics=True, outlives=outlives)) as server:
        # the warm-up waits for whole answers: short ones, so that only the measured ones are long
        short = judged(server, output_tokens=LengthSpec(mean=4), requests=8)
        with ServerWatch(server.endpoint.metrics_url, lambda _: None) as watch:
            result = push(
                server, closed(4), work=workload(output_tokens=answers), warmup_requests=1, duration_s=0.5, drain_s=0.1,
                before_measuring=watch.mark,
            )  # fmt: skip
        first = verdict(result, server=watch.as_dict())
        following = judged(server, output_tokens=LengthSpec(mean=4), requests=8)
    assert reasons(short, GONE) == reasons(short, BUSY) == []
    assert bool(reasons(first, GONE)) == outlives, first
    assert bool(reasons(following, BUSY)) == outlives, following
    assert reasons(following, GONE) == [], "it gave nobody up itself"
