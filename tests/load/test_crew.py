"""The worker process: its death is noticed, and it never outlives redline."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import orjson
import pytest

from redline.errors import EnvironmentFault, RedlineError
from redline.load.crew import LoadWorker
from redline.load.frames import Arrivals, End, Outgoing, Phase, PhaseDone, RawStream, Tick
from redline.load.paced.pace import Pace
from redline.load.paced.server import PacedServer
from redline.load.target import request_bytes, request_head, resolve


def requests(server: PacedServer, count: int, tokens: int = 5) -> list[Outgoing]:
    head = request_head(server.base_url, "/completions", api_key=None, stream=True)
    body = orjson.dumps({"model": "paced", "prompt": "hello", "max_tokens": tokens, "stream": True})
    return [Outgoing(i, request_bytes(head, f"r-{i}", body)) for i in range(count)]


def hear_until_done(worker: LoadWorker, limit_s: float = 20.0) -> tuple[list[RawStream], list[Tick], PhaseDone]:
    streams: list[RawStream] = []
    ticks: list[Tick] = []
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        for heard in worker.hear(0.2):
            if isinstance(heard, RawStream):
                streams.append(heard)
            elif isinstance(heard, Tick):
                ticks.append(heard)
            else:
                return streams, ticks, heard
    raise AssertionError("the phase never ended")


def gone(pid: int, limit_s: float = 5.0) -> bool:
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        try:
            with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123
                if stat.read().rsplit(")", 1)[1].split()[0] == "Z":
                    return True
        except FileNotFoundError:
            return True
        time.sleep(0.02)
    return False


def test_the_same_code_runs_in_a_thread() -> None:
    with (
        PacedServer(Pace(ttft_ms=3, itl_ms=1)) as server,
        LoadWorker(resolve(server.base_url), in_thread=True) as worker,
    ):
        worker.feed(requests(server, 6))
        worker.start(Phase(Arrivals.CLOSED, clients=2, requests=6))
        streams, _, done = hear_until_done(worker)
    assert sorted(raw.head.number for raw in streams) == list(range(6))
    assert (done.stopped_by, done.sent, done.tick.ended) == ("requests", 6, 6)
    assert sum(raw.head.connect_ns > 0 for raw in streams) == 2  # the others went over kept connections


def test_phases_follow_one_another_on_one_worker() -> None:
    with PacedServer(Pace(ttft_ms=3, itl_ms=1)) as server, LoadWorker(resolve(server.base_url)) as worker:
        worker.feed(requests(server, 4))
        worker.start(Phase(Arrivals.CLOSED, clients=2, requests=4))
        assert len(hear_until_done(worker)[0]) == 4
        worker.feed(requests(server, 3))
        worker.start(Phase(Arrivals.OPEN, offsets_ns=[0, 5_000_000, 10_000_000]))
        streams, _, done = hear_until_done(worker)
    assert [raw.head.intended_ns - done.started_ns for raw in sorted(streams, key=lambda raw: raw.head.number)] == [
        0,
        5_000_000,
        10_000_000,
    ]


def test_a_late_body_keeps_its_place_in_time() -> None:
    """Bodies that come late are sent late, and the lateness shows: intended stays what it was."""
    with PacedServer(Pace(ttft_ms=3, itl_ms=1)) as server, LoadWorker(resolve(server.base_url)) as worker:
        while not worker.ready:  # the time before it runs is not the body's lateness
            worker.hear(0.2)
        worker.start(Phase(Arrivals.OPEN, offsets_ns=[0, 1_000_000]))
        time.sleep(0.3)
        worker.feed(requests(server, 2))
        streams, _, done = hear_until_done(worker)
    assert done.tick.starved == 2
    assert all(raw.head.sent_ns - raw.head.intended_ns > 100_000_000 for raw in streams)


def test_an_idle_connection_that_the_server_closed_is_not_used_again() -> None:
    pace = Pace(ttft_ms=3, itl_ms=1, framing="close")
    with PacedServer(pace) as server, LoadWorker(resolve(server.base_url)) as worker:
        worker.feed(requests(server, 5))
        worker.start(Phase(Arrivals.CLOSED, clients=1, requests=5))
        streams, _, done = hear_until_done(worker)
    assert all(raw.head.connect_ns > 0 and raw.head.end is End.CLOSED for raw in streams)
    assert done.tick.retried == 0


def test_an_answer_without_end_is_cut() -> None:
    with PacedServer(Pace(ttft_ms=1, itl_ms=1, chunk_bytes=20_000)) as server:
        aim = replace(resolve(server.base_url), answer_bytes_max=200_000)
        with LoadWorker(aim) as worker:
            worker.feed(requests(server, 1, tokens=5_000))
            worker.start(Phase(Arrivals.CLOSED, requests=1))
            [raw], _, _ = hear_until_done(worker)
    assert (raw.head.end, 200_000 < len(raw.data) < 50_000_000) == (End.BAD, True)
    assert "no end to it" in raw.error


def test_death_of_the_worker_is_noticed() -> None:
    with PacedServer(Pace(ttft_ms=50, itl_ms=50)) as server, LoadWorker(resolve(server.base_url)) as worker:
        worker.feed(requests(server, 50))
        worker.start(Phase(Arrivals.CLOSED, clients=2, requests=50))
        worker.hear(1.0)
        assert worker.process is not None
        worker.process.kill()
        with pytest.raises(EnvironmentFault, match="signal 9"):
            hear_until_done(worker)


def test_a_bug_in_the_worker_is_told_with_its_traceback() -> None:
    with PacedServer(Pace()) as server, LoadWorker(resolve(server.base_url)) as worker:
        worker._send(b"\x02\x00\x00\x00\x03{]")  # a PHASE that is no JSON
        with pytest.raises(RedlineError, match="worker failed") as caught:
            hear_until_done(worker)
    assert "JSONDecodeError" in caught.value.why


def test_the_worker_ignores_ctrl_c_and_ends_with_its_socket() -> None:
    with PacedServer(Pace(ttft_ms=3, itl_ms=1)) as server:
        worker = LoadWorker(resolve(server.base_url))
        while not worker.ready:
            worker.hear(0.2)
        assert worker.process is not None
        os.kill(worker.process.pid, signal.SIGINT)
        worker.feed(requests(server, 2))
        worker.start(Phase(Arrivals.CLOSED, requests=2))
        assert len(hear_until_done(worker)[0]) == 2
        process = worker.process
        worker.close()
        worker.close()
        assert process.poll() == 0


PARENT = """
import sys, time
from redline.load.crew import LoadWorker
from redline.load.frames import Target
worker = LoadWorker(Target(2, ("127.0.0.1", 1)))
while not worker.ready:
    worker.hear(0.2)
print(worker.process.pid, flush=True)
time.sleep(60)
"""


def test_the_worker_dies_with_its_parent() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
        assert gone(pid)
