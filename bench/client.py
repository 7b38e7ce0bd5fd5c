"""How good an instrument the load generator is: its CPU per chunk, and its error against a server that knows the truth.

    python bench/client.py --streams 10,100,500,1000 --rounds 3 [--interpreted] [--out docs/results/load-client.md]

The paced server keeps the true send time of every chunk and the kernel's arrival stamp of every request. The load
worker has one core of its own when there are two or more; server and parent share the others. Each stream is stamped
three times in the same run: by the packet ring where the box allows it (what redline reports), by the socket, and right
after the read (what a user-space client would).
An error is (reported − true) / true of the mean or of the 99th percentile; rows are medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import httptools
import numpy as np
import orjson
from numpy.typing import NDArray

from redline import __version__
from redline.load.arrivals import schedule
from redline.load.crew import LoadWorker
from redline.load.frames import Arrivals, Outgoing, Phase, PhaseDone, RawStream, Tick
from redline.load.paced.loop import Truth
from redline.load.paced.pace import Pace
from redline.load.paced.server import PacedServer
from redline.load.reading import Asked, Reader
from redline.load.record import Status
from redline.load.stamping import Stamper
from redline.load.target import request_bytes, request_head, resolve
from redline.spec.load import LoadPoint

TTFT_MS, ITL_MS, TOKENS = 50.0, 20.0, 150
STREAM_S = (TTFT_MS + ITL_MS * TOKENS) / 1000
Ints = NDArray[np.int64]


@dataclass
class Row:
    """One measurement. Errors are shares of the true value: by the best stamps that the box allows (`tier`), by the
    socket's (`kernel_`), and by those of a user-space client (`user_`), all of the same streams."""

    loop: str
    streams: int
    chunks_per_s: float
    chunks_per_cpu_s: float
    us_per_chunk: float
    parse_us_per_chunk: float
    ttft_mean: float
    ttft_p50: float
    ttft_p99: float
    itl_mean: float
    itl_p50: float
    itl_p99: float
    kernel_ttft_p99: float
    kernel_itl_p99: float
    user_ttft_mean: float
    user_ttft_p99: float
    user_itl_p99: float
    shared_stamps: float
    send_lag_ms_p99: float
    server_late_ms_p99: float
    failed: int
    tier: str


def measure(
    server: PacedServer, loop: str, streams: int, seconds: float, stall_ms: float = 0.0, *, compiled: bool = True
) -> Row:
    cores = sorted(os.sched_getaffinity(0))
    head = request_head(server.base_url, "/completions", api_key=None, stream=True)
    body = orjson.dumps({"model": "paced", "prompt": "hello", "max_tokens": TOKENS, "stream": True})
    if loop == "open":
        rate = streams / STREAM_S
        offsets = schedule(LoadPoint("poisson", rate), seed=1, duration_s=seconds)
        phase = Phase(Arrivals.OPEN, offsets_ns=offsets, requests=len(offsets))
    else:
        count = streams * max(1, round(seconds / STREAM_S))
        phase = Phase(Arrivals.CLOSED, clients=streams, requests=count, preconnect=True)
    server.truth(clear=True)
    target = replace(resolve(server.base_url), stall_every_ms=500.0 if stall_ms else 0.0, stall_ms=stall_ms)
    target = replace(target, compiled=compiled)
    with Stamper(target, "auto") as stamper, LoadWorker(stamper.eased(target, closed=loop == "closed")) as worker:
        assert worker.process is not None
        if len(cores) > 1:
            os.sched_setaffinity(worker.process.pid, {cores[-1]})
        while not worker.ready:
            worker.hear(0.5)
        cpu = _cpu_after_ready(worker)
        worker.feed(Outgoing(i, request_bytes(head, f"r-{i}", body)) for i in range(phase.requests))
        worker.start(phase)
        raws, best, done = _hear_out(worker, stamper)
        tier = stamper.report.tier
    return _row(loop, streams, raws, best, done, cpu, server.truth(), tier)


def _cpu_after_ready(worker: LoadWorker) -> float:
    while True:
        for heard in worker.hear(0.5):
            if isinstance(heard, Tick):
                return heard.cpu_s


def _hear_out(worker: LoadWorker, stamper: Stamper) -> tuple[list[RawStream], list[RawStream], PhaseDone]:
    """The streams as the socket stamped them, the same with the best stamps, and how the phase ended."""
    raws: list[RawStream] = []
    best: list[RawStream] = []
    while True:
        for heard in worker.hear(0.02):
            if isinstance(heard, RawStream):
                raws.append(heard)
                stamper.put(heard)
            elif isinstance(heard, PhaseDone):
                best += stamper.flush()
                return sorted(raws, key=_number), sorted(best, key=_number), heard
        best += stamper.ready()


def _number(raw: RawStream) -> int:
    return raw.head.number


def _row(
    loop: str, streams: int, raws: list[RawStream], best: list[RawStream], done: PhaseDone, cpu: float,
    truths: list[Truth], tier: str,
) -> Row:  # fmt: skip
    reader, asked = Reader(), Asked(0, TOKENS)
    before = time.process_time()
    records = [reader.read(raw, asked) for raw in best]
    parse_s = time.process_time() - before
    by_id = {truth.id: truth for truth in truths}
    true_ttft, true_itl = [], []
    got: dict[str, list[Ints]] = {f"{who}{what}": [] for who in ("", "kernel_", "user_") for what in ("ttft", "itl")}
    good = [(raw, record) for raw, record in zip(raws, records, strict=True) if record.status is Status.OK]
    for raw, record in good:
        truth = by_id[f"r-{record.index}"]
        sent = np.array(truth.before_ns, dtype=np.int64)
        true_ttft.append(sent[:1] - truth.arrived_ns)
        true_itl.append(np.diff(sent))
        socket_s = reader.read(raw, asked).chunk_ns
        seen = reader.read(replace(raw, stamps=raw.seen), asked).chunk_ns
        for prefix, times in (("", record.chunk_ns), ("kernel_", socket_s), ("user_", seen)):
            at = np.array(times, dtype=np.int64)
            got[prefix + "ttft"].append(at[:1] - record.sent_ns)
            got[prefix + "itl"].append(np.diff(at))
    chunks = sum(len(record.chunk_ns) for _, record in good)
    seconds = (done.ended_ns - done.started_ns) / 1e9
    busy = done.tick.cpu_s - cpu
    lags = [record.sent_ns - record.intended_ns for record in records]
    return Row(
        loop=loop,
        streams=streams,
        chunks_per_s=chunks / seconds,
        chunks_per_cpu_s=chunks / busy,
        us_per_chunk=busy / chunks * 1e6,
        parse_us_per_chunk=parse_s / chunks * 1e6,
        ttft_mean=_error(np.mean, got["ttft"], true_ttft),
        ttft_p50=_error(np.median, got["ttft"], true_ttft),
        ttft_p99=_error(_p99, got["ttft"], true_ttft),
        itl_mean=_error(np.mean, got["itl"], true_itl),
        itl_p50=_error(np.median, got["itl"], true_itl),
        itl_p99=_error(_p99, got["itl"], true_itl),
        kernel_ttft_p99=_error(_p99, got["kernel_ttft"], true_ttft),
        kernel_itl_p99=_error(_p99, got["kernel_itl"], true_itl),
        user_ttft_mean=_error(np.mean, got["user_ttft"], true_ttft),
        user_ttft_p99=_error(_p99, got["user_ttft"], true_ttft),
        user_itl_p99=_error(_p99, got["user_itl"], true_itl),
        shared_stamps=sum(record.shared_stamps for _, record in good) / chunks,
        send_lag_ms_p99=float(np.percentile(lags, 99)) / 1e6,
        server_late_ms_p99=float(np.percentile([truth.late_ns for truth in truths], 99)) / 1e6,
        failed=len(records) - len(good),
        tier=tier,
    )


def _p99(values: Ints) -> np.float64:
    return np.float64(np.percentile(values, 99))


def _error(statistic: object, reported: list[Ints], true: list[Ints]) -> float:
    assert callable(statistic)
    truth = float(statistic(np.concatenate(true)))
    return (float(statistic(np.concatenate(reported))) - truth) / truth


def median_row(rows: Sequence[Row]) -> Row:
    middle = {
        name: float(np.median([getattr(row, name) for row in rows]))
        for name in asdict(rows[0])
        if name not in ("loop", "streams", "failed", "tier")
    }
    failed = max(row.failed for row in rows)
    return Row(loop=rows[0].loop, streams=rows[0].streams, failed=failed, tier=rows[0].tier, **middle)


def table(rows: Sequence[Row]) -> str:
    lines = [
        "| loop | streams | chunks/s | chunks per client CPU-s | client µs/chunk | parse µs/chunk "
        f"| TTFT mean, p50, p99 ({rows[0].tier}) | ITL mean, p50, p99 ({rows[0].tier}) "
        "| socket stamp: TTFT p99, ITL p99 | user stamp: TTFT mean, p99 | user stamp: ITL p99 | shared stamps "
        "| send lag p99 | server late p99 |",
        "|---" * 14 + "|",
    ]
    for row in rows:
        lines.append(
            f"| {row.loop} | {row.streams} | {row.chunks_per_s:,.0f} | {row.chunks_per_cpu_s:,.0f} "
            f"| {row.us_per_chunk:.1f} | {row.parse_us_per_chunk:.1f} | {row.ttft_mean:+.2%}, "
            f"{row.ttft_p50:+.2%}, {row.ttft_p99:+.2%} | {row.itl_mean:+.2%}, {row.itl_p50:+.2%}, {row.itl_p99:+.2%} "
            f"| {row.kernel_ttft_p99:+.2%}, {row.kernel_itl_p99:+.2%} "
            f"| {row.user_ttft_mean:+.2%}, {row.user_ttft_p99:+.2%} | {row.user_itl_p99:+.2%} "
            f"| {row.shared_stamps:.2%} | {row.send_lag_ms_p99:.2f} ms | {row.server_late_ms_p99:.2f} ms |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", default="10,100,500,1000")
    parser.add_argument("--loops", default="open,closed")
    parser.add_argument("--seconds", type=float, default=8.0, help="per measurement")
    parser.add_argument("--rounds", type=int, default=3, help="rows are medians over the rounds")
    parser.add_argument("--stall-ms", type=float, default=0.0, help="freeze the client so long every 500 ms")
    parser.add_argument("--interpreted", action="store_true", help="read by Python, as without a C compiler")
    parser.add_argument("--json", action="store_true", help="every round as JSON")
    parser.add_argument("--out", type=Path, help="also write the table there")
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        os.sched_setaffinity(0, set(cores[:-1]))
    every: list[Row] = []
    rows: list[Row] = []
    with PacedServer(Pace(ttft_ms=TTFT_MS, itl_ms=ITL_MS, usage="final")) as server:
        if len(cores) > 1:
            os.sched_setaffinity(0, set(cores))  # the server keeps what it was started with, workers get the last one
        for loop in options.loops.split(","):
            for streams in (int(item) for item in options.streams.split(",")):
                rounds = []
                for _ in range(options.rounds):
                    rounds.append(
                        measure(
                            server, loop, streams, options.seconds, options.stall_ms, compiled=not options.interpreted
                        )
                    )
                    print(".", end="", flush=True, file=sys.stderr)
                every += rounds
                rows.append(median_row(rounds))
    print(file=sys.stderr)
    box = f"{len(cores)} cores, Linux {platform.release()}, Python {platform.python_version()}"
    versions = f"redline {__version__}, httptools {httptools.__version__}, orjson {orjson.__version__}"
    text = f"{box}; {versions}; load average {os.getloadavg()[0]:.1f}\n\n{table(rows)}\n"
    print(json.dumps([asdict(row) for row in every]) if options.json else text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
