"""The order of those that wait, and that those who left take no memory for ever."""

from __future__ import annotations

from redline.runtime.request import Request, Status
from redline.runtime.waiting import WaitingQueue

from .fake import ask


def waiting(priority: int, arrival: int) -> Request:
    request, _ = ask([1])
    request.books.order = (priority, arrival)
    return request


def test_best_priority_first_then_first_come() -> None:
    queue = WaitingQueue()
    a, b, c = waiting(1, 0), waiting(0, 1), waiting(0, 2)
    for request in (c, a, b):
        queue.push(request)
    order = []
    while (first := queue.first()) is not None:
        order.append(first)
        queue.pop()
    assert order == [b, c, a]


def test_those_who_left_are_skipped_and_counted_out() -> None:
    queue = WaitingQueue()
    some = [waiting(0, i) for i in range(1000)]
    for request in some:
        queue.push(request)
    for request in some[:999]:
        request.status = Status.FINISHED
        queue.left()
    assert len(queue) == 1
    assert len(queue._heap) < 250
    assert queue.first() is some[999]
    assert len(queue) == 1
