"""The packet tier held to the paced server's own record, with a client that is frozen in the middle of its streams."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import orjson
import pytest
from numpy.typing import NDArray

from redline.errors import Skipped
from redline.load.crew import LoadWorker
from redline.load.frames import Arrivals, End, Outgoing, Phase, PhaseDone, RawStream, Stamp, StreamHead, Target
from redline.load.paced.loop import Truth
from redline.load.paced.pace import Pace
from redline.load.paced.server import PacedServer
from redline.load.reading import Asked, Reader
from redline.load.record import Status
from redline.load.ring import PacketRing, Segments, open_ring
from redline.load.stamping import Stamper
from redline.load.target import request_bytes, request_head, resolve
from tests.load.rings import needs_ring

Floats = NDArray[np.float64]
TOKENS = 40


def drive(
    server: PacedServer, clients: int, requests: int, *, ring_bytes: int = 8 << 20, **target: object
) -> tuple[list[RawStream], list[RawStream], Stamper]:
    """The streams as the worker saw them, the same re-stamped, and who did that."""
    head = request_head(server.base_url, "/completions", api_key=None, stream=True)
    body = orjson.dumps({"model": "paced", "prompt": "hello", "max_tokens": TOKENS, "stream": True})
    aim: Target = replace(resolve(server.base_url), **target)  # type: ignore[arg-type]
    plain: list[RawStream] = []
    better: list[RawStream] = []
    with Stamper(aim, "packet", ring_bytes) as stamper, LoadWorker(aim) as worker:
        worker.feed(Outgoing(i, request_bytes(head, f"r-{i}", body)) for i in range(requests))
        worker.start(Phase(Arrivals.CLOSED, clients=clients, requests=requests, preconnect=True))
        done = False
        while not done:
            for heard in worker.hear(0.05):
                if isinstance(heard, RawStream):
                    plain.append(heard)
                    stamper.put(heard)
                done = done or isinstance(heard, PhaseDone)
            better += stamper.ready()
        better += stamper.flush()
    return plain, better, stamper


def gap_errors(streams: list[RawStream], truths: list[Truth], *, user: bool = False) -> Floats:
    """|reported − true| of every gap, ms."""
    by_id = {truth.id: truth for truth in truths}
    found = []
    for raw in streams:
        record = Reader().read(replace(raw, stamps=raw.seen) if user else raw, Asked(0, TOKENS))
        assert record.status is Status.OK
        sent = np.array(by_id[f"r-{record.index}"].before_ns, dtype=np.int64)
        found.append((np.diff(np.array(record.chunk_ns)) - np.diff(sent)) / 1e6)
    return np.abs(np.concatenate(found))


@needs_ring
def test_a_client_frozen_for_200_ms_reports_the_true_gaps() -> None:
    """20 ms between tokens, and the client sees nothing for ten of them at a time."""
    with PacedServer(Pace(ttft_ms=30, itl_ms=20)) as server:
        plain, better, stamper = drive(server, 10, 20, stall_every_ms=300.0, stall_ms=200.0)
        truths = server.truth()
    assert (stamper.report.restamped, stamper.report.fell_back, stamper.report.dropped) == (20, 0, 0)
    assert all(raw.head.stamp is Stamp.PACKET for raw in better)
    packet, kernel = gap_errors(better, truths), gap_errors(plain, truths)
    user = gap_errors(plain, truths, user=True)
    assert len(packet) == 20 * (TOKENS - 1)
    shared = [Reader().read(raw, Asked(0, TOKENS)).shared_stamps for raw in plain]
    assert sum(shared) > len(packet) / 10, "the sockets' stamps are lost in the freeze, and that is counted"
    assert sum(Reader().read(raw, Asked(0, TOKENS)).shared_stamps for raw in better) == 0
    for wrong in (kernel, user):
        assert np.percentile(packet, 95) < np.percentile(wrong, 95) / 20
    assert np.median(packet) < 1.0  # a twentieth of a gap, on a box that does other things too


@needs_ring
def test_several_answers_on_one_connection_each_get_their_own() -> None:
    with PacedServer(Pace(ttft_ms=10, itl_ms=2)) as server:
        plain, better, stamper = drive(server, 2, 12)
        truths = server.truth()
    assert len({raw.head.port for raw in better}) == 2
    assert stamper.report.restamped == 12
    assert [raw.data for raw in plain] == [raw.data for raw in better]
    assert all(sum(raw.lengths) == len(raw.data) for raw in better)
    for raw in better:
        assert raw.head.sent_ns < raw.stamps[0]
        assert list(raw.stamps) == sorted(raw.stamps)
    assert np.median(gap_errors(better, truths)) < 0.5


@needs_ring
def test_a_ring_that_is_too_small_says_what_it_lost() -> None:
    """Nobody empties it for a second; it holds a few thousand headers."""
    with PacedServer(Pace(ttft_ms=5, itl_ms=1, tokens=400)) as server:
        aim = resolve(server.base_url)
        head = request_head(server.base_url, "/completions", api_key=None, stream=True)
        body = orjson.dumps({"model": "paced", "prompt": "hello", "max_tokens": 400, "stream": True})
        with Stamper(aim, "packet", 1 << 19) as stamper, LoadWorker(aim) as worker:
            worker.feed(Outgoing(i, request_bytes(head, f"r-{i}", body)) for i in range(40))
            worker.start(Phase(Arrivals.CLOSED, clients=40, requests=40, preconnect=True))
            time.sleep(2.0)
            streams = []
            while len(streams) < 40:
                for heard in worker.hear(1.0):
                    if isinstance(heard, RawStream):
                        streams.append(heard)
                        stamper.put(heard)
            better = stamper.flush()
    assert stamper.report.dropped > 0
    assert stamper.report.fell_back > 0
    assert stamper.report.fell_back + stamper.report.restamped == 40
    kept = [raw for raw in better if raw.head.stamp is Stamp.KERNEL]
    assert len(kept) == stamper.report.fell_back
    assert all(raw.head.end is End.COMPLETE for raw in better)


def test_without_the_right_the_reason_and_the_remedy_are_said() -> None:
    """In a process that gave CAP_NET_RAW away."""
    code = (
        "import ctypes\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "class H(ctypes.Structure): _fields_ = [('v', ctypes.c_uint32), ('pid', ctypes.c_int)]\n"
        "D = ctypes.c_uint32 * 6\n"
        "assert libc.capset(ctypes.byref(H(0x20080522, 0)), D(0, 0, 0, 0, 0, 0)) == 0\n"
        "from redline.load.ring import open_ring\n"
        "from redline.load.frames import Target\n"
        "print(open_ring(Target(2, ('127.0.0.1', 9))))\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert "CAP_NET_RAW" in said.stdout
    assert "setcap" in said.stdout


def test_the_kernel_tier_is_taken_where_no_ring_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("redline.load.stamping.open_ring", lambda *_: Skipped("no right", "get it"))
    with Stamper(Target(2, ("127.0.0.1", 9)), "auto") as stamper:
        assert (stamper.report.tier, stamper.report.why_not) == ("kernel", "no right (get it)")
    with pytest.raises(Exception, match="no right"):
        Stamper(Target(2, ("127.0.0.1", 9)), "packet")


@needs_ring
@pytest.mark.parametrize("bound", ["::1", "127.0.0.1"], ids=["IPv6", "IPv4 mapped"])
def test_ipv6(bound: str) -> None:
    """Forty bytes of header instead of twenty, and addresses of IPv4 that only look like IPv6."""
    family = socket.AF_INET6 if ":" in bound else socket.AF_INET
    try:
        listener = socket.create_server((bound, 0), family=family)
    except OSError:
        pytest.skip("no IPv6 on this box")
    host = bound if ":" in bound else f"::ffff:{bound}"
    sent: list[int] = []
    with listener, Stamper(Target(socket.AF_INET6, (host, listener.getsockname()[1], 0, 0)), "packet") as stamper:
        client = socket.create_connection((host, listener.getsockname()[1]))
        server, _ = listener.accept()
        with client, server:
            asked = time.monotonic_ns()
            for _ in range(5):
                sent.append(time.monotonic_ns())
                server.sendall(b"x" * 100)
                time.sleep(0.01)
            seen, data = time.monotonic_ns(), client.recv(1000)
            head = StreamHead(
                0, asked, 0, 0, asked, seen, End.COMPLETE, Stamp.KERNEL, 0, int(client.getsockname()[1]), 0
            )
            stamper.put(RawStream(head, "", data, [len(data)], [seen], [seen]))
            [raw] = stamper.flush()
    assert (raw.head.stamp, list(raw.lengths)) == (Stamp.PACKET, [100] * 5)
    assert all(0 <= stamp - at < 5_000_000 for stamp, at in zip(raw.stamps, sent, strict=True))
    assert list(raw.seen) == [seen] * 5


@needs_ring
def test_a_server_behind_address_translation_is_said_to_be() -> None:
    """The ring waits for another address than the packets come from: docker's published ports are like that."""
    with (
        PacedServer(Pace(ttft_ms=5, itl_ms=1)) as server,
        PacedServer(Pace()) as other,
        Stamper(resolve(other.base_url), "auto") as stamper,
    ):
        for raw in drive(server, 1, 2)[0]:
            stamper.put(raw)
        better = stamper.flush()
    assert {raw.head.stamp for raw in better} == {Stamp.KERNEL}
    [note] = stamper.report.notes()
    assert note.startswith("2 of 2 answers kept")
    assert "address translation" in note


@needs_ring
def test_packets_of_other_servers_stay_out() -> None:
    with PacedServer(Pace(ttft_ms=5, itl_ms=1)) as server, PacedServer(Pace(ttft_ms=5, itl_ms=1)) as other:
        ring = open_ring(resolve(other.base_url), 1 << 20)
        assert isinstance(ring, PacketRing)
        drive(server, 2, 4)
        time.sleep(0.1)
        assert sum(map(len, ring.drain())) == 0
        ring.close()


@needs_ring
def test_segments_that_the_device_put_together_are_counted() -> None:
    with Stamper(Target(2, ("127.0.0.1", 9)), "packet", 1 << 20) as stamper:
        ring = stamper._ring
        assert ring is not None
        ring._mtu[7] = 1500
        column = np.array([1460, 1461, 5000], np.int64)
        ring._look_for_merged(Segments(column, column, column, column, column < 0), 7)
        stamper.ready()
        assert stamper.report.merged == 2
        assert "gro off" in stamper.report.notes()[0]


def test_nothing_of_the_ring_outlives_it() -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(3):
        Stamper(Target(2, ("127.0.0.1", 9)), "auto").__exit__(None, None, None)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    assert ctypes.sizeof(ctypes.c_void_p) == 8
