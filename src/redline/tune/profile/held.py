"""A batch of streams, all open at once: how many tokens each has, while they run. Hanging up ends them."""

from __future__ import annotations

import contextlib
import re
import selectors
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from urllib.parse import urlsplit

import orjson

from redline.engines.endpoint import Endpoint
from redline.errors import EngineError, Unsupported

_COUNT = re.compile(rb'"completion_tokens":\s*(\d+)')
_EVENT = re.compile(rb"^data: ?\{", re.MULTILINE)
TAIL = 256
TICK_S = 0.02


class DrivenBadly(EngineError):
    """The engine refused, failed or ended a stream that the profile needs."""


@dataclass
class _Stream:
    sock: socket.socket
    tokens: int = 0
    tail: bytes = b""
    head: bytes = b""
    status: int = 0
    ended: bool = False


class HeldBatch:
    """Streams of `prompts` (token ids), each to run for `max_tokens`. A thread of its own reads them.

    Tokens are counted by the server's usage on every chunk where it gives that, else by chunks.
    """

    def __init__(
        self, endpoint: Endpoint, prompts: Sequence[Sequence[int]], max_tokens: int, headers: Mapping[str, str] = {}
    ) -> None:
        if not endpoint.dialect.token_id_prompts:
            raise Unsupported(
                f"{endpoint.engine} takes no prompts of token ids, so no exact context can be asked for",
                fix="profile an engine that does: vllm, redline, transformers",
            )
        self._endpoint, self._headers = endpoint, headers
        self._prompts, self._max_tokens = prompts, max_tokens
        self._streams: list[_Stream] = []
        self._selector = selectors.DefaultSelector()
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._read, name="redline-held", daemon=True)

    def __enter__(self) -> HeldBatch:
        parts = urlsplit(self._endpoint.base_url)
        if parts.scheme != "http":
            raise Unsupported("profiles are driven over plain http only", fix="attach to http://127.0.0.1:PORT/v1")
        bodies = [self._request(prompt) for prompt in self._prompts]
        try:
            for body in bodies:
                sock = socket.create_connection((parts.hostname or "", parts.port or 80), timeout=30.0)
                stream = _Stream(sock)
                self._streams.append(stream)
                sock.sendall(body)
                sock.setblocking(False)
                self._selector.register(sock, selectors.EVENT_READ, stream)
        except OSError as error:
            self._hang_up()
            raise DrivenBadly(f"{self._endpoint.engine} does not take the request: {error}") from error
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._thread.join(5.0)
        self._hang_up()

    def _hang_up(self) -> None:
        for stream in self._streams:
            with contextlib.suppress(OSError):
                stream.sock.close()
        self._selector.close()

    def _request(self, prompt: Sequence[int]) -> bytes:
        usage = {"include_usage": True}
        if self._endpoint.dialect.continuous_usage:
            usage["continuous_usage_stats"] = True
        body = {
            "model": self._endpoint.model,
            "prompt": list(prompt),
            "max_tokens": self._max_tokens,
            "temperature": 0.0,
            "stream": True,
            "stream_options": usage,
            **({"ignore_eos": True} if self._endpoint.dialect.ignore_eos else {}),
        }
        data = orjson.dumps(body)
        parts = urlsplit(self._endpoint.base_url)
        lines = [
            f"POST {parts.path}/completions HTTP/1.1",
            f"Host: {parts.netloc}",
            "Content-Type: application/json",
            f"Content-Length: {len(data)}",
            "Connection: close",
            *(f"{name}: {value}" for name, value in self._headers.items()),
        ]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + data

    @property
    def tokens(self) -> list[int]:
        with self._lock:
            return [stream.tokens for stream in self._streams]

    @property
    def open(self) -> int:
        with self._lock:
            return sum(not stream.ended for stream in self._streams)

    def wait(self, done: Callable[[list[int]], bool], timeout_s: float, *, may_end: bool = False) -> float:
        """Until `done` of the token counts; the monotonic time then. DrivenBadly when a stream fails, when one ends
        (unless it `may_end`), and when it takes too long."""
        until = time.monotonic() + timeout_s
        while True:
            counts = self.tokens
            self._check()
            if done(counts):
                return time.monotonic()
            if not may_end and self.open < len(self._streams):
                raise DrivenBadly(
                    f"{self._endpoint.engine} ended a stream after {min(counts)} tokens, before it was profiled",
                    why="the room behind the prompt was too small for the steps that were wanted",
                    fix="fewer --steps, a shorter --context, or a model with a longer one",
                )
            if time.monotonic() > until:
                raise DrivenBadly(
                    f"{self._endpoint.engine} gave {min(counts, default=0)} to {max(counts, default=0)} tokens within"
                    f" {timeout_s:.0f} s"
                )
            time.sleep(TICK_S / 10)

    def _check(self) -> None:
        for stream in self._streams:
            if stream.status and stream.status != 200:
                text = (stream.head + stream.tail)[-600:].decode("utf-8", "replace")
                raise DrivenBadly(f"{self._endpoint.engine} answers HTTP {stream.status}", why=text)

    def _read(self) -> None:
        while not self._closing.is_set():
            for key, _ in self._selector.select(TICK_S):
                self._take(key.data)

    def _take(self, stream: _Stream) -> None:
        try:
            data = stream.sock.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            with self._lock:
                stream.ended = True
            self._selector.unregister(stream.sock)
            return
        if not stream.status:
            stream.head += data
            found = re.match(rb"HTTP/1\.\d (\d{3})", stream.head)
            stream.status = int(found[1]) if found else 0
        self._count(stream, data)

    def _count(self, stream: _Stream, data: bytes) -> None:
        text = stream.tail + data
        with self._lock:
            if self._endpoint.dialect.continuous_usage:
                found = _COUNT.findall(text)
                stream.tokens = max(stream.tokens, int(found[-1])) if found else stream.tokens
            else:
                cut = text.rfind(b"\n") + 1
                stream.tokens += len(_EVENT.findall(text[:cut]))
                stream.tail = text[cut:]
                return
        stream.tail = text[-TAIL:]
