"""A server in a thread of the test process, so that torch is imported once; and a plain client."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redline.engines.hf_server import serve
from redline.engines.hf_server.flags import parser

NAME = "tiny-llama"


@dataclass
class Reply:
    status: int
    body: Any
    events: list[Any] = field(default_factory=list)
    """Decoded server-sent events; the string '[DONE]' as it is."""

    @property
    def text(self) -> str:
        if not self.events:
            choice = self.body["choices"][0]
            return str(choice["text"] if "text" in choice else choice["message"]["content"])
        choices = [choice for event in self.chunks for choice in event["choices"]]
        return "".join(choice["text"] if "text" in choice else choice["delta"]["content"] for choice in choices)

    @property
    def chunks(self) -> list[dict[str, Any]]:
        return [event for event in self.events if event != "[DONE]"]

    @property
    def message(self) -> str:
        return str(self.body["error"]["message"])


class Live:
    """`with Live(folder, "--batching", "static") as server: server.ask(prompt="x")`."""

    def __init__(self, folder: Path, *flags: str) -> None:
        argv = ["--model", str(folder), "--served-model-name", NAME, "--port", "0", "--threads", "1", *flags]
        args = parser().parse_args(argv)
        self.listener = serve.listen("127.0.0.1", 0)
        self.port = self.listener.getsockname()[1]
        self.life = serve.prepare(args)
        self.service = self.life.service
        self.code: int | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        self.code = asyncio.run(self.life.run(self.listener))

    def __enter__(self) -> Live:
        self._thread.start()
        wait_for(lambda: self.service.phase == "ready" or not self._thread.is_alive(), 50)
        assert self._thread.is_alive(), "the server ended while starting"
        return self

    def run_to_the_end(self) -> int | None:
        """For servers that do not start: their exit code."""
        self._thread.start()
        self._thread.join(50)
        return self.code

    @contextmanager
    def listening(self, enough: threading.Event) -> Iterator[None]:
        """Up, and not necessarily ready. `enough` is set when it is to end, for a load that waits for it."""
        self._thread.start()
        wait_for(lambda: self.life.server.started, 50)
        yield
        enough.set()
        self.stop()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self.life.server.should_exit = True
        self._thread.join(15)
        assert not self._thread.is_alive()

    def request(self, method: str, path: str, body: Any = None) -> Reply:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=50)) as connection:
            data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
            connection.request(method, path, data, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            raw = answer.read()
        kind = answer.headers.get("content-type", "")
        if kind.startswith("text/event-stream"):
            return Reply(answer.status, None, list(read_events(raw)))
        return Reply(answer.status, json.loads(raw) if "json" in kind else raw.decode())

    def ask(self, *, chat: bool = False, **body: Any) -> Reply:
        """A greedy completion unless told otherwise."""
        path = "/v1/chat/completions" if chat else "/v1/completions"
        return self.request("POST", path, {"temperature": 0, **body})

    def metric(self, name: str) -> float:
        lines = self.request("GET", "/metrics").body.splitlines()
        return float(next(line.split()[-1] for line in lines if line.startswith(f"redline_hf:{name} ")))


def read_events(raw: bytes) -> Iterator[Any]:
    assert raw.endswith(b"\n\n")
    for event in raw.decode().split("\n\n")[:-1]:
        assert event.startswith("data: ")
        data = event.removeprefix("data: ")
        yield data if data == "[DONE]" else json.loads(data)


def wait_for(condition: Any, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
