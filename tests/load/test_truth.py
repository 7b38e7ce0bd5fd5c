"""The client held to the paced server's own record of what it sent, and when."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import orjson
import pytest
from numpy.typing import NDArray

from redline.load.crew import LoadWorker
from redline.load.frames import Arrivals, End, Outgoing, Phase, PhaseDone, RawStream, Stamp, Target
from redline.load.paced.loop import Truth
from redline.load.paced.pace import Pace
from redline.load.paced.server import PacedServer
from redline.load.reading import Asked, Reader
from redline.load.record import Status
from redline.load.target import request_bytes, request_head, resolve

Floats = NDArray[np.float64]
TOKENS = 24


def collect(server: PacedServer, clients: int, requests: int, **target: object) -> list[RawStream]:
    """Raw streams of a closed loop."""
    head = request_head(server.base_url, "/completions", api_key=None, stream=True)
    body = orjson.dumps({"model": "paced", "prompt": "hello", "max_tokens": TOKENS, "stream": True})
    aim: Target = replace(resolve(server.base_url), **target)  # type: ignore[arg-type]
    streams: list[RawStream] = []
    with LoadWorker(aim) as worker:
        worker.feed(Outgoing(i, request_bytes(head, f"r-{i}", body)) for i in range(requests))
        worker.start(Phase(Arrivals.CLOSED, clients=clients, requests=requests, preconnect=True))
        while True:
            for heard in worker.hear(1.0):
                if isinstance(heard, RawStream):
                    streams.append(heard)
                elif isinstance(heard, PhaseDone):
                    return streams


@dataclass
class Errors:
    """Distance of what a client would report from what was, in ms; the kernel's stamps and a user-space client's."""

    ttft: Floats
    itl: Floats
    user_ttft: Floats
    user_itl: Floats


def errors(streams: list[RawStream], truths: list[Truth]) -> Errors:
    by_id = {truth.id: truth for truth in truths}
    found: dict[str, list[Floats]] = {"ttft": [], "itl": [], "user_ttft": [], "user_itl": []}
    for raw in streams:
        truth = by_id[f"r-{raw.head.number}"]
        sent = np.array(truth.before_ns, dtype=np.int64)
        for prefix, stamps in (("", raw.stamps), ("user_", raw.seen)):
            as_client = replace(raw, stamps=stamps)
            record = Reader().read(as_client, Asked(0, TOKENS))
            assert record.status is Status.OK
            got = np.array(record.chunk_ns, dtype=np.int64)
            found[prefix + "ttft"].append(((got[:1] - record.sent_ns) - (sent[:1] - truth.arrived_ns)) / 1e6)
            found[prefix + "itl"].append((np.diff(got) - np.diff(sent)) / 1e6)
    return Errors(**{name: np.abs(np.concatenate(parts)) for name, parts in found.items()})


def test_kernel_stamps_survive_a_client_that_freezes() -> None:
    """Frozen 10 ms out of every 25: a user-space client reports its own freezes, the kernel's stamps do not."""
    with PacedServer(Pace(ttft_ms=30, itl_ms=20)) as server:
        streams = collect(server, 20, 60, stall_every_ms=15.0, stall_ms=10.0)
        found = errors(streams, server.truth())
    assert all(raw.head.stamp is Stamp.KERNEL for raw in streams)
    assert len(found.itl) == 60 * (TOKENS - 1)
    for mine, theirs in ((found.ttft, found.user_ttft), (found.itl, found.user_itl)):
        assert np.percentile(mine, 75) < np.percentile(theirs, 75) / 5
    assert np.percentile(found.user_itl, 90) > 2.0  # the freeze was really there


def test_a_client_that_keeps_up_is_right_about_everything() -> None:
    with PacedServer(Pace(ttft_ms=30, itl_ms=10)) as server:
        streams = collect(server, 10, 30)
        found = errors(streams, server.truth())
    assert np.median(found.ttft) < 0.3  # 1 % of 30 ms
    assert np.median(found.itl) < 0.1


def test_without_kernel_stamps_the_record_says_so() -> None:
    with PacedServer(Pace(ttft_ms=5, itl_ms=2)) as server:
        streams = collect(server, 3, 6, timestamps=False)
    assert all(raw.head.stamp is Stamp.USER for raw in streams)
    assert all(list(raw.stamps) == list(raw.seen) for raw in streams)


def test_the_send_is_stamped_when_it_leaves() -> None:
    """Our send stamp against the server kernel's receive stamp of the request's last byte."""
    with PacedServer(Pace(ttft_ms=5, itl_ms=1)) as server:
        streams = collect(server, 5, 40)
        truths = {truth.id: truth for truth in server.truth()}
    lags = [truths[f"r-{raw.head.number}"].arrived_ns - raw.head.sent_ns for raw in streams]
    assert min(lags) > -100_000  # never after it arrived
    assert np.median(lags) < 100_000


@pytest.mark.parametrize("pace", [Pace(ttft_ms=10, itl_ms=4, split=4), Pace(ttft_ms=10, itl_ms=4, events_per_send=2)])
def test_an_event_arrives_with_its_last_byte(pace: Pace) -> None:
    with PacedServer(pace) as server:
        streams = collect(server, 4, 12)
        truths = {truth.id: truth for truth in server.truth()}
    late = []
    for raw in streams:
        assert raw.head.end is End.COMPLETE
        truth = truths[f"r-{raw.head.number}"]
        got = Reader().read(raw, Asked(0, TOKENS)).chunk_ns
        late.append((np.array(got) - np.repeat(truth.before_ns, truth.tokens)) / 1e6)
    assert np.median(np.abs(late)) < 0.15  # a quarter of an event earlier would be 0.2 ms off
