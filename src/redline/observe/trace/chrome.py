"""Chrome traces (torch.profiler, gzip or not), read as a stream: memory follows the events kept, not the file.

A trace is one JSON document of any size. It is cut between two events of `traceEvents`, some MB at a time, and each
piece is parsed whole by msgspec, which skips what is not asked for; on two shared cores that is about 200 MB/s, three
times ijson's yajl2_c or orjson's (docs/profile.md). A piece that does not parse is parsed event by event, and what is
malformed is counted and left out. A file that ends early gives what came before.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from redline.errors import EnvironmentFault, UsageError
from redline.observe.trace.columns import (
    ANNOTATION,
    COPY,
    GPU_ANNOTATION,
    KERNEL,
    LAUNCH,
    OP,
    Collector,
    Readout,
    Row,
    TraceColumns,
)

CHUNK = 4 << 20
GZIP = 31
"""zlib's word for a gzip header."""
SLICE = 1 << 14
LONGEST_HEAD = 64 << 20
"""A document whose events begin later than this is no trace."""
LONGEST_EVENT = 16 << 20
TRIES = 16
"""Cuts that are tried before a piece counts as malformed."""
PATIENT = 4 << 20
"""Bytes without a whole event before they count as malformed: until then more is read."""
Progress = Callable[[int, int], None]
"""(bytes of the file read, bytes of the file)"""

_CATEGORIES = {
    "kernel": KERNEL,
    "gpu_memcpy": COPY,
    "gpu_memset": COPY,
    "gpu_user_annotation": GPU_ANNOTATION,
    "user_annotation": ANNOTATION,
    "cpu_op": OP,
    "cuda_runtime": LAUNCH,
    "cuda_driver": LAUNCH,
}
_LAUNCHING = ("aunch", "emcpy", "emset")
"""Of the driver's calls only these put work on the device: cudaLaunchKernel, cudaGraphLaunch, cudaMemcpyAsync."""


class _Arguments(msgspec.Struct):
    correlation: int | None = None
    device: int | None = None
    stream: int | None = None


class _Event(msgspec.Struct):
    ph: str = ""
    cat: str = ""
    name: str = ""
    ts: float = 0.0
    dur: float | None = None
    pid: int | str | None = None
    tid: int | str | None = None
    args: _Arguments | None = None


_NO_NUMBER = re.compile(rb":\s*-?(?:nan|inf|infinity)\b", re.IGNORECASE)
"""Written by some versions for what has no value; no JSON."""
_MANY = msgspec.json.Decoder(list[_Event])
_ONE = msgspec.json.Decoder(_Event)
_SLACK = msgspec.json.Decoder(_Event, strict=False)
"""Numbers in quotes, which some writers use."""


def read_chrome(path: Path, progress: Progress = lambda done, whole: None) -> TraceColumns:
    """The kernels, copies, operators, annotations and launches of a trace.

    UsageError when the file is no trace at all, EnvironmentFault when it cannot be read; a trace that ends early or
    holds malformed events is read as far as it goes, and `readout` says so.
    """
    readout, collector = Readout(str(path)), Collector()
    try:
        whole = path.stat().st_size
        with path.open("rb") as raw:
            for events in _batches(_Source(raw, readout), readout):
                readout.events += len(events)
                collector.add([row for event in events if (row := _row(event, collector)) is not None])
                progress(raw.tell(), whole)
    except OSError as error:
        raise EnvironmentFault(f"{path} cannot be read: {error.strerror or error}") from error
    readout.kept = collector.count
    if not readout.events:
        raise UsageError(
            f"{path} holds no event of a trace" + (f": {readout.trouble}" if readout.trouble else ""),
            why="a Chrome trace is a JSON document with `traceEvents`, as torch.profiler's export_chrome_trace writes",
        )
    return collector.columns(readout)


class _Source:
    """Decompressed bytes. A damaged file ends where the damage is, and `readout.trouble` says so."""

    def __init__(self, raw: BinaryIO, readout: Readout) -> None:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        self._raw, self._readout = raw, readout
        self._unpack = zlib.decompressobj(GZIP) if packed else None
        self._whole = False

    def read(self) -> bytes:
        """b"" at the end."""
        data = self._raw.read(CHUNK) if self._unpack is None else self._unpacked()
        self._readout.bytes_read += len(data)
        return data

    def _unpacked(self) -> bytes:
        """A slice at a time: what stood before the damage in the same slice is all that is lost."""
        parts, size = [], 0
        while size < CHUNK and not self._readout.trouble:
            slice_ = self._raw.read(SLICE)
            if not slice_:
                if not self._whole:
                    self._readout.trouble = "the compressed file ends early"
                break
            try:
                part = self._inflate(slice_)
            except zlib.error as error:
                self._readout.trouble = f"the compressed file is damaged ({error})"
                break
            parts.append(part)
            size += len(part)
        return b"".join(parts)

    def _inflate(self, data: bytes) -> bytes:
        found = b""
        while data and self._unpack is not None:
            found += self._unpack.decompress(data)
            self._whole, data = self._unpack.eof, b""
            if self._whole:  # gzip files may follow one another
                data = self._unpack.unused_data.lstrip(b"\0")
                self._unpack = zlib.decompressobj(GZIP)
        return found


def _batches(source: _Source, readout: Readout) -> Iterator[list[_Event]]:
    """Runs of whole events."""
    rest = _after_head(source, readout)
    while chunk := source.read():
        rest += chunk
        events, used = _front(rest, readout)
        if events is not None:
            yield events
            rest = rest[used:].lstrip().removeprefix(b",")
        elif len(rest) > LONGEST_EVENT:
            readout.trouble = readout.trouble or f"no end of an event within {LONGEST_EVENT >> 20} MiB"
            break
    rest = _last(rest, readout)
    if rest.strip():
        whole = _whole(rest)
        yield whole if whole is not None else _one_by_one(rest, readout)


def _front(text: bytes, readout: Readout) -> tuple[list[_Event] | None, int]:
    """The whole events that a piece begins with, and how many bytes they are; None when there is no end of one yet."""
    cut = first = _cut(text, len(text))
    for _ in range(TRIES):
        if cut <= 0:
            break
        if (events := _whole(text[:cut])) is not None:
            return events, cut
        cut = _cut(text, cut)  # it lay inside an event, or something before it is malformed
    if first <= 0 or len(text) < PATIENT:
        return None, 0  # the only ends seen may lie inside an event that goes on
    return _one_by_one(text[:first], readout), first


def _whole(piece: bytes) -> list[_Event] | None:
    for text in (piece, None):
        try:
            return _MANY.decode(b"[" + (piece if text is not None else _NO_NUMBER.sub(b": null", piece)) + b"]")
        except (msgspec.DecodeError, UnicodeDecodeError):
            if text is not None and not _NO_NUMBER.search(piece):
                return None
    return None


def _after_head(source: _Source, readout: Readout) -> bytes:
    """What follows the bracket that opens the events; a bare list of events is a trace, too."""
    head = b""
    while chunk := source.read():
        head += chunk
        text = head.lstrip()
        if text.startswith(b"["):
            return text[1:]
        found = head.find(b'"traceEvents"')
        opened = head.find(b"[", found) if found >= 0 else -1
        if opened >= 0:
            return head[opened + 1 :]
        if len(head) > LONGEST_HEAD:
            break
    readout.trouble = readout.trouble or "there is no `traceEvents`"
    return b""


def _cut(text: bytes, end: int) -> int:
    """Just after the last `}` before `end` that a comma and a `{` follow: the end of an event, or of something inside
    one."""
    while (comma := text.rfind(b",", 0, end)) > 0:
        before, after = text[max(0, comma - 64) : comma].rstrip(), text[comma + 1 : comma + 65].lstrip()
        if before.endswith(b"}") and after.startswith(b"{"):
            return comma
        end = comma
    return 0


def _last(rest: bytes, readout: Readout) -> bytes:
    """The events before the bracket that closes them, or before the end of a file that lacks it."""
    bracket = _closing(rest)
    if bracket < 0:
        readout.trouble = readout.trouble or "the file ends in the middle of the events"
    return rest[:bracket] if bracket >= 0 else rest


def _closing(text: bytes) -> int:
    """Where the list of events ends; -1 when it does not. Behind it stand only a few fields of the document."""
    place = text.rfind(b"]")
    while place >= 0:
        tail = b"{" + text[place + 1 :].strip().removeprefix(b",").strip()
        whole = tail if tail.endswith(b"}") else tail + b"}"
        try:
            msgspec.json.decode(whole)
        except msgspec.DecodeError:
            place = text.rfind(b"]", 0, place)
            continue
        return place
    return -1


def _row(event: _Event, collector: Collector) -> Row | None:
    kind = _CATEGORIES.get(event.cat)
    if event.ph != "X" or kind is None or event.dur is None:
        return None
    if kind == LAUNCH and not any(word in event.name for word in _LAUNCHING):
        return None
    arguments, process, thread = event.args, event.pid, event.tid
    if kind in (KERNEL, COPY) and arguments is not None and arguments.device is not None:
        process, thread = f"device {arguments.device}", f"stream {arguments.stream}"
    linked = arguments.correlation if arguments is not None and arguments.correlation is not None else 0
    return kind, collector.name(event.name), event.ts, event.dur, collector.track(process, thread), linked


def _one_by_one(piece: bytes, readout: Readout) -> list[_Event]:
    """What can be read of a piece that holds something malformed."""
    found = []
    for text in _events_of(_NO_NUMBER.sub(b": null", piece)):
        event = _one(text)
        if event is None:
            readout.bad += 1
            readout.events += 1
        else:
            found.append(event)
    return found


def _one(text: bytes) -> _Event | None:
    for decoder in (_ONE, _SLACK):
        try:
            return decoder.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
    return None


def _events_of(piece: bytes) -> Iterator[bytes]:
    """Splits at every `},{`. A part that ends inside an event is joined with what follows."""
    parts, begin = [], 0
    while begin < len(piece):
        end = _next_cut(piece, begin)
        if part := piece[begin:end].strip().removeprefix(b",").strip():
            parts.append(part)
        begin = end
    place = 0
    while place < len(parts):
        joined = (b",".join(parts[place : place + count]) for count in (1, 2, 3, 4))
        used = next((count for count, text in enumerate(joined, 1) if text.count(b"{") == text.count(b"}")), 1)
        yield b",".join(parts[place : place + used])
        place += used


def _next_cut(piece: bytes, begin: int) -> int:
    """After the next `}` that a comma and a `{` follow, or the end."""
    place = piece.find(b"}", begin)
    while place >= 0:
        after = piece[place + 1 : place + 65].lstrip()
        if after.startswith(b",") and after[1:].lstrip().startswith(b"{"):
            return place + 1
        place = piece.find(b"}", place + 1)
    return len(piece)
