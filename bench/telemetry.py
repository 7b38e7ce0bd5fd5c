"""What sampling does to the inter-token latency (ITL) of a served model, and what it costs.

    python bench/telemetry.py [--model bundled:tiny] [--engine redline] [--clients 4] [--rounds 12] [--seconds 6]
                              [--output-tokens 64] [--arms off,again,apart,thread] [--flag NAME=VALUE] [--out FOLDER]

One engine stays up. A round is one segment of load for every arm, in an order of its own:

    off      nothing is sampled
    again    nothing is sampled either: what two equal arms differ by (A/A)
    apart    every sampler, in a process of its own, into a results file: what redline does
    thread   the same in threads of redline's own process

Of each segment the median and the 99th percentile of the gaps between chunks. A ratio is to `off` of the same round,
its interval the bootstrap's over rounds, at 95 %. The cost is CPU time of the sampler process, its start included, and
of the threads here that take its ticks and write them, in percent of one core.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from redline.engines.engine import Server
from redline.errors import RedlineError
from redline.load.prompts import PromptSource, prompt_source
from redline.load.record import RequestRecord
from redline.load.run import run_point
from redline.observe.sampling import Watch, sampling
from redline.spec.experiment import Experiment
from redline.spec.load import LoadPoint
from redline.spec.overrides import experiment_from
from redline.spec.resolve import resolve_model
from redline.store.store import Store
from redline.tune.sampled import plan_for
from redline.tune.serve import serve

ARMS = ("off", "again", "apart", "thread")
STATS = {"p50": 50.0, "p99": 99.0}
Values = dict[str, dict[str, list[float]]]
"""Arm -> statistic -> one value per round."""


def main() -> int:
    asked = arguments()
    try:
        print(measured(asked, asked.arms.split(",")))
    except RedlineError as error:
        sys.exit(f"{error}\n{getattr(error, 'log_tail', '')}")
    return 0


def measured(asked: argparse.Namespace, arms: list[str]) -> str:
    """The table, after the last round."""
    experiment, text = experiment_of(asked), ""
    values: Values = defaultdict(lambda: defaultdict(list))
    with (
        tempfile.TemporaryDirectory() as folder,
        Store.open(Path(folder) / "telemetry.db") as store,
        serve(experiment.models[0], experiment.engines[0], artifacts=Path(folder)) as server,
    ):
        bench = Bench(experiment, store, server)
        bench.segment("off", 0)  # the first load of a server is like no other
        shuffle = random.Random(1)
        for number in range(asked.rounds):
            for arm in shuffle.sample(arms, len(arms)):
                for stat, value in bench.segment(arm, number + 1).items():
                    values[arm][stat].append(value)
            print(f"{number + 1} of {asked.rounds} rounds, load average {os.getloadavg()[0]:.1f}", file=sys.stderr)
            text = write(results(values, arms), experiment, asked.out)
    return text


def write(told: dict[str, Any], experiment: Experiment, folder: Path | None) -> str:
    """The table; into `folder` after every round, so that a run that is cut off leaves what it had."""
    text = "\n".join(table(told, experiment))
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "telemetry.md").write_text(text + "\n")
        (folder / "telemetry.json").write_text(json.dumps(told, indent=1))
    return text


class Bench:
    """One engine under load, sampled or not."""

    def __init__(self, experiment: Experiment, store: Store, server: Server) -> None:
        self.experiment, self.store, self.server = experiment, store, server
        run = store.begin_run(experiment, {}, ["bench/telemetry.py"])
        self.trial = store.begin_trial(run, model="m", spec=experiment.engines[0], repeat=0)
        tokenizer = resolve_model(experiment.models[0]).tokenizer_path
        self.prompts: PromptSource = prompt_source(
            server.endpoint, experiment.workload, seed=1, tokenizer_path=tokenizer, needed=64
        )

    def segment(self, arm: str, number: int) -> dict[str, float]:
        records: list[RequestRecord] = []
        clients = experiment_clients(self.experiment)
        with self._sampled(arm) as cost:
            run_point(
                self.server.endpoint, self.experiment.workload, self.experiment.load, LoadPoint("closed", clients),
                seed=1_000 * number + len(arm), prompts=self.prompts, on_record=records.append,
            )  # fmt: skip
        gaps = [np.diff(one.chunk_ns) / 1e6 for one in records if not one.warmup and len(one.chunk_ns) > 1]
        if not gaps:
            sys.exit(f"no request was answered\n{self.server.log_tail()}")
        every = np.concatenate(gaps)
        return {stat: float(np.percentile(every, level)) for stat, level in STATS.items()} | cost

    @contextmanager
    def _sampled(self, arm: str) -> Iterator[dict[str, float]]:
        cost: dict[str, float] = {}
        if arm in ("off", "again"):
            with nullcontext():
                yield cost
            return
        plan = plan_for(self.server.endpoint, self.experiment.engines[0])
        began_s = time.monotonic()
        with sampling(plan, lambda ticks: self.store.add_ticks(self.trial, ticks), apart=arm == "apart") as watch:
            store_ns = ran_ns(self.store._thread.native_id)
            yield cost
            taken_ns = taking_ns(watch) + ran_ns(self.store._thread.native_id) - store_ns
        seconds = time.monotonic() - began_s
        told = watch.told()
        mine_s = sum(one["cpu_s"] for one in told["samplers"].values())
        process_s = (told.get("process") or {"cpu_s": mine_s})["cpu_s"]
        cost |= {
            "samplers_cpu": 100 * mine_s / seconds,
            "all_cpu": 100 * (process_s + taken_ns / 1e9) / seconds,
            "late_share": sum(one["late_ticks"] for one in told["samplers"].values())
            / max(1, sum(one["ticks"] for one in told["samplers"].values())),
        }
        cost |= {f"{name}_per_s": one["ticks"] / max(one["elapsed_s"], 1e-9) for name, one in told["samplers"].items()}


def taking_ns(watch: Watch) -> int:
    thread = getattr(watch._source, "_thread", None)
    return ran_ns(thread.native_id) if thread is not None else 0


def ran_ns(thread: int | None) -> int:
    """CPU time of a thread of ours so far."""
    return int(Path(f"/proc/self/task/{thread}/schedstat").read_text().split()[0])


def experiment_clients(experiment: Experiment) -> float:
    return float(experiment.load.concurrency[0])


def experiment_of(asked: argparse.Namespace) -> Experiment:
    return experiment_from(
        None,
        {
            "model": [asked.model], "engines": [asked.engine], "python": asked.python,
            "engine_flag": [f"{asked.engine}.{flag}" for flag in asked.flag],
            "engine_env": [f"{asked.engine}.{one}" for one in asked.env],
            "prompt_tokens": asked.prompt_tokens, "output_tokens": asked.output_tokens,
            "concurrency": str(asked.clients), "duration": asked.seconds, "drain": 1.0,
            "warmup_requests": asked.clients, "calibrate": 0.0,
        },
    )  # fmt: skip


def results(values: Values, arms: list[str]) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for arm in arms:
        found = values[arm]
        ratios = {stat: ratio(found[stat], values["off"][stat]) for stat in STATS} if arm != "off" else {}
        extra = {name: float(np.median(kept)) for name, kept in found.items() if name not in STATS}
        told[arm] = {
            "itl_ms": {stat: float(np.median(found[stat])) for stat in STATS}, "ratio": ratios, **extra,
            "rounds": len(found["p50"]),
        }  # fmt: skip
    return told


def ratio(own: list[float], off: list[float]) -> list[float] | None:
    """[ratio, low, high]: mean over rounds of the logarithm, bootstrapped. None where a gap is 0: tokens that come
    together have no ratio."""
    if min(*own, *off) <= 0:
        return None
    logs = np.log(np.array(own) / np.array(off))
    means = np.random.default_rng(1).choice(logs, (10_000, len(logs))).mean(axis=1)
    return [float(np.exp(value)) for value in (logs.mean(), *np.percentile(means, [2.5, 97.5]))]


def table(told: dict[str, Any], experiment: Experiment) -> Iterator[str]:
    load = experiment.load
    yield (
        f"{experiment.models[0].served_name} on {experiment.engines[0].label}, {load.concurrency[0]} clients, "
        f"{load.duration_s:g} s a segment, {told['off']['rounds']} rounds\n"
    )
    yield "| arm | ITL p50 ms | ÷ off | ITL p99 ms | ÷ off | samplers, % of a core | in all | looks a second |"
    yield "|---|---|---|---|---|---|---|---|"
    for arm, one in told.items():
        cells = []
        for stat in STATS:
            shown = one["ratio"].get(stat)
            against = "{:.3f} [{:.3f}–{:.3f}]".format(*shown) if shown else "1" if arm == "off" else "–"
            cells += [f"{one['itl_ms'][stat]:.3f}", against]
        paces = ", ".join(
            f"{name.removesuffix('_per_s')} {value:.1f}" for name, value in one.items() if "_per_s" in name
        )
        costs = [f"{one[name]:.2f}" if name in one else "–" for name in ("samplers_cpu", "all_cpu")]
        yield "| " + " | ".join([arm, *cells, *costs, paces or "–"]) + " |"
    yield verdict(told)


def verdict(told: dict[str, Any]) -> str:
    """Whether the samplers move ITL by more than two equal arms differ by."""
    again, apart = (told.get(arm, {}).get("ratio", {}).get("p50") for arm in ("again", "apart"))
    if again is None or apart is None:
        return ""
    sees = max(abs(edge - 1) for edge in again[1:])
    value, below, above = apart
    moved = below > 1 and value - 1 > sees
    return (
        f"\nTwo equal arms differ by up to {sees:.1%}; sampling apart moves the median ITL by {value - 1:+.1%} "
        f"[{below - 1:+.1%} to {above - 1:+.1%}]: " + ("more than that" if moved else "not told apart from nothing")
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bundled:tiny")
    parser.add_argument("--engine", default="redline")
    parser.add_argument("--python", default=None, help="interpreter or virtual environment that has the engine")
    parser.add_argument("--flag", action="append", default=[], metavar="NAME=VALUE", help="of the engine; repeatable")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="of the engine; repeatable")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--prompt-tokens", default="32")
    parser.add_argument("--output-tokens", default="64")
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--out", type=Path, default=None, metavar="FOLDER", help="telemetry.md and .json, every round")
    asked = parser.parse_args()
    if unknown := set(asked.arms.split(",")) - set(ARMS):
        parser.error(f"--arms: there is no {sorted(unknown)[0]!r}; there are {', '.join(ARMS)}")
    if "off" not in asked.arms.split(","):
        parser.error("--arms: `off` is what the others are compared with")
    if asked.rounds < 1:
        parser.error("--rounds: at least one")
    return asked


if __name__ == "__main__":
    sys.exit(main())
