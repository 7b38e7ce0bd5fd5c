"""Before a load point: the same load against a server that knows what it did, to learn the client's own error.

The paced server runs in a process of its own and keeps the true time of everything it sends. The plan of the load point
(clients or rate, endpoint, prompt sizes, stamps, workers) goes through the very code that loads the engine, for a few
seconds.
What cannot be seen this way: a network between client and server, and what the engine's own work does to a client that
shares the box with it (send lag, loop lag and read lag of the real point show that).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from redline.analyse.calibration import Truthful, client_error
from redline.errors import RedlineError
from redline.load.frames import Plant
from redline.load.paced.loop import Truth
from redline.load.paced.pace import Pace
from redline.load.paced.server import PacedServer
from redline.load.progress import PointOutcome
from redline.load.prompts import prompt_source
from redline.load.record import RequestRecord, Status
from redline.load.run import run_point
from redline.spec.experiment import Experiment
from redline.spec.load import LoadPoint
from redline.spec.request_class import Api, VectorFormat
from redline.spec.workload import LengthSpec, WorkloadSpec
from redline.units import NS_PER_MS

TTFT_MS, ITL_MS, CHUNK_BYTES = 50.0, 20.0, 250
FLOOD_CLIENTS, FLOOD_ITL_MS, FLOOD_S = 32, 2.0, 1.0
AGAIN_ABOVE = 1.2
"""A real chunk rate this much above the calibrated one is calibrated again, afterwards."""

Said = dict[str, Any]
Ask = Callable[[], bool]


@dataclass
class Calibrator:
    """Calibrates each shape of load once per run, and the flood once."""

    experiment: Experiment
    should_stop: Ask = lambda: False
    plant: Plant = field(default_factory=Plant)
    _known: dict[LoadPoint, Said] = field(default_factory=dict)
    _flood: float = math.nan

    def before(self, point: LoadPoint) -> Said:
        """What to keep with the point. One that was not asked for says so (`off`), one that failed says why."""
        if not self.experiment.load.calibrate_s:
            return {"off": True}
        if point not in self._known:
            self._known[point] = self._calibrate(point, ITL_MS)
            self._known[point]["sustains_chunks_per_s"] = self._capacity() * self._known[point].get("workers", 1)
        return self._known[point]

    def after(self, point: LoadPoint, chunks_per_s: float) -> Said:
        """The same again at the rate at which chunks really came, where that was higher."""
        known = self.before(point)
        rate = known.get("chunks_per_s", math.nan)
        if "off" in known or self.should_stop() or not chunks_per_s > AGAIN_ABOVE * rate:
            return known
        again = self._calibrate(point, max(ITL_MS * rate / chunks_per_s, 0.2))
        again["sustains_chunks_per_s"] = known["sustains_chunks_per_s"]
        again["after"] = True
        self._known[point] = again
        return again

    def _calibrate(self, point: LoadPoint, itl_ms: float) -> Said:
        seconds = self.experiment.load.calibrate_s
        try:
            whole = not _replayed(self.experiment.workload).streamed
            ttft_ms = TTFT_MS * itl_ms / ITL_MS if whole else TTFT_MS
            measured = _replay(self, point, Pace(ttft_ms, itl_ms, chunk_bytes=CHUNK_BYTES), seconds)
        except (RedlineError, OSError) as problem:
            return {"failed": str(problem), "sustains_chunks_per_s": math.nan}
        return _said(measured, itl_ms)

    def _capacity(self) -> float:
        """Chunks per second that one core of this client takes, from its CPU time in a flood; NaN when unknown."""
        if math.isnan(self._flood) and not self.should_stop():
            try:
                flood = _replay(
                    self, LoadPoint("closed", FLOOD_CLIENTS), Pace(20.0, FLOOD_ITL_MS, chunk_bytes=CHUNK_BYTES), FLOOD_S
                )
            except (RedlineError, OSError):
                return math.nan
            outcome = flood.outcome
            self._flood = outcome.pieces_measured / outcome.client_cpu_s if outcome.client_cpu_s > 0 else math.nan
        return self._flood


@dataclass(frozen=True)
class _Measured:
    outcome: PointOutcome
    records: list[RequestRecord]
    truths: dict[int, Truth]
    api: str
    streamed: bool


@dataclass(frozen=True)
class _Replayed:
    """What of a workload decides what a request costs the client."""

    api: Api
    streamed: bool
    prompt_tokens: int
    output_tokens: int
    embedding_batch: int
    embedding_format: VectorFormat

    def workload(self, longest: int) -> WorkloadSpec:
        """The same of synthetic prompts, with answers of `longest` tokens at most."""
        return WorkloadSpec(
            canary_share=0,
            api=self.api,
            stream=self.streamed,
            prompt_tokens=LengthSpec(mean=max(self.prompt_tokens, 24)),
            output_tokens=LengthSpec(mean=max(2, min(self.output_tokens, longest))),
            embedding_batch=self.embedding_batch,
            embedding_format=self.embedding_format,
        )


def _replayed(workload: WorkloadSpec) -> _Replayed:
    """Of several classes the one that most requests are of."""
    weights = {one.name: one.weight for one in workload.classes}
    _, part = max(workload.parts.items(), key=lambda named: weights.get(named[0], 1.0))
    return _Replayed(
        part.api, part.stream and part.api != "embeddings", part.prompt_tokens.mean, part.output_tokens.mean,
        part.embedding_batch, part.embedding_format,
    )  # fmt: skip


def _replay(calibrator: Calibrator, point: LoadPoint, pace: Pace, seconds: float) -> _Measured:
    experiment = calibrator.experiment
    replayed = _replayed(experiment.workload)
    workload = replayed.workload(int((seconds * 1000 - pace.ttft_ms) / pace.itl_ms))
    load = experiment.load.model_copy(
        update={"stages": [], "requests": 0, "duration_s": seconds, "warmup_requests": 1, "drain_s": 1.0, "ramp_s": 0.0}
    )
    records: list[RequestRecord] = []
    with PacedServer(pace) as server:
        prompts = prompt_source(server.endpoint, workload, seed=experiment.seed, tokenizer_path=None, needed=64)
        outcome = run_point(
            server.endpoint, workload, load, point,
            seed=experiment.seed, prompts=prompts, on_record=records.append,
            should_stop=calibrator.should_stop, alive=lambda: server.alive, plant=calibrator.plant,
        )  # fmt: skip
        truths = {int(truth.id.rpartition("-")[2]): truth for truth in server.truth() if truth.id}
    return _Measured(outcome, records, truths, replayed.api, replayed.streamed)


def _said(measured: _Measured, itl_ms: float) -> Said:
    rows = [
        _truthful(record, measured.truths[record.index], measured.streamed)
        for record in measured.records
        if record.status is Status.OK and not record.warmup and record.index in measured.truths
    ]
    outcome = measured.outcome
    seconds = (outcome.ended_ns - outcome.measured_from_ns) / 1e9
    return {
        **client_error([row for row in rows if row is not None]).as_dict(),
        "api": measured.api,
        "streamed": measured.streamed,
        "itl_ms": itl_ms,
        "chunks_per_s": outcome.pieces_measured / seconds if seconds > 0 else math.nan,
        "stamp": outcome.stamp,
        "send_lag_ms_p50": outcome.send_lag_ms_p50,
        "send_lag_ms_p99": outcome.send_lag_ms_p99,
        "user_space_late_ms_p99": outcome.read_lag_ms_p99,
        "workers": outcome.workers,
        "client_busy": outcome.worker_cpu_s_max / seconds if seconds > 0 else math.nan,
        "after": False,
    }


def _truthful(record: RequestRecord, truth: Truth, streamed: bool) -> Truthful | None:
    """None when the two do not have the same chunks, which a calibration has no use for. An answer in one piece has no
    first token: the time of the whole stands for it."""
    if not streamed:
        mine, true = record.finished_ns - record.sent_ns, truth.finished_ns - truth.arrived_ns
        return Truthful(mine / NS_PER_MS, true / NS_PER_MS, np.empty(0), np.empty(0)) if truth.finished_ns else None
    sent, got = np.array(truth.before_ns, np.int64), np.array(record.chunk_ns, np.int64)
    if len(sent) != len(got) or len(got) == 0:
        return None
    return Truthful(
        (int(got[0]) - record.sent_ns) / NS_PER_MS,
        (int(sent[0]) - truth.arrived_ns) / NS_PER_MS,
        np.diff(got) / NS_PER_MS,
        np.diff(sent) / NS_PER_MS,
    )
