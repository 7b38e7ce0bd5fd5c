from __future__ import annotations

import contextlib
import socket
import tempfile
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redline.load.outbox import Outbox


def drain(sock: socket.socket, box: Outbox) -> bytes:
    data = b""
    while True:
        box.flush()
        try:
            data += sock.recv(1 << 20)
        except BlockingIOError:
            if not box.waiting:
                return data


def pair() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    for sock in (ours, theirs):
        sock.setblocking(False)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    return ours, theirs


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9_000), st.booleans()), max_size=40))
def test_nothing_is_lost_or_reordered(plan: list[tuple[int, bool]]) -> None:
    ours, theirs = pair()
    box, put, got = Outbox(ours, in_memory_max=20_000), b"", b""
    with ours, theirs:
        for i, (size, read) in enumerate(plan):
            frame = bytes([i % 251]) * size
            box.put(frame)
            put += frame
            if read:
                with contextlib.suppress(BlockingIOError):
                    got += theirs.recv(8_000)
        got += drain(theirs, box)
    box.close()
    assert got == put


def test_memory_is_bounded_and_the_rest_goes_to_disk() -> None:
    ours, theirs = pair()
    box = Outbox(ours, in_memory_max=100_000)
    with ours, theirs:
        for _ in range(100):
            box.put(b"x" * 10_000)
        assert box._in_memory <= 100_000
        assert box.spilled > 700_000
        assert box.waiting_max > 800_000
        assert drain(theirs, box) == b"x" * 1_000_000
        assert box.waiting == 0
    box.close()


def test_a_full_disk_costs_memory_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        room = 3

        def __init__(self, file: Any) -> None:
            self.file = file

        def write(self, data: bytes) -> int:
            Full.room -= 1
            if Full.room < 0:
                raise OSError(28, "No space left on device")
            return int(self.file.write(data))

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

    real = tempfile.TemporaryFile
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **kw: Full(real(**kw)))
    ours, theirs = pair()
    box = Outbox(ours, in_memory_max=20_000)
    frames = [bytes([i]) * 7_000 for i in range(30)]
    with ours, theirs:
        for frame in frames:
            box.put(frame)
        assert drain(theirs, box) == b"".join(frames)
    box.close()
