"""redline's engine, vLLM and transformers as servers of the bundled model on this CPU, side by side.

    python bench/engine_served.py [--vllm .venv-vllm/bin/python] [--repeats 3] [--rounds 2] [--clients 1,8]
                                  [--engines vllm,redline,transformers-continuous,transformers-plain] [--out FILE.json]

A repeat starts every engine, keeps all of them up and lets them take turns at each load (`redline compare`, keep_up and
rounds), so a box that is busier for a while is busier for all. Prompts are 32 tokens and all different, answers 64,
end-of-sequence ignored. A ratio is of one round of one repeat; the table has the median over all rounds and, in
brackets, the smallest and the largest. CPU per token is what the engine's processes used while the load ran, front end
included: it depends less than a rate does on what else the box does. Engines that are not there are named and left out.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from redline.store.read import Reader
from redline.store.rows import PointRow, TrialRow

REFERENCE = "vllm"
NUMBERS = ("output_tokens_per_s", "ttft_ms.p50", "itl_ms.p50")
Cells = dict[tuple[str, str], dict[str, list[float]]]
"""(load, engine) -> number -> one value per round and repeat."""


def main() -> int:
    asked = arguments()
    engines = [name for name in asked.engines.split(",") if name != REFERENCE or asked.vllm.exists()]
    if REFERENCE in asked.engines and REFERENCE not in engines:
        print(f"no vLLM at {asked.vllm}: `make vllm` installs it; measuring without", flush=True)
    cells: Cells = defaultdict(lambda: defaultdict(list))
    starts: dict[str, list[float]] = defaultdict(list)
    versions: dict[str, str] = {}
    for repeat in range(asked.repeats):
        with tempfile.TemporaryDirectory() as folder:
            one_repeat(asked, engines, Path(folder), cells, starts, versions)
        print(f"\n{repeat + 1} of {asked.repeats} repeats, load average {os.getloadavg()[0]:.1f}", flush=True)
        show(cells, starts, versions)
        if asked.out:
            told = {" ".join(key): numbers for key, numbers in cells.items()}
            asked.out.write_text(json.dumps({"points": told, "start_s": starts, "versions": versions}, indent=1))
    return 0


def one_repeat(
    asked: argparse.Namespace,
    engines: Sequence[str],
    folder: Path,
    cells: Cells,
    starts: dict[str, list[float]],
    versions: dict[str, str],
) -> None:
    file = folder / "experiment.yaml"
    file.write_text(yaml.safe_dump(experiment(asked, engines)))
    command = [sys.executable, "-m", "redline", "compare", "-f", str(file), "--json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if not done.stdout.startswith("{"):
        sys.exit(f"redline compare ended with {done.returncode}:\n{done.stderr[-3000:]}")
    report = json.loads(done.stdout)["models"][0]
    for engine in report["engines"]:
        versions[engine["label"]] = engine["version"]
        starts[engine["label"]] += engine["numbers"]["startup_s"]["repeats"]
    for point in report["points"]:
        for label, found in point["engines"].items():
            for name in NUMBERS:
                cells[point["load"]["label"], label][name] += found["numbers"][name]["repeats"]
    with Reader.open(folder / "redline-results" / "redline.db") as reader:
        for trial in reader.run("last").trials:
            for one in trial.points:
                cells[one.label, trial.engine]["cpu_ms"].append(cpu_per_token(reader, trial, one))


def cpu_per_token(reader: Reader, trial: TrialRow, point: PointRow) -> float:
    """Milliseconds of all the engine's processes per token that was answered, from the first request to the last."""
    requests = reader.requests(point.id)
    first, last = int(requests.sent_ns.min()), int(requests.finished_ns.max())
    (series,) = reader.samples(trial.id, "engine.cpu_s")
    used = float(np.diff(np.interp([first, last], series.t_ns, series.value))[0])
    return 1e3 * used / max(1, int(requests.output_tokens[requests.output_tokens > 0].sum()))


def experiment(asked: argparse.Namespace, engines: Sequence[str]) -> dict[str, Any]:
    listed: list[dict[str, Any]] = [{"kind": name, "keep_up": True} for name in engines]
    for one in listed:
        if one["kind"] == REFERENCE:
            one["python"] = str(asked.vllm.absolute())
    return {
        "name": "engines served",
        "model": {"id": "bundled:tiny", "dtype": "bfloat16"} if asked.bfloat16 else "bundled:tiny",
        "engines": listed,
        "workload": {"prompt_tokens": asked.prompt, "output_tokens": asked.tokens},
        "load": {
            "concurrency": [int(clients) for clients in asked.clients.split(",")],
            "duration_s": asked.duration,
            "drain_s": asked.duration,
            "warmup_requests": 4,
        },
        "rounds": asked.rounds,
    }


def show(cells: Cells, starts: dict[str, list[float]], versions: dict[str, str]) -> None:
    print("| load | engine | output tok/s | ÷ vLLM | TTFT p50 ms | ITL p50 ms | CPU ms/token | ÷ vLLM |")
    print("|---|---|---|---|---|---|---|---|")
    for (load, engine), numbers in cells.items():
        base = cells.get((load, REFERENCE))
        rate, ttft, itl = (spread(numbers[name]) for name in NUMBERS)
        ratios = [ratio(numbers, base, name) for name in (NUMBERS[0], "cpu_ms")]
        print(
            f"| {load} | {engine} | {rate} | {ratios[0]} | {ttft} | {itl} | {spread(numbers['cpu_ms'])} | {ratios[1]} |"
        )
    print("\n| engine | version | start-up s |\n|---|---|---|")
    for engine, seconds in starts.items():
        print(f"| {engine} | {versions[engine]} | {spread(seconds)} |")
    sys.stdout.flush()


def ratio(numbers: dict[str, list[float]], base: dict[str, list[float]] | None, name: str) -> str:
    if not base or base is numbers:
        return "1" if base else "-"
    pairs = zip(numbers[name], base[name], strict=False)
    return spread([own / other for own, other in pairs])


def spread(values: Sequence[float]) -> str:
    """The median and, in brackets, the smallest and the largest."""
    if not values:
        return "-"
    middle, low, high = (f"{number:.3g}" for number in (statistics.median(values), min(values), max(values)))
    return f"{middle} [{low}, {high}]"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", default="vllm,redline,transformers-continuous,transformers-plain")
    parser.add_argument("--vllm", type=Path, default=Path(".venv-vllm/bin/python"), help="Python that has vLLM")
    parser.add_argument("--clients", default="1,8")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--duration", type=float, default=8.0, help="seconds at each load")
    parser.add_argument("--prompt", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--bfloat16", action="store_true", help="ask every engine for it; else each takes its default")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
