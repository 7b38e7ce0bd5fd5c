"""Servers that misbehave: no hang, no finished request lost, every failure counted and called by its name."""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from redline.engines.endpoint import Endpoint
from redline.errors import EnvironmentFault
from redline.load.crew import LoadWorker
from redline.load.paced.pace import Pace
from redline.load.paced.server import PacedServer
from redline.load.prompts import PromptSource, prompt_source
from redline.load.record import RequestRecord, Status
from redline.load.run import run_point
from redline.spec.load import LoadPoint, LoadSpec
from tests.load.scripted import HANG, RESET, ScriptedServer, Step
from tests.load.servers import Result, closed, fast, push, workload
from tests.load.streams import DONE, OK_HEAD, chunked, text_event

TOKENS = 8
EVENTS = [text_event(f" {i}") for i in range(TOKENS)]
ENDING = [text_event("", "stop", (5, TOKENS)), DONE]
WHOLE = OK_HEAD + b"".join(chunked(*EVENTS, *ENDING))


@cache
def prompts() -> PromptSource:
    """Made and counted by a server that is well."""
    well = PacedServer(fast()).start()
    atexit.register(well.stop)
    return prompt_source(well.endpoint, workload(), seed=1, tokenizer_path=None, needed=200)


def point(endpoint: Endpoint, clients: int = 2, **load: Any) -> Result:
    """One closed-loop point that takes seconds however the server behaves."""
    work = workload(keep_text=True)
    records: list[RequestRecord] = []
    values = {"duration_s": 5.0, "drain_s": 0.5, "warmup_requests": 1, "requests": 12, **load}
    outcome = run_point(
        endpoint,
        work,
        LoadSpec(**values),
        LoadPoint("closed", clients),
        seed=1,
        prompts=prompts(),
        on_record=records.append,
    )
    assert outcome.sent == sum(not record.warmup for record in records), "every request that was sent has its record"
    assert all(bool(record.error) is record.failed for record in records)
    return Result(outcome, records)


def every_third(fault: list[Step]) -> Any:
    def script(number: int) -> list[Step]:
        return fault if number % 3 == 2 else [WHOLE]

    return script


CASES: dict[str, tuple[list[Step], Status, str]] = {
    "closed in the middle": ([OK_HEAD, *chunked(*EVENTS[:3], last=False), RESET], Status.RESET, "reset"),
    "error event": (
        [OK_HEAD + b"".join(chunked(*EVENTS[:3], b'data: {"error": {"message": "out of pages"}}\n\n', DONE))],
        Status.MALFORMED,
        "out of pages",
    ),
    "named error event": (
        [OK_HEAD + b"".join(chunked(*EVENTS[:3], b"event: error\ndata: engine gone\n\n"))],
        Status.MALFORMED,
        "engine gone",
    ),
    "empty answer": ([OK_HEAD + b"".join(chunked(*ENDING[1:]))], Status.EMPTY, "without one token"),
    "a stall before the head": ([HANG], Status.TIMEOUT, "no answer at all"),
    "a stall in the head": ([OK_HEAD[:30], HANG], Status.TIMEOUT, "before a whole head"),
    "a stall in the body": ([OK_HEAD, *chunked(*EVENTS[:3], last=False), HANG], Status.TIMEOUT, "silent for too long"),
    "a stall before the last chunk": (
        [OK_HEAD, *chunked(*EVENTS, last=False), HANG], Status.TIMEOUT, "silent for too long",
    ),
    "half an event": ([OK_HEAD + b"".join(chunked(*EVENTS[:3], EVENTS[3][:20]))], Status.MALFORMED, "no JSON"),
    "broken JSON": ([OK_HEAD + b"".join(chunked(*EVENTS[:3], b"data: {]\n\n"))], Status.MALFORMED, "no JSON"),
    "broken chunk size": ([OK_HEAD + b"5\r\nhello\r\nzz\r\n0\r\n\r\n"], Status.MALFORMED, "no proper HTTP"),
    "not HTTP at all": ([b"SSH-2.0-OpenSSH_9.6\r\n" * 3, RESET], Status.MALFORMED, "no proper HTTP"),
    "gone before it answered": ([RESET], Status.CONNECT, "before it answered"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_third_of_the_answers_goes_wrong(name: str) -> None:
    steps, status, words = CASES[name]
    with ScriptedServer(every_third(steps)) as server:
        result = point(server.endpoint, idle_timeout_s=0.5, requests=9)
    bad = [record for record in result.records if record.failed]
    assert {record.status for record in bad} == {status}
    assert len(bad) == len(result.records) // 3 == 3
    assert all(words in record.error for record in bad), bad[0].error
    assert result.count(Status.OK) == 9 - sum(not record.warmup for record in bad)
    assert result.outcome.stopped_by == "requests"


def test_an_answer_cut_by_the_end_of_the_connection() -> None:
    """FIN, not RST: the server says goodbye politely, in the middle."""

    class Polite(ScriptedServer):
        def _serve(self, sock: socket.socket) -> None:
            with sock:
                while self._take_request(sock):
                    sock.sendall(OK_HEAD + b"".join(chunked(*EVENTS[:3], last=False)))
                    return

    with Polite(lambda n: []) as server:
        result = point(server.endpoint, requests=6)
    assert result.count(Status.RESET) == 6
    assert all("closed the connection after 3 chunks" in record.error for record in result.measured)
    assert all(len(record.chunk_ns) == 3 for record in result.measured)  # what came is kept


def test_a_tenth_of_the_answers_is_a_500() -> None:
    with PacedServer(fast(faults={"http-500": 0.1})) as server:
        result = push(server, closed(5), requests=100, warmup_requests=1)
        planted = [entry for entry in server.truth() if entry.fault]
    failed = [record for record in result.records if record.failed]
    assert len(failed) == len(planted) == 10
    assert {(record.status, record.http_status, record.error) for record in failed} == {
        (Status.HTTP, 500, "HTTP 500: planted failure")
    }
    assert result.outcome.stopped_by == "requests"
    assert len(result.measured) == 100


def test_every_stream_stalls_for_ever() -> None:
    with ScriptedServer(lambda n: [OK_HEAD, *chunked(*EVENTS[:2], last=False), HANG]) as server:
        began = time.monotonic()
        result = point(server.endpoint, clients=4, idle_timeout_s=0.4, duration_s=1.5, requests=0)
        took = time.monotonic() - began
    assert took < 10
    assert len(result.measured) >= 4
    assert {record.status for record in result.measured} <= {Status.TIMEOUT, Status.CANCELLED}


def dribble(data: bytes, gap_s: float) -> Iterator[Step]:
    for i in range(len(data)):
        yield data[i : i + 1]
        yield gap_s


def test_an_answer_that_dribbles_in_byte_by_byte_is_good_and_its_times_are_true() -> None:
    """Head, chunk sizes, events: nothing comes in one piece, and never is the server silent for long."""
    with ScriptedServer(lambda n: dribble(WHOLE, 0.0002) if n else [WHOLE]) as server:
        result = point(server.endpoint, clients=1, requests=2, idle_timeout_s=2, duration_s=30, drain_s=20)
    assert result.count(Status.OK) == 2
    for record in result.measured:
        assert record.text == "".join(f" {i}" for i in range(TOKENS))
        assert len(set(record.chunk_ns)) == TOKENS
        # each event takes as long as its bytes do: the first chunk cannot have come with the head
        assert record.chunk_ns[0] - record.first_byte_ns > len(OK_HEAD) * 200_000
        assert record.finished_ns - record.sent_ns > len(WHOLE) * 200_000


@pytest.mark.parametrize("where", ["head", "body"])
def test_a_slow_loris_that_never_ends_meets_the_total_timeout(where: str) -> None:
    def script(number: int) -> Iterator[Step]:
        yield OK_HEAD[:-2] + b"X: " if where == "head" else OK_HEAD + b"ffffff\r\n"
        while True:
            yield b"x"
            yield 0.02

    with ScriptedServer(script) as server:
        began = time.monotonic()
        result = point(
            server.endpoint, requests=2, idle_timeout_s=0.5, timeout_s=1.0, warmup_requests=1, duration_s=20, drain_s=10
        )
        took = time.monotonic() - began
    assert took < 15
    assert result.count(Status.TIMEOUT) == 2
    assert all("not done in time" in record.error for record in result.records)


def test_a_head_without_end_costs_no_more_than_its_bytes() -> None:
    """Judged anew at each byte it would cost their square, and delay everybody else's requests."""
    with ScriptedServer(lambda n: [OK_HEAD[:-2] + b"X: ", *([b"x" * 7] * 3000), HANG]) as server:
        before = time.process_time()
        result = point(server.endpoint, clients=1, requests=1, idle_timeout_s=0.5, warmup_requests=1)
        assert time.process_time() - before < 20
    assert result.count(Status.TIMEOUT) == 1
    assert result.outcome.client_cpu_s < 1.0


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_characters_cut_across_events_chunks_and_packets(size: int) -> None:
    """No piece holds a whole character of four bytes, nor a whole escape."""
    text = "😀é漢 \\u00e9"
    event = ('data: {"choices":[{"index":0,"text":"' + text + '","finish_reason":null}]}\n\n').encode()
    body = event * 3 + b"".join(ENDING)
    pieces = [body[i : i + size] for i in range(0, len(body), size)]
    sent = b"".join(chunked(*pieces))

    def script(number: int) -> Iterator[Step]:
        yield OK_HEAD
        for i in range(0, len(sent), size + 4):
            yield sent[i : i + size + 4]
            if i < 200:
                yield 0.001

    with ScriptedServer(script) as server:
        result = point(server.endpoint, clients=1, requests=2, drain_s=5)
    assert result.count(Status.OK) == 2
    assert {record.text for record in result.records} == {"😀é漢 é" * 3}


def test_bytes_that_are_no_utf_8_do_not_pass_for_an_answer() -> None:
    bad = b'data: {"choices":[{"index":0,"text":"\xff\xfe","finish_reason":null}]}\n\n'
    with ScriptedServer(lambda n: [OK_HEAD + b"".join(chunked(EVENTS[0], bad, *ENDING))]) as server:
        result = point(server.endpoint, requests=4)
    assert result.count(Status.MALFORMED) == 4
    assert "no JSON" in result.measured[0].error


def test_nobody_accepts() -> None:
    """SYNs go unanswered: neither refused nor connected."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(address)
            fillers.append(filler)
        endpoint = Endpoint(f"http://127.0.0.1:{address[1]}/v1", "m", "e", "1")
        began = time.monotonic()
        result = point(endpoint, requests=4, idle_timeout_s=0.5, duration_s=3)
        for filler in fillers:
            filler.close()
    assert time.monotonic() - began < 20
    assert {record.status for record in result.records} == {Status.TIMEOUT}
    assert all("no connection within the time allowed" in record.error for record in result.records)


def test_a_worker_that_is_killed_loses_no_finished_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that were waiting for their stamps when it died."""
    workers: list[LoadWorker] = []
    made = LoadWorker.__init__

    def noted(self: LoadWorker, *args: Any, **named: Any) -> None:
        made(self, *args, **named)
        workers.append(self)

    monkeypatch.setattr(LoadWorker, "__init__", noted)
    records: list[RequestRecord] = []
    with PacedServer(Pace(ttft_ms=5, itl_ms=2)) as server:

        def kill_it() -> None:
            while sum(record.status is Status.OK for record in list(records)) < 60:
                time.sleep(0.01)
            process = workers[0].process
            assert process is not None
            os.kill(process.pid, signal.SIGKILL)

        threading.Thread(target=kill_it, daemon=True).start()
        with pytest.raises(EnvironmentFault, match="signal 9"):
            push(server, closed(5), duration_s=30, on_record=records.append)
        finished = sum(entry.finished_ns > 0 for entry in server.truth())
    # at most the five that were on the wire between the server's last byte and the worker's death
    assert finished - 6 <= len(records) <= finished


_STARVED = """
import subprocess, sys
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
open("/proc/sys/net/ipv4/ip_local_port_range", "w").write(sys.argv[1])
from redline.load.paced.server import PacedServer
from redline.load.paced.pace import Pace
from redline.load.record import Status
from redline.spec.load import LoadPoint
from tests.load.servers import push
with PacedServer(Pace(ttft_ms=300, itl_ms=5, usage="none", tokenizer=False), port=9000) as server:
    result = push(server, LoadPoint("constant", 60), duration_s=2.5, drain_s=2, warmup_requests=1)
count = {str(s): sum(r.status is s for r in result.records) for s in Status}
errors = sorted({r.error for r in result.records if r.failed})
sent = sum(not r.warmup for r in result.records) == result.outcome.sent
print(repr((count["ok"], count["connect"], errors, result.outcome.stopped_by, result.outcome.never_left, sent)))
"""


def in_a_namespace(*command: str) -> subprocess.CompletedProcess[str]:
    """With a network of its own, where the box's may be given one; skips where not."""
    probe = ["unshare", "-n", "true"]
    try:
        unable = subprocess.run(probe, capture_output=True, check=False).returncode
    except FileNotFoundError:
        unable = 1
    if unable:
        pytest.skip("needs root or user namespaces (unshare -n)")
    root = Path(__file__).parents[2]
    return subprocess.run(
        ["unshare", "-n", *command], capture_output=True, text=True, timeout=90, cwd=root, env=os.environ, check=False
    )


def test_local_ports_run_out() -> None:
    """Twenty requests in flight and eight ports, in a network of their own: who has none says so."""
    done = in_a_namespace(sys.executable, "-c", _STARVED, "40000 40007")
    assert done.returncode == 0, done.stderr
    good, failed, errors, stopped_by, never_left, all_told = eval(done.stdout)
    assert all_told
    assert good > 10
    assert failed > 0
    assert errors == ["no free local port left (sysctl net.ipv4.ip_local_port_range)"]
    assert (stopped_by, never_left > 0) == ("duration", True)


def test_a_descriptor_that_is_not_to_be_had_is_not_the_servers_refusal() -> None:
    code = (
        "import resource\n"
        "from redline.load.crew import LoadWorker\n"
        "from redline.load.frames import Arrivals, End, Outgoing, Phase, PhaseDone, RawStream, Target\n"
        "import socket\n"
        "listener = socket.create_server(('127.0.0.1', 0))\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))\n"
        "ends = []\n"
        "with LoadWorker(Target(2, listener.getsockname(), idle_ns=500_000_000)) as worker:\n"
        "    worker.feed(Outgoing(i, b'x') for i in range(30))\n"
        "    worker.start(Phase(Arrivals.OPEN, offsets_ns=[0] * 30))\n"
        "    done = None\n"
        "    while done is None:\n"
        "        for heard in worker.hear(1):\n"
        "            if isinstance(heard, RawStream): ends.append((heard.head.end.name, heard.error))\n"
        "            elif isinstance(heard, PhaseDone): done = heard\n"
        "assert len(ends) == 30, len(ends)\n"
        "print(sorted(set(ends)))\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert said.returncode == 0, said.stderr
    assert "('LOCAL', 'too many open files (raise ulimit -n)')" in said.stdout
    assert "IDLE" in said.stdout  # those that had one met a silent server


def test_a_server_that_talks_before_it_is_asked_and_after_it_is_done() -> None:
    """Bytes that nobody asked for cost the connection, never the next answer."""
    with ScriptedServer(lambda n: [WHOLE + b"HTTP/1.1 408 Request Timeout\r\n\r\n"]) as server:
        result = point(server.endpoint, requests=6)
    assert result.count(Status.OK) == 6
    assert not any(record.error for record in result.records)
