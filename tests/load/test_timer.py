from __future__ import annotations

import select
import time

from redline.clock import now_ns
from redline.load.timer import Agenda, Timer


def test_a_timer_wakes_at_its_instant_and_not_before() -> None:
    timer, epoll, nothing = Timer(), select.epoll(), select.epoll()
    epoll.register(timer.fd, select.EPOLLIN)
    late, plain = [], []
    for _ in range(20):
        due = now_ns() + 3_300_000
        timer.arm(due)
        assert epoll.poll(1.0)
        late.append(now_ns() - due)
        due = now_ns() + 3_300_000
        assert not nothing.poll(0.0033)
        plain.append(now_ns() - due)
    assert min(late) >= 0
    assert min(late) < min(plain)  # an epoll timeout is in whole milliseconds; the best of 20 is the box at its calmest
    timer.arm(1)  # the past
    assert epoll.poll(1.0)
    timer.arm(now_ns() + 10**12)
    assert not epoll.poll(0.01)
    epoll.close()
    nothing.close()
    timer.close()
    timer.close()


def test_what_is_due_is_done_in_order_and_once() -> None:
    agenda = Agenda()
    done: list[str] = []
    now = now_ns()
    for when, name in ((now + 50_000_000, "later"), (now - 1, "b"), (now - 2, "a"), (now - 1, "c")):
        agenda.at(when, done.append, name)
    agenda.at(now - 1, lambda _: agenda.at(now - 5, done.append, "added meanwhile"), None)
    agenda.run_due()
    assert done == ["a", "b", "c", "added meanwhile"]
    time.sleep(0.06)
    agenda.run_due()
    assert done[-1] == "later"
    assert len(done) == 5
    agenda.timer.close()
