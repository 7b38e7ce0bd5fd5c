"""Many short connections at once, as clients without keep-alive make them: connect, one GET, answer, close.

Whoever is not accepted in time waits for a second and more (the kernel repeats its SYN), or is refused: that is what
backlogs are about. Each connection is stored as a request, its whole time as the end-to-end latency.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from redline.clock import now_ns
from redline.errors import UsageError
from redline.load.record import RequestRecord, Status, TokenSource

TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Target:
    """`burst` connections are opened together, again and again for `seconds`, after one burst that is not counted."""

    url: str
    burst: int = 256
    seconds: float = 5.0
    timeout_s: float = TIMEOUT_S

    def __post_init__(self) -> None:
        if not urlsplit(self.url).hostname:
            raise UsageError(f"{self.url!r} is no http address", fix="--url http://127.0.0.1:8000/health")
        if self.burst < 1 or self.seconds <= 0:
            raise UsageError("a burst has at least one connection, and a round takes time")


def storm(target: Target, should_stop: Callable[[], bool] = lambda: False) -> tuple[list[RequestRecord], int]:
    """Every connection, and when the counted ones began."""
    return asyncio.run(_bursts(target, should_stop))


async def _bursts(target: Target, should_stop: Callable[[], bool]) -> tuple[list[RequestRecord], int]:
    records = await _burst(target, 0, warmup=True)
    began = now_ns()
    while not should_stop() and now_ns() - began < target.seconds * 1e9:
        records += await _burst(target, len(records), warmup=False)
    return records, began


async def _burst(target: Target, first: int, *, warmup: bool) -> list[RequestRecord]:
    due = now_ns()
    records = [RequestRecord(first + index, due, warmup=warmup, stamp="user") for index in range(target.burst)]
    await asyncio.gather(*(_connection(target, record) for record in records))
    return records


async def _connection(target: Target, record: RequestRecord) -> None:
    record.sent_ns = now_ns()  # its SYN: waiting to be accepted is what is measured
    try:
        async with asyncio.timeout(target.timeout_s):
            await _exchange(target, record)
    except TimeoutError:
        record.status, record.error = Status.TIMEOUT, "no answer in time"
    except OSError as error:
        record.status, record.error = (Status.RESET if record.connected_ns else Status.CONNECT), str(error)
    finally:
        record.finished_ns = now_ns()
    if record.status is Status.OK:
        record.chunk_ns, record.chunk_tokens = [record.finished_ns], [1]
        record.output_tokens, record.token_source = 1, TokenSource.CHUNKS


async def _exchange(target: Target, record: RequestRecord) -> None:
    parts = urlsplit(target.url)
    secure = ssl.create_default_context() if parts.scheme == "https" else None
    port = parts.port or (443 if secure else 80)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=secure)
    try:
        record.connected_ns = now_ns()
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        head = await reader.readline()
        record.first_byte_ns = now_ns()
        words = head.split()
        if not head:
            record.status, record.error = Status.RESET, "closed before it answered"
        elif len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
            record.status, record.error = Status.MALFORMED, "no HTTP"
        else:
            record.http_status = int(words[1])
            record.status = Status.OK if record.http_status < 400 else Status.HTTP
            await _body(reader)
    finally:
        writer.close()


async def _body(reader: asyncio.StreamReader) -> None:
    """As long as the head says; to the end of the connection where it does not say."""
    length, chunked = -1, False
    while (line := await reader.readline()) not in (b"", b"\r\n", b"\n"):
        name, _, value = line.decode("latin-1").partition(":")
        if name.lower() == "content-length" and value.strip().isdigit():
            length = int(value)
        chunked = chunked or (name.lower() == "transfer-encoding" and "chunked" in value.lower())
    try:
        if chunked:
            while (size := int((await reader.readline()).split(b";")[0] or b"0", 16)) > 0:
                await reader.readexactly(size + 2)
        elif length >= 0:
            await reader.readexactly(length)
        else:
            await reader.read()
    except (asyncio.IncompleteReadError, ValueError) as error:
        raise ConnectionResetError("the answer was cut short") from error
