from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator

import pytest

from redline.engines.http import Reply, fetch, try_fetch


def read_whole(connection: socket.socket) -> bytes:
    """One request. Its body is a segment of its own, or comes with the head where we are late to read."""
    said = b""
    while b"\r\n\r\n" not in said:
        said += connection.recv(65536)
    length = re.search(rb"Content-Length: (\d+)", said)
    while length and len(said.partition(b"\r\n\r\n")[2]) < int(length[1]):
        said += connection.recv(65536)
    return said


@pytest.fixture
def answering() -> Iterator[tuple[str, list[bytes], list[bytes]]]:
    """(url, answers to give, requests seen): one raw answer per connection."""
    answers: list[bytes] = []
    seen: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                seen.append(read_whole(connection))
                connection.sendall(answers.pop(0))

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}", answers, seen
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def test_get_and_post(answering: tuple[str, list[bytes], list[bytes]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # a proxy must not come between
    url, answers, seen = answering
    answers += [b'HTTP/1.1 200 OK\r\nContent-Length: 7\r\nX-A: b\r\n\r\n{"a":1}'] * 2
    assert fetch(f"{url}/x?y=1").json() == {"a": 1}
    assert fetch(f"{url}/", body={"q": 1}, headers={"Authorization": "Bearer k"}).headers["x-a"] == "b"
    assert seen[0].startswith(b"GET /x?y=1 HTTP/1.1")
    assert seen[1].startswith(b"POST / HTTP/1.1")
    assert b"Authorization: Bearer k" in seen[1]
    assert seen[1].endswith(b'{"q":1}')


def test_what_is_no_http_is_an_oserror(answering: tuple[str, list[bytes], list[bytes]]) -> None:
    url, answers, _ = answering
    answers += [b"SSH-2.0-OpenSSH\r\n", b"", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nshort"]
    for _ in range(3):
        with pytest.raises(OSError, match=r"."):
            fetch(url)


def test_nobody_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        assert try_fetch(f"http://127.0.0.1:{free.getsockname()[1]}/") is None


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b'{"error": {"message": "no such model"}}', "no such model"),
        (b'{"error": "busy"}', "busy"),
        (b'{"detail": "Not Found"}', "Not Found"),
        (b'{"object": "error", "message": "bad"}', "bad"),
        (b"<html>", "<html>"),
        (b'{"detail": [{"msg": "x"}]}', '{"detail": [{"msg": "x"}]}'),
    ],
)
def test_the_servers_own_words(body: bytes, error: str) -> None:
    assert Reply(400, {}, body).error == error
