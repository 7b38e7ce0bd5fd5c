"""What a load point says while it runs, and when it is over."""

from __future__ import annotations

import math
from collections import Counter, deque
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from redline.clock import now_ns
from redline.load.frames import End, RawStream, Tick
from redline.load.record import RequestRecord, Status
from redline.units import NS_PER_MS, NS_PER_S

StoppedBy = Literal["requests", "duration", "interrupted", "engine-died", "failing"]
_READ_LAGS_MAX = 5_000_000
_NEWEST = 500


@dataclass(frozen=True)
class LoadProgress:
    """`planned` is 0 when the time decides. `tokens` are an estimate until the requests in flight have ended."""

    phase: Literal["warm-up", "measuring"]
    elapsed_s: float
    planned: int
    in_flight: int
    finished: int
    failed: int
    tokens: int
    tokens_per_s: float
    duration_s: float = 0.0
    """Longest time that this phase may take; 0 when the requests decide."""
    recent: int = 0
    """How many of the newest requests the latencies below are of."""
    ttft_ms: tuple[float, float] | None = None
    """p50 and p99 from the intended start."""
    tpot_ms: tuple[float, float] | None = None
    send_lag_ms: float = 0.0
    """p99 of the newest requests."""
    client_busy: float = 0.0
    """CPU seconds of the load worker per second, lately."""


@dataclass
class PointOutcome:
    """How a load point went, by the load generator's own account; times in monotonic ns.

    `stopped_by`: `failing` when nothing but failures came back, `engine-died` when it is gone or refuses connections.
    `send_lag` is how late requests left, connecting not counted; `read_lag` how long bytes lay in the kernel before
    they were read: the error that stamps taken in user space would have had. Both are the client's own doing.
    """

    started_ns: int
    measured_from_ns: int = 0
    ended_ns: int = 0
    stopped_by: StoppedBy = "requests"
    planned: int = 0
    sent: int = 0
    notes: list[str] = field(default_factory=list)
    client_cpu_s: float = 0.0
    """CPU seconds of all load workers while measuring."""
    worker_cpu_s_max: float = 0.0
    """CPU seconds of the busiest one: a worker cannot use more than one core."""
    workers: int = 1
    client_cores: list[int] = field(default_factory=list)
    """Core of each worker; empty when they were not pinned, and `pinning` says why."""
    server_cores: list[int] = field(default_factory=list)
    """Where the server was allowed to run, or else where its busiest threads were; empty when not known."""
    pinning: str = ""
    parent_cpu_s: float = 0.0
    """CPU seconds of redline itself meanwhile: parsing, storing, showing."""
    send_lag_ms_p50: float = 0.0
    send_lag_ms_p99: float = 0.0
    read_lag_ms_p50: float = 0.0
    read_lag_ms_p99: float = 0.0
    read_lag_ms_max: float = 0.0
    loop_lag_ms_p50: float = 0.0
    """How late the worker's loop got to what was due, of several workers the worst."""
    loop_lag_ms_p99: float = 0.0
    loop_lag_ms_max: float = 0.0
    held_back: int = 0
    """Requests that were due while `max_in_flight` were in flight: they left late, and keep their due time."""
    max_in_flight: int = 0
    pieces: int = 0
    """Reads that brought bytes of answers."""
    pieces_measured: int = 0
    """Those of the measurement, without the warm-up's."""
    bytes_in: int = 0
    starved: int = 0
    retried: int = 0
    never_left: int = 0
    """Requests for which this box had no port or descriptor."""
    opening_events: float = 0.0
    """Events per answer with a choice but no token, before its first chunk (the role); some tools count them."""
    closing_events: float = 0.0
    """The same after its first chunk (the finish reason)."""
    prompts_off: int = 0
    prompts_unverified: int = 0
    prefixes_used: int = 0
    """Different shared prefixes among the requests made."""
    trace_prefix: str = ""
    """First half of the trace ids of the requests, whose index is the other; '' when they carried none."""
    spread: int = 0
    """Answers whose tokens per chunk are an estimate: the server gave a total, and the texts their lengths."""
    prompt_overhead: dict[str, int] = field(default_factory=dict)
    """By class ('' without classes): tokens of template and special tokens in every prompt, as far as known."""
    clock_error_ns: int = 0
    clock_step_ns: int = 0
    stamp: str = "kernel"
    stamps: dict[str, Any] = field(default_factory=dict)
    """Who stamped, and what the packet ring did; see `stamping.StampReport`."""
    interpreted: str = ""
    """Why the worker reads answers in Python, which takes a third more of its CPU; '' when compiled C does."""
    short_slice: bool = False
    """The kernel gave the worker short time slices (Linux 6.12 and later): it wakes up earlier on a busy box."""
    backlog_max_bytes: int = 0
    spilled_bytes: int = 0
    traffic: dict[str, Any] = field(default_factory=dict)
    """The plan of a load that is not one number: its stages, its burstiness, its trace, its sessions."""
    cache: dict[str, Any] = field(default_factory=dict)
    """What was declared of the prefix cache, what all prompts share, and whether usage told of it."""
    canary: dict[str, Any] = field(default_factory=dict)
    """Fixed prompts in the load against their answers alone; see `load/canary.py`."""
    answers: dict[str, Any] = field(default_factory=dict)
    """What ordinary answers look like, measured and before."""
    warmup: dict[str, Any] = field(default_factory=dict)
    """The cold start and what it took to get over it; see `load/warm.py`."""

    @property
    def chunks_per_s(self) -> float:
        """Reads that brought bytes of answers, per second of the measurement."""
        seconds = (self.ended_ns - self.measured_from_ns) / NS_PER_S
        return self.pieces_measured / seconds if seconds > 0 else 0.0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Tally:
    """Counts along while a point runs."""

    def __init__(self) -> None:
        self.began_ns = now_ns()
        self.tick = Tick()
        self.finished = 0
        self.failed = 0
        self._tokens = 0
        self._pieces_of_finished = 0
        self._never_left = 0
        self._send_lags: list[int] = []
        self._read_lags: list[np.ndarray[Any, np.dtype[np.int64]]] = []
        self._read_lag_count = 0
        self._recent: deque[tuple[int, int]] = deque()
        self._busy: deque[tuple[int, float]] = deque()
        self._newest: deque[tuple[int, int, float]] = deque(maxlen=_NEWEST)
        self._stamps: Counter[str] = Counter()

    def start_over(self) -> None:
        """The warm-up is over."""
        self.began_ns = now_ns()
        self.finished = self.failed = 0
        self._stamps.clear()
        self._newest.clear()

    def ticked(self, tick: Tick) -> None:
        self.tick = tick
        now = now_ns()
        self._recent.append((now, tick.pieces))
        self._busy.append((now, tick.cpu_s))
        while now - self._recent[0][0] > NS_PER_S and len(self._recent) > 2:
            self._recent.popleft()
            self._busy.popleft()

    def add(self, raw: RawStream, record: RequestRecord) -> None:
        self.finished += record.status is not Status.CANCELLED
        self.failed += record.failed
        self._never_left += raw.head.end is End.LOCAL and not record.warmup
        self._tokens += record.output_tokens
        self._pieces_of_finished += len(raw.lengths)
        self._stamps[record.stamp] += 1
        if record.status is Status.OK and record.chunk_ns:
            first, tokens = record.chunk_ns[0], record.output_tokens - record.chunk_tokens[0]
            tpot = (record.chunk_ns[-1] - first) / tokens if tokens > 0 else math.nan
            self._newest.append((first - record.intended_ns, record.sent_ns - record.intended_ns, tpot))
        head = raw.head
        if head.sent_ns and not record.warmup:
            self._send_lags.append(head.sent_ns - head.intended_ns - (head.connected_ns - head.connect_ns))
        if not record.warmup and self._read_lag_count < _READ_LAGS_MAX and len(raw.lengths):
            lags = np.asarray(raw.seen, dtype=np.int64) - np.asarray(raw.stamps, dtype=np.int64)
            self._read_lags.append(lags)
            self._read_lag_count += len(lags)

    def progress(self, phase: Literal["warm-up", "measuring"], planned: int, duration_s: float = 0.0) -> LoadProgress:
        per_piece = self._tokens / self._pieces_of_finished if self._pieces_of_finished else 1.0
        (first_ns, first), (last_ns, last) = (self._recent[0], self._recent[-1]) if self._recent else ((0, 0), (0, 0))
        seconds = (last_ns - first_ns) / NS_PER_S
        waiting = self.tick.pieces - self._pieces_of_finished
        return LoadProgress(
            phase=phase,
            elapsed_s=(now_ns() - self.began_ns) / NS_PER_S,
            planned=planned,
            in_flight=self.tick.in_flight,
            finished=self.finished,
            failed=self.failed,
            tokens=self._tokens + round(max(0, waiting) * per_piece),
            tokens_per_s=(last - first) * per_piece / seconds if seconds > 0 else 0.0,
            duration_s=duration_s,
            client_busy=(self._busy[-1][1] - self._busy[0][1]) / seconds if seconds > 0 else 0.0,
            **self._latencies(),
        )

    def _latencies(self) -> dict[str, Any]:
        """Of the newest requests: for people who watch, not for the results."""
        if not self._newest:
            return {}
        ttft, lag, tpot = np.array(self._newest).T / NS_PER_MS
        tpot = tpot[~np.isnan(tpot)]
        return {
            "recent": len(ttft),
            "ttft_ms": tuple(np.percentile(ttft, [50, 99]).tolist()),
            "tpot_ms": tuple(np.percentile(tpot, [50, 99]).tolist()) if len(tpot) else None,
            "send_lag_ms": float(np.percentile(lag, 99)),
        }

    def fill(self, outcome: PointOutcome) -> None:
        """The lags, as percentiles; what is counted along."""
        tick = self.tick
        outcome.loop_lag_ms_p50, outcome.loop_lag_ms_p99 = tick.loop_lag_ms_p50, tick.loop_lag_ms_p99
        outcome.loop_lag_ms_max, outcome.held_back = tick.loop_lag_ms_max, tick.held_back
        outcome.never_left = self._never_left
        if self._send_lags:
            p50, p99 = np.percentile(self._send_lags, [50, 99]) / NS_PER_MS
            outcome.send_lag_ms_p50, outcome.send_lag_ms_p99 = float(p50), float(p99)
        if self._read_lags:
            lags = np.concatenate(self._read_lags)
            p50, p99, most = np.percentile(lags, [50, 99, 100]) / NS_PER_MS
            outcome.read_lag_ms_p50, outcome.read_lag_ms_p99 = float(p50), float(p99)
            outcome.read_lag_ms_max = float(most)
        if self._stamps:
            outcome.stamp = self._stamps.most_common(1)[0][0]
