"""How one phase becomes the phases of several workers, and what they say becomes one word again. No I/O here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from redline.load.frames import Arrivals, Outgoing, Phase, PhaseDone, Tick

SUMMED = (
    *("sent", "ended", "good", "refused", "in_flight", "pieces", "bytes_in", "cpu_s", "starved", "retried"),
    "held_back",
)


def portion(count: int, worker: int, workers: int) -> int:
    """How many of `count` things fall to a worker when they are dealt round."""
    return (count - worker + workers - 1) // workers


def split(phase: Phase, workers: int) -> list[Phase]:
    """One phase per worker that has something to do in it.

    Closed loop: clients, and requests where they are limited, are dealt round. Open loop: request i goes to worker
    i mod n. Whether to give up early is judged over all of them, so no worker decides it for itself.
    """
    if workers == 1:
        return [phase]
    if phase.arrivals is Arrivals.CLOSED:
        most = min(workers, phase.clients, phase.requests or workers)
        return [
            replace(
                phase,
                clients=portion(phase.clients, worker, most),
                requests=portion(phase.requests, worker, most),
                first_client=worker,
                client_step=most,
                levels=[(at, portion(level, worker, most)) for at, level in phase.levels],
                ends_fast=False,
            )
            for worker in range(most)
        ]
    offsets = phase.offsets_ns[: phase.requests or None]
    total = len(offsets) or phase.requests
    most = max(1, min(workers, total or workers, phase.max_in_flight or workers))
    return [
        replace(
            phase,
            clients=max(1, portion(phase.clients, worker, most)),
            offsets_ns=offsets[worker::most],
            requests=portion(phase.requests, worker, most),
            max_in_flight=portion(phase.max_in_flight, worker, most),
            ends_fast=False,
        )
        for worker in range(most)
    ]


def merged_tick(ticks: Sequence[Tick]) -> Tick:
    """Sums of what adds up, and the worst of what does not. Bytes that waited are an upper bound: not at one time."""
    if len(ticks) == 1:
        return replace(ticks[0])
    values = {
        name: (sum if name in SUMMED or name in ("backlog_max", "spilled") else max)(
            getattr(tick, name) for tick in ticks
        )
        for name in Tick.__dataclass_fields__
    }
    return Tick(**values)


def merged_done(done: Sequence[PhaseDone], tick: Tick, forced: str = "") -> PhaseDone:
    """The end of the phase over all workers. `forced` is why all were told to stop, when we did."""
    said = {one.stopped_by for one in done}
    order = ("refused", "failing", "cancelled", "duration", "requests")
    stopped_by = forced or next((word for word in order if word in said), "requests")
    return PhaseDone(
        stopped_by,
        min(one.started_ns for one in done),
        max(one.ended_ns for one in done),
        sum(one.sent for one in done),
        tick,
    )


class Deal:
    """Which worker gets which body.

    Before a phase begins bodies are held back, because it decides. Open loop: body i belongs to worker i mod n. Closed
    loop: to the worker with the fewest unsent ones per client that still has requests to send.
    """

    def __init__(self, workers: int) -> None:
        self.playing = workers
        self._workers = workers
        self._early: list[Outgoing] = []
        self._phases: list[Phase] = []
        self._fed: list[int] = []
        self._base: list[int] = []
        self._over: set[int] = set()

    def of(self, bodies: Iterable[Outgoing], ticks: Sequence[Tick]) -> list[list[Outgoing]]:
        """One hand per worker."""
        if self._workers == 1:
            return [list(bodies)]
        hands: list[list[Outgoing]] = [[] for _ in range(self._workers)]
        if not self._phases:
            self._early.extend(bodies)
            return hands
        for body in bodies:
            number = self._whose(ticks)
            if number is not None and number not in self._over:
                hands[number].append(body)
        return hands

    def begin(self, phases: Sequence[Phase], ticks: Sequence[Tick]) -> list[list[Outgoing]]:
        """A phase begins: the hands of what was held back."""
        self._phases, self._over = list(phases), set()
        self._fed, self._base = [0] * len(phases), [tick.sent for tick in ticks]
        early, self._early = self._early, []
        return self.of(early, ticks)

    def over(self, number: int) -> None:
        """A worker is done with its phase; when all are, bodies are for the next one."""
        self._over.add(number)
        if len(self._over) >= len(self._phases):
            self._phases = []

    def _whose(self, ticks: Sequence[Tick]) -> int | None:
        """None when every worker has all it will send."""
        phases = self._phases
        if phases[0].arrivals is not Arrivals.CLOSED:
            number = sum(self._fed) % len(phases)
            self._fed[number] += 1
            return number
        best, least = None, 0.0
        for number, phase in enumerate(phases):
            if number in self._over or (phase.requests and self._fed[number] >= phase.requests):
                continue
            unsent = (self._fed[number] - ticks[number].sent + self._base[number]) / phase.clients
            if best is None or unsent < least:
                best, least = number, unsent
        if best is not None:
            self._fed[best] += 1
        return best
