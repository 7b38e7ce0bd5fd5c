"""How long a report of a large log takes, and what memory: a synthetic results file, read and rendered.

    python bench/report.py --requests 1000000 --chunks 32 [--points 4] [--file big.db]

The file is made once (about 230 bytes and 4 per chunk a request) and kept when `--file` names it. Each step runs in a
fresh process, so that its peak memory is its own; processes that it starts count with it, memory that they share once.
`--against SRC` runs each step with the redline of another source tree too, in turns, since a busy box changes by the
minute.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import platform
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from redline.clock import now_ns
from redline.engines.endpoint import Endpoint
from redline.load.record import RequestRecord, TokenSource
from redline.spec.engine import EngineSpec
from redline.spec.experiment import Experiment
from redline.spec.load import LoadPoint, LoadSpec
from redline.spec.model import ModelSpec
from redline.store.encode import INSERT_REQUEST, request_row
from redline.store.store import Store

RATE, BATCH = 400.0, 20_000


def write(path: Path, requests: int, chunks: int, points: int) -> None:
    """One engine under `points` open loops, requests shared out evenly; every hundredth request fails."""
    rates = [RATE * (i + 1) for i in range(points)]
    spec = Experiment(
        models=[ModelSpec(id="bundled:target")],
        engines=[EngineSpec(kind="transformers")],
        load=LoadSpec(rate=rates, duration_s=requests / points / RATE),
    )
    with Store.open(path) as store:
        run = store.begin_run(spec, {}, ["redline", "bench"])
        trial = store.begin_trial(run, model="target", spec=spec.engines[0], repeat=0)
        store.trial_ready(trial, Endpoint("http://127.0.0.1:1/v1", "target", "transformers", "5.17.0"), {})
        begin = now_ns()
        for rate in rates:
            point = store.begin_point(trial, LoadPoint("poisson", rate))
            end = _requests(path, point, requests // points, chunks, rate, begin)
            store.end_point(
                point, measured_from_ns=begin, ended_ns=end, stopped_by="duration", outcome={"send_lag_ms_p99": 0.1},
                verdict="valid", reasons=[],
            )  # fmt: skip
        store.end_trial(trial, "done")
        store.end_run(run, "done", "valid", [])


def _requests(path: Path, point: int, requests: int, chunks: int, rate: float, begin: int) -> int:
    """Rows straight into the table, in the layout that the store writes; when the last one ended."""
    rng = np.random.default_rng(point)
    layout = np.dtype([("kind", "u1"), ("first", "<i8"), ("gaps", "<u4", (chunks - 1,))])
    db = sqlite3.connect(path)
    due, end = begin, begin
    for first in range(0, requests, BATCH):
        n = min(BATCH, requests - first)
        intended = due + np.cumsum(rng.exponential(1e9 / rate, n)).astype(np.int64)
        sent = intended + rng.integers(20_000, 90_000, n)
        blobs = np.zeros(n, layout)
        blobs["kind"] = 4
        blobs["first"] = sent + (rng.lognormal(0, 0.4, n) * 60e6).astype(np.int64)
        blobs["gaps"] = (rng.lognormal(0, 0.3, (n, chunks - 1)) * 12e6).astype(np.uint32)
        last = blobs["first"] + blobs["gaps"].sum(axis=1)
        raw, size = blobs.tobytes(), layout.itemsize
        rows = []
        for i in range(n):
            record = RequestRecord(
                first + i, int(intended[i]), int(sent[i]), 0, int(blobs["first"][i]), int(blobs["first"][i]),
                int(last[i]) + 90_000, prompt_tokens=256, asked_prompt_tokens=256, asked_output_tokens=chunks,
                output_tokens=chunks, token_source=TokenSource.USAGE, http_status=200, finish_reason="length",
            )  # fmt: skip
            rows.append(record)
        _insert(db, point, rows, raw, size, chunks, last)
        due, end = int(intended[-1]), max(end, int(last.max()) + 90_000)
    db.commit()
    db.close()
    return end


def _insert(
    db: sqlite3.Connection, point: int, records: list[RequestRecord], raw: bytes, size: int, chunks: int, last: object
) -> None:
    columns = INSERT_REQUEST.partition("(")[2].partition(")")[0].split(", ")
    place = {name: columns.index(name) for name in ("chunk_ns", "chunk_tokens", "first_chunk_ns", "last_chunk_ns")}
    counted = {name: columns.index(name) for name in ("chunks", "first_chunk_tokens", "status", "error")}
    tokens = b"\x00" + chunks.to_bytes(4, "little") + (1).to_bytes(8, "little")
    rows = []
    for i, record in enumerate(records):
        row = list(request_row(point, record, str))
        row[place["chunk_ns"]], row[place["chunk_tokens"]] = raw[i * size : (i + 1) * size], tokens
        row[place["first_chunk_ns"]], row[place["last_chunk_ns"]] = record.first_byte_ns, int(last[i])  # type: ignore[index]
        row[counted["chunks"]], row[counted["first_chunk_tokens"]] = chunks, 1
        if i % 100 == 99:
            row[counted["status"]], row[counted["error"]] = "reset", "reset by the server"
        rows.append(row)
    db.executemany(INSERT_REQUEST, rows)


STEPS = {
    "read": "for p in (p for t in reader.run().trials for p in t.points): reader.requests(p.id)",
    "report, Markdown": "render_markdown(load_report(reader))",
    "report, Markdown, HTML with charts": "shown(load_report(reader))",
}
PROGRAM = """
import sys, time, resource, json
from pathlib import Path
try:
    from redline import blas  # as the command line does; sources of before had none
    blas.one_thread()
except ImportError:
    pass
from redline.store.read import Reader
from redline.report.assemble import load_report
from redline.report.markdown import render_markdown
def shown(report):
    from redline.report.html import render_html
    return render_markdown(report), render_html(report)
began = time.perf_counter()
with Reader.open(Path(sys.argv[1])) as reader:
    {step}
took = time.perf_counter() - began
used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
print(json.dumps([took, sum(one.ru_utime + one.ru_stime for one in used)]))
"""


def measure(path: Path, step: str, source: Path | None) -> tuple[float, float, int]:
    """Seconds, CPU seconds, peak bytes of one step."""
    others = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    env = os.environ | ({"PYTHONPATH": os.pathsep.join([str(source.resolve()), *others])} if source else {})
    command = [sys.executable, "-c", PROGRAM.format(step=STEPS[step]), str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=env) as process:
        peak = 0
        while process.poll() is None:
            peak = max(peak, memory(process.pid))
            time.sleep(0.02)
        assert process.stdout
        seconds, cpu = json.loads(process.stdout.read())
    return seconds, cpu, peak


def memory(pid: int) -> int:
    """Bytes that a process and its children hold, what they share counted once."""
    private, shared = 0, 0
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:  # it has just ended
        return 0
    for one in (str(pid), *children):
        with contextlib.suppress(OSError):
            resident, of_these = map(int, Path(f"/proc/{one}/statm").read_text().split()[1:3])
            private, shared = private + resident - of_these, max(shared, of_these)
    return (private + shared) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--chunks", type=int, default=32)
    parser.add_argument("--points", type=int, default=1)
    parser.add_argument("--file", type=Path, help="made there when it is missing, and kept")
    parser.add_argument("--against", type=Path, metavar="SRC", help="the `src` folder of another checkout")
    parser.add_argument("--times", type=int, default=1, help="how often each step is done")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = options.file or Path(folder) / "big.db"
        if not path.exists():
            began = time.perf_counter()
            write(path, options.requests, options.chunks, options.points)
            print(f"{path.stat().st_size / 1e6:,.0f} MB made in {time.perf_counter() - began:.0f} s", file=sys.stderr)
        print(f"{os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}\n")
        print("| step | seconds | CPU seconds | peak memory |\n|---|---|---|---|")
        sources = [(None, ""), *([(options.against, f", {options.against}")] if options.against else [])]
        for step, _, (source, name) in itertools.product(STEPS, range(options.times), sources):
            seconds, cpu, peak = measure(path, step, source)
            print(f"| {step}{name} | {seconds:.1f} | {cpu:.1f} | {peak / 1e6:,.0f} MB |", flush=True)


if __name__ == "__main__":
    main()
