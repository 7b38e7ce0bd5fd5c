"""Requests that wait for a place, best priority first, then first come first served."""

from __future__ import annotations

from heapq import heapify, heappop, heappush

from redline.runtime.request import Request, Status


class WaitingQueue:
    """A heap. Requests that were aborted meanwhile stay in it until they come up or are too many."""

    __slots__ = ("_gone", "_heap")

    def __init__(self) -> None:
        self._heap: list[tuple[tuple[int, int], Request]] = []
        self._gone = 0

    def __len__(self) -> int:
        return len(self._heap) - self._gone

    def push(self, request: Request) -> None:
        heappush(self._heap, (request.books.order, request))

    def first(self) -> Request | None:
        heap = self._heap
        while heap and heap[0][1].status is Status.FINISHED:
            heappop(heap)
            self._gone -= 1
        return heap[0][1] if heap else None

    def pop(self) -> None:
        """Takes the one that `first` gave."""
        heappop(self._heap)

    def left(self) -> None:
        """A request that waits here has become FINISHED."""
        self._gone += 1
        if self._gone * 2 > len(self._heap) and self._gone > 100:
            self._heap = [entry for entry in self._heap if entry[1].status is not Status.FINISHED]
            heapify(self._heap)
            self._gone = 0
