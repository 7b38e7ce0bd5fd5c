from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from redline.errors import ModelNotFound
from redline.spec.hub import check_hub_reachable, hub_cache, offline_reason

SEEN: list[tuple[str, str]] = []


class Hub(BaseHTTPRequestHandler):
    """Answers with the status that the model's name asks for."""

    def do_GET(self) -> None:
        SEEN.append((self.path, self.headers.get("Authorization", "")))
        self.send_response(int(self.path.split("/")[4].removeprefix("s")))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setenv("HF_ENDPOINT", address)
    SEEN.clear()
    yield address
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_model_that_is_there(hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check_hub_reachable("org/s200")
    monkeypatch.setenv("HF_TOKEN", "secret")
    check_hub_reachable("org/s200", "v1")
    assert SEEN == [("/api/models/org/s200", ""), ("/api/models/org/s200/revision/v1", "Bearer secret")]


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "private or behind a licence"),
        (403, "set HF_TOKEN"),
        (404, "there is no model org/s404 on the hub"),
        (503, "cannot be reached"),
    ],
)
def test_what_the_hub_refuses(hub: str, status: int, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    with pytest.raises(ModelNotFound, match=said) as caught:
        check_hub_reachable(f"org/s{status}")
    assert "secret" not in str(caught.value)


def test_nobody_there(hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(ModelNotFound, match="cannot be reached") as caught:
            check_hub_reachable("org/name", timeout_s=2)
    assert "bundled:tiny" in caught.value.fix


def test_a_hub_that_hangs(hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(ModelNotFound, match="cannot be reached"):
            check_hub_reachable("org/name", timeout_s=0.3)


def test_offline_switches(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    assert offline_reason() == ""
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert offline_reason() == ""
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "1")
    assert offline_reason() == "TRANSFORMERS_OFFLINE=1"
    with pytest.raises(ModelNotFound, match="TRANSFORMERS_OFFLINE=1 forbids"):
        check_hub_reachable("org/name")


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert hub_cache() == Path.home() / ".cache/huggingface/hub"
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert hub_cache() == Path("/x/huggingface/hub")
    monkeypatch.setenv("HF_HOME", "/h")
    assert hub_cache() == Path("/h/hub")
    monkeypatch.setenv("HF_HUB_CACHE", "/c")
    assert hub_cache() == Path("/c")
