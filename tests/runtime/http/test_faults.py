"""What goes wrong while it serves: a hung engine, a broken one, a slow one, too many clients, the end."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from redline.engines.hf_server.life import DIED
from tests.engines.hf_server.live import wait_for
from tests.runtime.http.puppet import Puppet, Puppets

pytest.importorskip("tokenizers")
pytest.importorskip("uvicorn")

LONG: dict[str, Any] = {"prompt": "x", "max_tokens": 4000, "ignore_eos": True}


@contextmanager
def streaming(server: Puppets, count: int, **body: Any) -> Iterator[list[http.client.HTTPConnection]]:
    """Open streams that nobody reads."""
    connections = []
    for _ in range(count):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        connection.request("POST", "/v1/completions", json.dumps({**LONG, "stream": True, **body}))
        connections.append(connection)
    try:
        yield connections
    finally:
        for connection in connections:
            connection.close()


def test_health_is_red_within_five_seconds_of_a_hung_engine() -> None:
    with Puppets(Puppet(step_s=0.002)) as server, streaming(server, 1):
        wait_for(lambda: server.series("redline:steps_total") > 5, 10)
        assert server.request("GET", "/health").status == 200
        server.puppet.go_on.clear()
        began = time.monotonic()
        wait_for(lambda: server.request("GET", "/health").status == 503, 20)
        watchdog = server.service.watchdog
        assert watchdog.limit_s + 2 * 0.2 <= 5.0
        assert time.monotonic() - began < 20
        assert "no step was finished" in server.request("GET", "/health").body["status"]
        server.puppet.go_on.set()
        wait_for(lambda: server.request("GET", "/health").status == 200, 10)


def test_a_hung_engine_stays_red_when_its_clients_have_left() -> None:
    with Puppets(Puppet(step_s=0.002), "--stall-s", "1") as server:
        with streaming(server, 1):
            wait_for(lambda: server.series("redline:steps_total") > 5, 10)
            server.puppet.go_on.clear()
            wait_for(lambda: server.service.watchdog.still_s > 0.2, 10)
        wait_for(lambda: not server.service.live, 10)
        wait_for(lambda: server.request("GET", "/health").status == 503, 10)
        server.puppet.go_on.set()
        wait_for(lambda: server.request("GET", "/health").status == 200, 10)


def test_half_characters_are_refused() -> None:
    with Puppets(Puppet()) as server:
        for body in ({"prompt": "\ud800"}, {"prompt": ["x", "a\udfff"]}):
            reply = server.ask(**body)
            assert (reply.status, reply.body["error"]["param"]) == (400, "prompt")
        assert server.ask(chat=True, messages=[{"role": "user", "content": "\ud800"}]).status == 400
        assert server.ask(prompt="x", stop=["\ud800"], max_tokens=2).status == 200


def test_a_broken_device_ends_the_server_and_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    with Puppets(Puppet(step_s=0.005)) as server, ThreadPoolExecutor(3) as pool:
        whole = pool.submit(server.ask, **LONG)
        streamed = pool.submit(server.ask, **LONG, stream=True)
        wait_for(lambda: server.series("vllm:time_to_first_token_seconds_count") == 2, 10)
        server.puppet.broken = "CUDA error: an illegal memory access was encountered"
        assert whole.result().status == 500
        assert "illegal memory access" in whole.result().message
        assert "illegal memory access" in streamed.result().events[-2]["error"]["message"]
        wait_for(lambda: server.code is not None, 10)
        assert server.code == DIED
    assert "illegal memory access" in capfd.readouterr().err


def test_too_many_are_told_when_to_come_back() -> None:
    with Puppets(Puppet(step_s=0.005, max_seqs=1), "--max-waiting", "2") as server, streaming(server, 3):
        wait_for(lambda: server.series("vllm:num_requests_waiting") == 2, 10)
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        connection.request("POST", "/v1/completions", json.dumps({"prompt": "x", "max_tokens": 1}))
        answer = connection.getresponse()
        assert answer.status == 429
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        assert json.loads(answer.read())["error"]["type"] == "rate_limit_error"
        connection.close()
        assert server.series("redline:requests_refused_total") == 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_gives_its_place_back(stream: bool) -> None:
    with Puppets(Puppet(step_s=0.005)) as server:
        with streaming(server, 3, stream=stream):
            wait_for(lambda: server.series("vllm:num_requests_running") == 3, 10)
        wait_for(lambda: server.series("vllm:num_requests_running") == 0, 10)
        assert server.series("vllm:kv_cache_usage_perc") == 0
        assert server.series("vllm:request_success_total", finished_reason="abort") == 3
        assert not server.service.live
        assert server.service.pace.open == 0


def test_draining_truncates_nothing_and_refuses_what_is_new() -> None:
    with Puppets(Puppet(step_s=0.01)) as server, ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(server.ask, **{**LONG, "max_tokens": 80}, stream=bool(n % 2)) for n in range(6)]
        wait_for(lambda: server.series("vllm:num_requests_running") == 6, 10)
        server.life.stop()
        refused = server.ask(prompt="x")
        assert refused.status == 503
        assert "asked to stop" in refused.message
        assert server.request("GET", "/health").status == 503
        for future in asked:
            reply = future.result()
            choice = (reply.chunks[-1] if reply.events else reply.body)["choices"][0]
            assert choice["finish_reason"] == "length"
        wait_for(lambda: server.code is not None, 10)
        assert server.code == 0


def test_what_outlasts_the_drain_ends_with_an_error() -> None:
    with Puppets(Puppet(step_s=0.01), "--drain-s", "0.3") as server, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(server.ask, **LONG, stream=True)
        wait_for(lambda: server.series("vllm:num_requests_running") == 1, 10)
        server.life.stop()
        reply = asked.result()
        assert "stopped before" in reply.events[-2]["error"]["message"]
        assert reply.events[-1] == "[DONE]"
        wait_for(lambda: server.code is not None, 10)
        assert server.code == 0


def test_a_hung_engine_does_not_hold_up_the_end() -> None:
    with Puppets(Puppet(step_s=0.002), "--drain-s", "0.1") as server, streaming(server, 1):
        wait_for(lambda: server.series("redline:steps_total") > 2, 10)
        server.puppet.go_on.clear()
        server.life.stop()
        wait_for(lambda: server.code is not None, 10)
        assert server.code == 0


def test_the_engine_is_not_asked_before_it_is_ready() -> None:
    hold = threading.Event()
    server = Puppets(Puppet())
    build = server.life.build
    server.life.build = lambda *args: hold.wait(20) and build(*args)
    server._thread.start()
    try:
        wait_for(lambda: getattr(server.life, "server", None) is not None and server.life.server.started, 10)
        for path in ("/health", "/v1/models"):
            assert server.request("GET", path).status == 503
        assert server.ask(prompt="x").status == 503
        assert server.request("GET", "/metrics").status == 200
    finally:
        hold.set()
        wait_for(lambda: server.phase == "ready", 20)
        server.stop()


def test_a_wrong_start_says_why(capfd: pytest.CaptureFixture[str]) -> None:
    server = Puppets(Puppet())
    server.life.args.model = "/no/such/folder"
    server._thread.start()
    server._thread.join(30)
    assert server.code == 1
    assert "/no/such/folder is no folder" in capfd.readouterr().err
