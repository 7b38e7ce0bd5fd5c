"""Before the measurement: the warm-up, and canaries asked alone."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from redline.clock import now_ns
from redline.load.canary import Canaries, Listener, affordable, ordinary_alone
from redline.load.crew import Crew
from redline.load.frames import Arrivals, Phase, PhaseDone
from redline.load.measured import clients_of
from redline.load.progress import PointOutcome
from redline.load.prompts import PromptSource
from redline.load.record import RequestRecord
from redline.load.supply import Supply
from redline.load.warm import AGAIN_ALIKE, ALIKE, STABLE_BATCH, Batch, batch_of, decay, settled, token_seconds
from redline.spec.load import LoadPoint, LoadSpec
from redline.units import NS_PER_S

_WARMUP_MAX = 16
_OPEN_WARMUP_CLIENTS = 4

Pump = Callable[[int], PhaseDone]
"""Hears the worker out until the phase is over; takes the number of requests so far."""


class WarmUp:
    """Of one load point. `records` are filled by whoever reads the answers."""

    def __init__(
        self,
        worker: Crew,
        load: LoadSpec,
        point: LoadPoint,
        prompts: PromptSource,
        supply: Supply,
        listener: Listener,
    ) -> None:
        self._worker, self._load, self._prompts = worker, load, prompts
        self._supply, self._listener = supply, listener
        self._clients = clients_of(point)
        self._usual = min(_WARMUP_MAX, self._clients or max(1, math.ceil(point.value)))
        self._planned = 0
        self.rate = 0.0
        """Requests per second that the measurement is likely to take, by the last batch."""
        self.records: list[RequestRecord] = []

    def run(self, pump: Pump, outcome: PointOutcome, stopped: Callable[[], object]) -> PhaseDone:
        """Batch after batch until they take the same time, where that is asked for, else one; then, once per server,
        canaries alone and another batch, since the server was idle between them."""
        done = self._batches(pump, outcome, stopped)
        canaries = self._prompts.canaries
        if canaries is not None and not canaries.alone and self._goes_on(done, stopped):
            done = self._ask_alone(canaries, pump)
            if self._goes_on(done, stopped):
                done = self._batch(pump)
        return done

    @staticmethod
    def _goes_on(done: PhaseDone, stopped: Callable[[], object]) -> bool:
        return stopped() is None and done.stopped_by == "requests"

    def _batches(self, pump: Pump, outcome: PointOutcome, stopped: Callable[[], object]) -> PhaseDone:
        load, batches = self._load, list[Batch]()
        idle_s = self._idle_s()
        idled = idle_s >= load.warmup_again_s
        fresh = (bool(self._prompts.endpoint.pids) or idled) and not load.warmup_requests
        stable = load.warmup == "stable" or (load.warmup == "auto" and fresh)
        in_a_row = AGAIN_ALIKE if self._prompts.warmed and not idled else ALIKE
        first, began, is_settled = None, time.monotonic(), False
        while True:
            done = self._batch(pump, at_least=STABLE_BATCH if stable else 1)
            first = first or min(self.records, key=lambda record: record.index, default=None)
            batch = batch_of(self.records)
            batches += [batch] if batch else []
            is_settled = settled(batches, in_a_row=in_a_row)
            late = time.monotonic() - began > load.warmup_s
            if batch is None or late or is_settled or not stable or not self._goes_on(done, stopped):
                break
        seconds = time.monotonic() - began
        outcome.warmup = decay(
            batches, first, mode="stable" if stable else "fixed", seconds=seconds, is_settled=is_settled
        )
        outcome.warmup |= {"idle_s": idle_s, "idled": idled}
        self._prompts.warmed = self._prompts.warmed or is_settled
        return done

    def _idle_s(self) -> float:
        """How long nobody of ours had anything to do with the server; 0 before the first load point."""
        since = self._prompts.busy_until_ns
        return (now_ns() - since) / NS_PER_S if since else 0.0

    def _batch(self, pump: Pump, at_least: int = 1) -> PhaseDone:
        wanted = self._load.warmup_requests or max(self._usual, at_least)
        self.records.clear()
        self._supply.feed(self._worker, wanted, warmup=True)
        at_once = min(self._clients or _OPEN_WARMUP_CLIENTS, wanted)
        self._worker.start(Phase(Arrivals.CLOSED, clients=at_once, requests=wanted))
        self._planned += wanted
        done = pump(self._planned)
        seconds = max((done.ended_ns - done.started_ns) / NS_PER_S, 1e-3)
        self.rate = wanted / seconds / at_once * max(self._clients, 1)
        return done

    def _ask_alone(self, canaries: Canaries, pump: Pump) -> PhaseDone:
        """What canaries, and a few ordinary prompts, are answered without any other load."""
        token_s = token_seconds(self.records)
        numbers, ordinary = affordable(canaries, token_s), ordinary_alone(self._prompts.workload, token_s)
        self._supply.feed_canaries(self._worker, numbers)
        self._supply.feed(self._worker, ordinary, warmup=True)
        self._worker.start(Phase(Arrivals.CLOSED, clients=1, requests=len(numbers) + ordinary))
        self._listener.alone = True
        self._planned += len(numbers) + ordinary
        done = pump(self._planned)
        self._listener.alone = False
        return done
