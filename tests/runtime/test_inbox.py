from __future__ import annotations

import asyncio
import threading
from functools import partial

from redline.runtime.inbox import Inbox
from redline.runtime.request import Finish, Output


def hear(heard: list[int], output: Output) -> None:
    heard.extend(output.tokens)


def test_a_step_wakes_the_loop_once_and_nothing_is_lost() -> None:
    """Two hundred streams, three hundred steps, another thread: all of it, in order, in few deliveries."""

    async def run() -> tuple[list[list[int]], int]:
        heard: list[list[int]] = [[] for _ in range(200)]
        settled = [0]
        done = asyncio.Event()

        def settle() -> None:
            settled[0] += 1
            if all(one and one[-1] == 299 for one in heard):
                done.set()

        inbox = Inbox(asyncio.get_running_loop(), settle, batched=True)
        sinks = [inbox.sink(partial(hear, one)) for one in heard]

        def engine() -> None:
            for step in range(300):
                for sink in sinks:
                    sink(Output((step,), Finish.LENGTH if step == 299 else None))
                inbox.wake()

        thread = threading.Thread(target=engine)
        thread.start()
        await asyncio.wait_for(done.wait(), 30)
        thread.join()
        return heard, settled[0]

    heard, settled = asyncio.run(run())
    assert heard == [list(range(300))] * 200
    assert settled <= 301


def test_a_slow_loop_is_not_held_by_a_fast_engine() -> None:
    """What comes during a delivery waits for the next: others have their turn between."""

    async def run() -> list[int]:
        turns: list[int] = []
        inbox = Inbox(asyncio.get_running_loop())

        def take(output: Output) -> None:
            turns.append(output.tokens[0])
            if output.tokens[0] < 3:
                inbox.sink(take)(Output((output.tokens[0] + 1,)))

        inbox.sink(take)(Output((0,)))
        for _ in range(4):
            before = len(turns)
            await asyncio.sleep(0)
            assert len(turns) <= before + 1
        await asyncio.sleep(0.05)
        return turns

    assert asyncio.run(run()) == [0, 1, 2, 3]


def test_a_closed_loop_is_no_error() -> None:
    loop = asyncio.new_event_loop()
    sink = Inbox(loop).sink(lambda output: None)
    loop.close()
    sink(Output((1,)))
