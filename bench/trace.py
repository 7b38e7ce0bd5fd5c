"""How long a large profiler trace takes to read, and what memory: a made-up trace of the true form, plain and gzip.

    python bench/trace.py [--gigabytes 1.16]

Each reading runs in a fresh process, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from redline.observe.trace.chrome import read_chrome

_SLICE = 10_000


def events() -> Iterator[bytes]:
    """Without end: an operator, its launch and its kernel, as torch's profiler writes them (torch 2.13)."""
    number = 0
    while True:
        at, step = number * 12.345, number % 4096
        yield (
            b'  {\n    "ph": "X", "cat": "cpu_op", "name": "aten::addmm", "pid": 4242, "tid": 4242,\n'
            b'    "ts": %.3f, "dur": 9.870,\n    "args": {\n      "External id": %d, "Ev Idx": %d, "Fwd thread id": 0,'
            b' "Input Dims": [[4096], [%d, 4096], [4096, 4096], [], []], "Record function id": 0\n    }\n  }'
        ) % (at, number, number, step)
        yield (
            b'  {\n    "ph": "X", "cat": "cuda_runtime", "name": "cudaLaunchKernel", "pid": 4242, "tid": 4242,\n'
            b'    "ts": %.3f, "dur": 3.210,\n    "args": {\n      "External id": %d, "cbid": 211, "correlation": %d\n'
            b"    }\n  }"
        ) % (at + 1, number, number)
        yield (
            b'  {\n    "ph": "X", "cat": "kernel", "name": "nvjet_sm90_tst_%dx64_64x8_2x1_v_bz_TNT", "pid": 0,'
            b' "tid": 7,\n    "ts": %.3f, "dur": 8.640,\n    "args": {\n      "External id": %d, "queued": 0,'
            b' "device": 0, "context": 1, "stream": 7, "correlation": %d, "registers per thread": 168,'
            b' "shared memory": 213248, "blocks per SM": 1.0, "warps per SM": 12.0, "grid": [%d, 1, 1],'
            b' "block": [384, 1, 1], "est. achieved occupancy %%": 19\n    }\n  }'
        ) % (64 + number % 8 * 16, at + 4, number, number, step)
        number += 1


def write(path: Path, size: int) -> int:
    """A trace of at least `size` bytes; how many events it has."""
    made, count = events(), 0
    with path.open("wb") as file:
        file.write(b'{\n  "schemaVersion": 1,\n  "traceEvents": [\n')
        while file.tell() < size:
            file.write(b",\n".join(next(made) for _ in range(_SLICE)) + b",\n")
            count += _SLICE
        file.write(next(made) + b'\n  ],\n  "traceName": "made-up"\n}\n')
    return count + 1


def one(path: Path) -> None:
    """Read it here and print what it took."""
    began, cpu = time.monotonic(), time.process_time()
    columns = read_chrome(path)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps([time.monotonic() - began, time.process_time() - cpu, used, len(columns)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.16)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(options.one)
        return
    with tempfile.TemporaryDirectory() as folder:
        plain, packed = Path(folder, "trace.json"), Path(folder, "trace.json.gz")
        count = write(plain, int(options.gigabytes * 1e9))
        with plain.open("rb") as source, gzip.open(packed, "wb", compresslevel=1) as target:
            while piece := source.read(1 << 22):
                target.write(piece)
        print(
            f"{count:,} events, {plain.stat().st_size / 1e9:.2f} GB, gzip {packed.stat().st_size / 1e6:.0f} MB; "
            f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}, Linux {platform.release()}, "
            f"Python {platform.python_version()}, msgspec {msgspec.__version__}\n\n"
            "| file | seconds | CPU seconds | peak memory | events kept |\n|---|---|---|---|---|"
        )
        for path in (plain, packed):
            done = subprocess.run([sys.executable, __file__, "--one", str(path)], capture_output=True, check=True)
            wall, cpu, memory, kept = json.loads(done.stdout)
            print(f"| {path.suffix[1:]} | {wall:.1f} | {cpu:.1f} | {memory:.0f} MiB | {kept:,} |")


if __name__ == "__main__":
    main()
