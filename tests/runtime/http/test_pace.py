from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

from redline.runtime.http.pace import SHARE, Pace


class Stream:
    def __init__(self, urgent: bool = False) -> None:
        self.due_s = 0.0
        self.urgent = urgent
        self.woken: list[float] = []

    def wake(self) -> None:
        self.woken.append(time.monotonic())


def run(body: Coroutine[Any, Any, None]) -> None:
    asyncio.run(body)


def test_few_streams_are_written_at_every_step() -> None:
    async def body() -> None:
        pace, stream = Pace(10.0, alone=2), Stream()
        pace.open = 2
        for _ in range(5):
            pace.touch(stream)
            pace.settle()
        assert len(stream.woken) == 5

    run(body())


def test_many_are_written_once_per_interval_and_the_last_tokens_come_too() -> None:
    async def body() -> None:
        pace, streams = Pace(0.05, alone=2), [Stream() for _ in range(20)]
        pace.open = 20
        ended = time.monotonic() + 0.3
        while time.monotonic() < ended:
            for stream in streams:
                pace.touch(stream)
            pace.settle()
            await asyncio.sleep(0.002)
        last = time.monotonic()
        for stream in streams:
            pace.touch(stream)
        pace.settle()
        await asyncio.sleep(0.15)
        for stream in streams:
            gaps = [b - a for a, b in zip(stream.woken, stream.woken[1:], strict=False)]
            assert min(gaps) > 0.04
            assert stream.woken[-1] >= last

    run(body())


def test_the_first_and_the_last_piece_do_not_wait() -> None:
    async def body() -> None:
        pace, stream = Pace(10.0, alone=0), Stream()
        pace.open = 5
        pace.touch(stream)
        pace.settle()
        assert len(stream.woken) == 1, "nothing was written before"
        pace.touch(stream)
        pace.settle()
        assert len(stream.woken) == 1
        stream.urgent = True
        pace.touch(stream)
        pace.settle()
        assert len(stream.woken) == 2

    run(body())


def test_a_thousand_streams_do_not_take_the_whole_process() -> None:
    pace = Pace(0.015, alone=8)
    pace.open = 10
    assert pace.interval_s == 0.015
    for _ in range(500):
        pace.wrote(50e-6)
    pace.open = 1000
    assert 0.9 * 1000 * 50e-6 / SHARE < pace.interval_s < 1.1 * 1000 * 50e-6 / SHARE


def test_who_left_is_not_woken() -> None:
    async def body() -> None:
        pace, stream = Pace(0.02, alone=0), Stream()
        pace.open = 5
        for _ in range(2):
            pace.touch(stream)
            pace.settle()
        pace.forget(stream)
        await asyncio.sleep(0.06)
        assert len(stream.woken) == 1

    run(body())
