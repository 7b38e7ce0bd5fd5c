"""Streams held open against servers that misbehave."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from redline.engines.endpoint import Dialect, Endpoint
from redline.errors import Unsupported
from redline.tune.profile.held import DrivenBadly, HeldBatch

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


def event(count: int) -> bytes:
    return b'data: {"choices": [{"text": "a"}], "usage": {"completion_tokens": %d}}\n\n' % count


@contextmanager
def answering(script: Callable[[socket.socket], None]) -> Iterator[str]:
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                one, _ = listener.accept()
            except OSError:
                return
            with one:
                one.recv(1 << 16)
                script(one)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def endpoint(url: str, *, token_id_prompts: bool = True, continuous_usage: bool = True) -> Endpoint:
    told = Dialect(token_id_prompts=token_id_prompts, continuous_usage=continuous_usage)
    return Endpoint(url, "m", "it", "1", dialect=told)


def silent(one: socket.socket) -> None:
    one.recv(1)


def test_tokens_by_usage_however_the_bytes_come() -> None:
    def script(one: socket.socket) -> None:
        data = HEAD + event(1) + event(4) + event(7)
        for place in range(0, len(data), 7):
            one.sendall(data[place : place + 7])
        one.recv(1)

    with answering(script) as url, HeldBatch(endpoint(url), [[1, 2]], 50) as held:
        held.wait(lambda counts: counts == [7], 10)
        assert held.open == 1


def test_tokens_by_chunks() -> None:
    def script(one: socket.socket) -> None:
        data = HEAD + b"".join(b'data: {"choices": [{"text": "a"}]}\n\n' for _ in range(5)) + b"data: [DONE]\n\n"
        for place in range(0, len(data), 11):
            one.sendall(data[place : place + 11])

    with answering(script) as url, HeldBatch(endpoint(url, continuous_usage=False), [[1]], 5) as held:
        held.wait(lambda counts: counts == [5] and held.open == 0, 10, may_end=True)


def test_a_refusal_is_told_in_the_servers_words() -> None:
    def script(one: socket.socket) -> None:
        one.sendall(b'HTTP/1.1 400 Bad Request\r\nContent-Length: 21\r\n\r\n{"error": "too long"}')

    with (
        answering(script) as url,
        HeldBatch(endpoint(url), [[1]], 5) as held,
        pytest.raises(DrivenBadly, match="400") as caught,
    ):
        held.wait(lambda counts: min(counts) > 0, 10)
    assert "too long" in caught.value.why


def test_an_answer_that_ends_too_soon() -> None:
    def script(one: socket.socket) -> None:
        one.sendall(HEAD + event(3))

    with (
        answering(script) as url,
        HeldBatch(endpoint(url), [[1]], 50) as held,
        pytest.raises(DrivenBadly, match="after 3 tokens"),
    ):
        held.wait(lambda counts: min(counts) > 10, 10)


def test_a_server_that_says_nothing() -> None:
    with (
        answering(silent) as url,
        HeldBatch(endpoint(url), [[1]], 5) as held,
        pytest.raises(DrivenBadly, match="within 0 s"),
    ):
        held.wait(lambda counts: min(counts) > 0, 0.2)


def test_an_engine_that_takes_no_token_ids() -> None:
    with pytest.raises(Unsupported, match="no prompts of token ids"):
        HeldBatch(endpoint("http://127.0.0.1:1/v1", token_id_prompts=False), [[1]], 5)


def test_nobody_listens() -> None:
    with pytest.raises(DrivenBadly, match="does not take"), HeldBatch(endpoint("http://127.0.0.1:9/v1"), [[1]], 5):
        pass
