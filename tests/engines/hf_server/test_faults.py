"""What fails while it runs: one request, or the whole generation."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from redline.engines.hf_server import serve
from tests.engines.hf_server.live import Live, wait_for

LONG: dict[str, Any] = {"prompt": "x", "max_tokens": 400, "ignore_eos": True}


def break_after(server: Live, steps: int, error: Exception) -> None:
    """From the n-th step on the model raises."""
    assert server.service.loaded is not None
    model = server.service.loaded.model
    forward, seen = model.forward, [0]

    def broken(*args: Any, **kwargs: Any) -> Any:
        seen[0] += 1
        if seen[0] >= steps:
            raise error
        return forward(*args, **kwargs)

    model.forward = broken


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("batching", ["plain", "static"])
def test_a_failed_generate_fails_one_request(tiny: Path, batching: str, stream: bool) -> None:
    with Live(tiny, "--batching", batching) as server:
        assert server.service.loaded is not None
        forward = server.service.loaded.model.forward
        break_after(server, 1, RuntimeError("planted"))
        reply = server.ask(**LONG, stream=stream)
        assert reply.status == 500
        assert "planted" in reply.message
        server.service.loaded.model.forward = forward
        assert server.request("GET", "/health").status == 200
        assert server.ask(prompt="x", max_tokens=3, ignore_eos=True).body["usage"]["completion_tokens"] == 3
        assert server.metric("request_failure_total") == 1


def test_a_failure_within_the_stream_is_an_event(tiny: Path) -> None:
    with Live(tiny) as server:
        break_after(server, 10, RuntimeError("planted"))
        reply = server.ask(**LONG, stream=True)
        assert reply.status == 200
        assert len(reply.chunks) > 1
        assert "planted" in reply.events[-2]["error"]["message"]
        assert reply.events[-1] == "[DONE]"


@pytest.mark.parametrize(
    ("batching", "error"),
    [
        ("plain", RuntimeError("CUDA error: an illegal memory access was encountered")),
        ("continuous", ValueError("planted")),
    ],
)
def test_a_dead_generation_ends_the_server(tiny: Path, batching: str, error: Exception) -> None:
    with Live(tiny, "--batching", batching) as server:
        break_after(server, 20, error)
        with ThreadPoolExecutor(2) as pool:
            replies = list(pool.map(lambda _: server.ask(**LONG), range(2)))
        assert {reply.status for reply in replies} <= {500, 503}
        assert any(str(error)[:20] in reply.message for reply in replies)
        wait_for(lambda: server.code is not None, 10)
        assert server.code == serve.DIED


def test_health_tells_of_a_stall(tiny: Path) -> None:
    import threading

    with Live(tiny, "--stall-timeout-s", "0.2") as server:
        assert server.service.loaded is not None
        model, go_on = server.service.loaded.model, threading.Event()
        forward = model.forward

        def slow(*args: Any, **kwargs: Any) -> Any:
            go_on.wait(20)
            return forward(*args, **kwargs)

        model.forward = slow
        assert server.request("GET", "/health").status == 200
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(server.ask, prompt="x", max_tokens=3, ignore_eos=True)
            wait_for(lambda: server.service.live, 5)
            wait_for(lambda: server.request("GET", "/health").status == 503, 5)
            assert "no token" in server.request("GET", "/health").body["status"]
            go_on.set()
            assert answer.result().status == 200
        assert server.request("GET", "/health").status == 200


def test_little_memory_changes_no_text(tiny: Path, servers: dict[str, Live]) -> None:
    """Requests that lose their KV blocks to others are computed again."""
    prompts = [f"{number} the quick brown fox" for number in range(8)]
    expected = [servers["plain"].ask(prompt=prompt, max_tokens=60, ignore_eos=True).text for prompt in prompts]
    flags = ("--num-blocks", "24", "--block-size", "16", "--max-batch-tokens", "64")
    with Live(tiny, "--batching", "continuous", *flags) as server, ThreadPoolExecutor(8) as pool:
        ask = lambda prompt: server.ask(prompt=prompt, max_tokens=60, ignore_eos=True, stream=True)
        assert [reply.text for reply in pool.map(ask, prompts)] == expected
        assert server.metric("kv_cache_usage_perc") == 0
        wait_for(lambda: not server.service.live, 5)


def test_cancelled_while_waiting_for_memory(tiny: Path) -> None:
    flags = ("--num-blocks", "40", "--block-size", "16", "--max-batch-size", "1")
    with Live(tiny, "--batching", "continuous", *flags) as server:
        import http.client
        import json

        connections = []
        for _ in range(4):
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
            connection.request("POST", "/v1/completions", json.dumps({**LONG, "stream": True, "temperature": 0}))
            connections.append(connection)
        wait_for(lambda: len(server.service.live) == 4, 10)
        for connection in connections:
            connection.close()
        wait_for(lambda: not server.service.live, 10)
        wait_for(lambda: server.metric("kv_cache_usage_perc") == 0, 10)
        assert server.ask(prompt="x", max_tokens=3, ignore_eos=True).status == 200


def test_what_the_cache_cannot_hold_is_refused(tiny: Path) -> None:
    flags = ("--num-blocks", "10", "--block-size", "16")
    with Live(tiny, "--batching", "continuous", *flags) as server:
        limit = server.request("GET", "/v1/models").body["data"][0]["max_model_len"]
        assert 128 <= limit < 160
        asked: dict[str, Any] = {"prompt": [5] * 20, "ignore_eos": True}
        assert server.ask(**asked, max_tokens=limit - 20).body["usage"]["total_tokens"] == limit
        with ThreadPoolExecutor(4) as pool:
            replies = list(pool.map(lambda _: server.ask(**asked, max_tokens=limit - 20), range(4)))
        assert [reply.status for reply in replies] == [200] * 4
        assert server.ask(**asked, max_tokens=limit - 19).status == 400
