from __future__ import annotations

import socket

import pytest

from redline.errors import EnvironmentFault, UsageError
from redline.load.target import request_bytes, request_head, resolve, site, traceparent


@pytest.mark.parametrize(
    ("url", "authority", "path"),
    [
        ("http://h:8000/v1", "h:8000", "/v1"),
        ("http://h/v1/", "h", "/v1"),
        ("https://h/api/v1", "h", "/api/v1"),
        ("https://h:8443/v1", "h:8443", "/v1"),
        ("http://[::1]:8000/v1", "[::1]:8000", "/v1"),
    ],
)
def test_sites(url: str, authority: str, path: str) -> None:
    assert (site(url).authority, site(url).path) == (authority, path)


@pytest.mark.parametrize("url", ["ftp://h/v1", "h:8000/v1", "http:///v1", "http://h:99999/v1", "http://[::1/v1"])
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(UsageError, match="not a"):
        site(url)


def test_a_name_resolves_to_an_address_that_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        target = resolve(f"http://localhost:{server.getsockname()[1]}/v1")
    assert target.address[0] == "127.0.0.1"  # ::1 may come first, and nobody listens there


@pytest.mark.parametrize("host", ["no-such-host.invalid", "two..dots", "a" * 64])
def test_a_name_that_does_not_resolve(host: str) -> None:
    with pytest.raises(EnvironmentFault, match="cannot resolve"):
        resolve(f"http://{host}/v1")


def test_a_request() -> None:
    head = request_head("http://h:8000/v1", "/completions", api_key="sk-1", stream=True)
    data = request_bytes(head, "run-7", b"{}").decode()
    assert data.startswith("POST /v1/completions HTTP/1.1\r\nHost: h:8000\r\n")
    assert "\r\nAuthorization: Bearer sk-1\r\n" in data
    assert data.endswith("X-Request-Id: run-7\r\nContent-Length: 2\r\n\r\n{}")
    assert "Authorization" not in request_head("http://h/v1", "/x", api_key=None, stream=True)


def test_a_key_that_would_break_the_request() -> None:
    with pytest.raises(UsageError, match="API key"):
        request_head("http://h/v1", "/x", api_key="a\r\nHost: evil", stream=True)


def test_a_traced_request_carries_its_number_and_others_no_header() -> None:
    head = request_head("http://h/v1", "/completions", api_key=None, stream=True)
    trace = traceparent("00f067aa0ba902b7", 255)
    version, trace_id, parent, flags = trace.split("-")
    assert (version, trace_id, parent, flags) == ("00", "00f067aa0ba902b7" + f"{255:016x}", f"{256:016x}", "01")
    assert int(trace_id[16:], 16) == 255
    assert f"traceparent: {trace}\r\n".encode() in request_bytes(head, "id", b"{}", trace)
    assert b"traceparent" not in request_bytes(head, "id", b"{}")
