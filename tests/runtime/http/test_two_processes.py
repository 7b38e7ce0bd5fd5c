"""The engine in a process of its own, as it is on a GPU: the same answers, and nothing is left of it whatever ends."""

from __future__ import annotations

import gzip
import os
import pickle
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from redline.engines.hf_server.life import DIED
from redline.engines.http import fetch
from redline.observe.otlp import OtlpReceiver
from redline.observe.span import Span
from redline.runtime.wire import Wire
from tests.runtime.http.test_openai import EXACT, GREEDY, Process

openai = pytest.importorskip("openai")


@pytest.fixture
def spans() -> list[Span]:
    return []


@pytest.fixture
def server(tmp_path: Path, spans: list[Span]) -> Iterator[Process]:
    with OtlpReceiver(spans.extend) as receiver:
        yield from served("--profile-dir", str(tmp_path), "--otlp-traces-endpoint", receiver.url)


def served(*flags: str) -> Iterator[Process]:
    server = Process("--processes", "2", "--drain-s", "20", *flags)
    yield server
    server.end()


def engine_of(server: Process) -> psutil.Process:
    (found,) = psutil.Process(server.popen.pid).children()
    assert "redline.runtime.worker" in " ".join(found.cmdline())
    return found


def trace(server: Process, work: Callable[[], Any]) -> None:
    """The engine's process is the one that is traced, and its steps name themselves."""
    assert fetch(f"{server.root}/start_profile", body={}, timeout_s=60).status == 200
    work()
    reply = fetch(f"{server.root}/stop_profile", body={}, timeout_s=60)
    assert reply.status == 200, reply.error
    written = gzip.decompress(Path(reply.json()["file"]).read_bytes())
    assert b'"execute_context_1(' in written
    assert b'"execute_context_0(0)_generation_1(1)"' in written


def phases(spans: list[Span]) -> None:
    """The engine's process told when it began with each request, and when its first token came."""
    end = time.monotonic() + 20
    while not (whole := [one for one in spans if one.name == "llm_request"]):
        assert time.monotonic() < end, "no span came"
        time.sleep(0.05)
    below = {one.name: one for one in spans if one.parent_id == whole[0].span_id}
    assert list(below) == ["queue", "prefill", "decode"]
    assert below["prefill"].ended_ns > below["prefill"].began_ns > whole[0].began_ns


def test_answers_grammars_and_counters_until_the_engine_is_killed(server: Process, spans: list[Span]) -> None:
    with server.client() as client:
        before = server.series("vllm:generation_tokens_total")
        first, second = (client.completions.create(**GREEDY) for _ in range(2))
        assert first.choices[0].text == second.choices[0].text != ""
        phases(spans)
        guided = client.completions.create(**GREEDY, extra_body={"structured_outputs": {"choice": ["alpha", "beta"]}})
        assert guided.choices[0].text in ("alpha", "beta")
        with pytest.raises(openai.BadRequestError):
            client.completions.create(**GREEDY, extra_body={"structured_outputs": {"regex": "("}})
        trace(server, lambda: client.completions.create(**GREEDY))
        told = sum(one.usage.completion_tokens for one in (first, second, guided))
        server.until("vllm:generation_tokens_total", before + told + GREEDY["max_tokens"])
        stream = client.completions.create(**{**GREEDY, "max_tokens": 3000, "stream": True, "extra_body": EXACT})
        next(stream)
        engine_of(server).send_signal(signal.SIGKILL)
        with pytest.raises(openai.APIError, match="killed by signal 9"):
            for _ in stream:
                pass
    assert server.popen.wait(15) == DIED


def test_a_stop_of_the_whole_group_drains_and_a_killed_server_takes_its_engine_along(server: Process) -> None:
    engine = engine_of(server)
    ends: list[str | None] = []

    def one() -> None:
        with server.client() as client:
            asked = {**GREEDY, "max_tokens": 400, "stream": True, "extra_body": EXACT}
            for chunk in client.completions.create(**asked):
                begun.set()
                last = chunk
            ends.append(last.choices[0].finish_reason)

    begun = threading.Event()
    reader = threading.Thread(target=one)
    reader.start()
    assert begun.wait(20)
    engine.send_signal(signal.SIGTERM)
    server.popen.send_signal(signal.SIGTERM)
    reader.join(40)
    assert ends == ["length"]
    assert server.popen.wait(20) == 0
    engine.wait(20)
    again = Process("--processes", "2")
    engine = engine_of(again)
    again.end()
    engine.wait(20)


def test_messages_come_whole_however_they_are_cut() -> None:
    ours, theirs = socket.socketpair()
    sender, receiver = Wire(ours), Wire(theirs)
    theirs.setblocking(False)
    assert receiver.ready() == []
    data = pickle.dumps(("step", list(range(500))))
    whole = len(data).to_bytes(4, "little") + data
    ours.sendall(whole[:3])
    assert receiver.ready() == []
    ours.sendall(whole[3:700])
    assert receiver.ready() == []
    ours.sendall(whole[700:] + whole)
    assert receiver.ready() == [("step", list(range(500)))] * 2
    sender.send("last", os.getpid())
    ours.close()
    assert receiver.ready() == [("last", os.getpid())]
    assert receiver.ready() is None
    theirs.close()
