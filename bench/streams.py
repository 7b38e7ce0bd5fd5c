"""Very many streams at once on one box: does everybody get an answer, and what does a stream cost in memory?

    python bench/streams.py --streams 10000 --workers 4

Every stream gets one chunk a second for a few seconds from the paced server, all on loopback. Memory is the resident
set of the load workers: idle, with the bodies queued, and with all streams in flight.
"""

from __future__ import annotations

import argparse
import os
import resource
import time

import numpy as np
import orjson
import psutil

from redline.load.crew import Crew
from redline.load.frames import Arrivals, End, Outgoing, Phase, PhaseDone, RawStream, Tick
from redline.load.limits import check_limits
from redline.load.paced.pace import Pace
from redline.load.paced.server import PacedServer
from redline.load.target import request_bytes, request_head, resolve


def resident(crew: Crew) -> int:
    return sum(psutil.Process(worker.process.pid).memory_info().rss for worker in crew.workers if worker.process)


def measure(streams: int, workers: int, tokens: int, ramp_s: float, body_bytes: int) -> dict[str, float]:
    check_limits(streams, workers)
    with (
        PacedServer(Pace(ttft_ms=1000, itl_ms=1000, usage="final")) as server,
        Crew(resolve(server.base_url), workers) as crew,
    ):
        while not crew.ready:
            crew.hear(0.5)
        idle = resident(crew)
        head = request_head(server.base_url, "/completions", api_key=None, stream=True)
        prompt = "x " * (body_bytes // 2)
        body = orjson.dumps({"model": "paced", "prompt": prompt, "max_tokens": tokens, "stream": True})
        crew.feed(Outgoing(i, request_bytes(head, f"r-{i}", body)) for i in range(streams))
        phase = Phase(
            Arrivals.CLOSED, clients=streams, requests=streams, ramp_ns=int(ramp_s * 1e9), preconnect=True,
            start_ns=time.monotonic_ns() + int(1e9 + 3e5 * streams),
        )  # fmt: skip
        crew.start(phase)
        heard: list[RawStream] = []
        most, peak, queued, done = 0, 0, 0, None
        while done is None:
            for item in crew.hear(0.2):
                if isinstance(item, RawStream):
                    heard.append(item)
                elif isinstance(item, Tick):
                    queued = queued or resident(crew)
                    if item.in_flight > most:
                        most, peak = item.in_flight, resident(crew)
                elif isinstance(item, PhaseDone):
                    done = item
        truths = server.truth()
    lags = [raw.head.sent_ns - raw.head.intended_ns for raw in heard]
    return {
        "streams": streams,
        "workers": workers,
        "whole": sum(raw.head.end is End.COMPLETE for raw in heard),
        "in_flight_max": most,
        "server_connections": len({truth.connection for truth in truths}),
        "send_lag_ms_p99": float(np.percentile(lags, 99)) / 1e6,
        "worker_idle_bytes": idle / workers,
        "bytes_per_queued_body": (queued - idle) / streams,
        "bytes_per_stream_in_flight": (peak - idle) / streams,
        "worker_cpu_s": done.tick.cpu_s,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=4)
    parser.add_argument("--ramp-s", type=float, default=1.0)
    parser.add_argument("--body-bytes", type=int, default=1000)
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # the server inherits it
    print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}")
    for name, value in measure(
        options.streams, options.workers, options.tokens, options.ramp_s, options.body_bytes
    ).items():
        print(f"{name:28} {value:,.1f}")


if __name__ == "__main__":
    main()
