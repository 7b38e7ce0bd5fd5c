"""Very many streams at once on one box: does everybody get an answer, from which cores, how true, at what memory?

    python bench/streams.py --streams 10000 --workers 4 [--server-cores 0,1]

Every stream gets one chunk a second for a few seconds from the paced server, all on loopback. Memory is the resident
set of the load workers: idle, with the bodies queued, and with all streams in flight. Workers are pinned by the rules
of every load point, the server's process being known: where each was allowed to run, and on which cores the server and
the workers were seen to run (sampled five times a second), stands beside the plan. Errors are (reported − true) / true.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import psutil

from redline.load.cores import CorePlan, plan_cores
from redline.load.crew import Crew
from redline.load.frames import Arrivals, End, Outgoing, Phase, PhaseDone, RawStream, Tick
from redline.load.limits import check_limits
from redline.load.paced.loop import Truth
from redline.load.paced.pace import Pace
from redline.load.paced.server import PacedServer
from redline.load.reading import Asked, Reader
from redline.load.record import Status
from redline.load.stamping import Stamper
from redline.load.target import request_bytes, request_head, resolve


def resident(crew: Crew) -> int:
    return sum(psutil.Process(worker.process.pid).memory_info().rss for worker in crew.workers if worker.process)


class Seen:
    """On which cores the processes ran, whenever somebody looked."""

    def __init__(self, pids: dict[str, int]) -> None:
        self.pids = pids
        self.cores: dict[str, set[int]] = {name: set() for name in pids}
        self.allowed = {name: sorted(os.sched_getaffinity(pid)) for name, pid in pids.items()}

    def look(self) -> None:
        for name, pid in self.pids.items():
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
            self.cores[name].add(int(stat[36]))

    def lines(self) -> list[str]:
        return [
            f"{name:10} allowed on {self.allowed[name]}, seen on {sorted(seen)}" for name, seen in self.cores.items()
        ]


def measure(options: argparse.Namespace) -> tuple[CorePlan, dict[str, float], Seen]:
    streams: int = options.streams
    pace = Pace(ttft_ms=1000, itl_ms=1000, usage="final")
    with PacedServer(pace) as server, Stamper(resolve(server.base_url), "auto", ring_bytes=256 << 20) as stamper:
        assert server.process is not None
        if options.server_cores:
            os.sched_setaffinity(server.process.pid, {int(core) for core in options.server_cores.split(",")})
        plan = plan_cores([server.process.pid], wanted=options.workers, asked=options.workers)
        check_limits(streams, plan.workers)
        target = stamper.eased(resolve(server.base_url), closed=True)
        with Crew(target, plan.workers, cores=plan.cores) as crew:
            while not crew.ready:
                crew.hear(0.5)
            workers = {f"worker {i}": one.process.pid for i, one in enumerate(crew.workers) if one.process}
            seen = Seen({"server": server.process.pid, **workers})
            found, raws = push(crew, stamper, server.base_url, options, seen)
        truths = server.truth()
    return plan, found | errors(raws, truths, options.tokens), seen


def push(
    crew: Crew, stamper: Stamper, url: str, options: argparse.Namespace, seen: Seen
) -> tuple[dict[str, float], list[RawStream]]:
    streams, idle = options.streams, resident(crew)
    head = request_head(url, "/completions", api_key=None, stream=True)
    prompt = "x " * (options.body_bytes // 2)
    body = orjson.dumps({"model": "paced", "prompt": prompt, "max_tokens": options.tokens, "stream": True})
    crew.feed(Outgoing(i, request_bytes(head, f"r-{i}", body)) for i in range(streams))
    crew.start(
        Phase(
            Arrivals.CLOSED, clients=streams, requests=streams, ramp_ns=int(options.ramp_s * 1e9), preconnect=True,
            start_ns=time.monotonic_ns() + int(1e9 + 3e5 * streams),
        )
    )  # fmt: skip
    raws: list[RawStream] = []
    most, peak, queued, looked, done = 0, 0, 0, 0.0, None
    while done is None:
        for item in crew.hear(0.02):
            if isinstance(item, RawStream):
                stamper.put(item)
            elif isinstance(item, Tick):
                queued = queued or resident(crew)
                if item.in_flight > most:
                    most, peak = item.in_flight, resident(crew)
            elif isinstance(item, PhaseDone):
                done = item
        raws += stamper.ready() if done is None else stamper.flush()
        if time.monotonic() > looked + 0.2:
            looked = time.monotonic()
            seen.look()
    lags = [raw.head.sent_ns - raw.head.intended_ns for raw in raws]
    return {
        "streams": streams,
        "workers": len(crew.workers),
        "whole": sum(raw.head.end is End.COMPLETE for raw in raws),
        "in_flight_max": most,
        "send_lag_ms_p99": float(np.percentile(lags, 99)) / 1e6,
        "worker_idle_bytes": idle / len(crew.workers),
        "bytes_per_queued_body": (queued - idle) / streams,
        "bytes_per_stream_in_flight": (peak - idle) / streams,
        "worker_cpu_s": done.tick.cpu_s,
        "loop_lag_ms_p99": done.tick.loop_lag_ms_p99,
        "restamped_by_packet_ring": stamper.report.restamped,
        "kept_socket_stamps": stamper.report.fell_back,
    }, raws


def errors(raws: list[RawStream], truths: list[Truth], tokens: int) -> dict[str, float]:
    """Of TTFT (from the actual send) and ITL, in percent of the true value."""
    reader, asked = Reader(), Asked(0, tokens)
    by_id = {truth.id: truth for truth in truths}
    got: dict[str, list[Any]] = {name: [] for name in ("ttft", "true_ttft", "itl", "true_itl")}
    for raw in raws:
        record = reader.read(raw, asked)
        if record.status is Status.OK:
            truth, at = by_id[f"r-{record.index}"], np.array(record.chunk_ns, np.int64)
            sent = np.array(truth.before_ns, np.int64)
            got["ttft"].append(at[:1] - record.sent_ns)
            got["true_ttft"].append(sent[:1] - truth.arrived_ns)
            got["itl"].append(np.diff(at))
            got["true_itl"].append(np.diff(sent))
    columns = {name: np.concatenate(parts) for name, parts in got.items()}
    found = {"server_connections": float(len({truth.connection for truth in truths}))}
    for metric in ("ttft", "itl"):
        for name, level in (("p50", 50), ("p99", 99)):
            mine, true = (np.percentile(columns[key], level) for key in (metric, f"true_{metric}"))
            found[f"{metric}_{name}_error_percent"] = float((mine - true) / true * 100)
        mine, true = columns[metric].mean(), columns[f"true_{metric}"].mean()
        found[f"{metric}_mean_error_percent"] = float((mine - true) / true * 100)
    late = [truth.late_ns for truth in truths]
    return found | {"server_late_ms_p99": float(np.percentile(late, 99)) / 1e6}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--server-cores", default="", help="confine the server to these; else it may run anywhere")
    parser.add_argument("--tokens", type=int, default=4)
    parser.add_argument("--ramp-s", type=float, default=1.0)
    parser.add_argument("--body-bytes", type=int, default=1000)
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # the server inherits it
    print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}")
    plan, found, seen = measure(options)
    print(f"server on {list(plan.server)}; workers on {list(plan.cores)} {plan.note}".rstrip())
    for line in seen.lines():
        print(line)
    for name, value in found.items():
        print(f"{name:28} {value:,.3f}")


if __name__ == "__main__":
    main()
