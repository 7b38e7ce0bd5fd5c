"""Which settings of this box move TTFT, ITL and the time to load a model, by how much: `redline node prove`, in parts.

    python bench/node_settings.py [--model shape:llama-3-8b] [--parts facts,live,start,http,load] [--budget 360]
    python bench/node_table.py DIR        the section for docs/results/node.md

As root, on a box that nobody else uses; every setting is put back. Parts run in the order given while the budget (in
seconds of wall time) lasts; those left over are named with the command that runs them. DIR.tar.gz holds everything,
without the results file where that would make it larger than 16 MB.

    facts   facts, audit and a snapshot of the box
    live    settings that a running engine feels: one start for all of them
    start   settings that act when the engine starts or allocates: a start for every round
    http    bursts of new connections to an engine with a small model, started for every round
    load    start of an engine whose weights are on disk: cold and warm page cache, few CPUs
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
MOST_BYTES = 16 << 20
LIVE = (
    *("control", "engine.cpus=1", "vm.compaction_proactiveness=0", "kernel.timer_migration=0", "vm.stat_interval=10"),
    *("kernel.sched_autogroup_enabled=0", "kernel.numa_balancing=1", "thp.khugepaged_defrag=0", "vm.swappiness=10"),
    *("net.core.busy_poll=50", "vm.zone_reclaim_mode=1", "engine.cpus=2", "net.ipv4.tcp_slow_start_after_idle=0"),
    *("net.core.netdev_budget=600", "net.ipv4.tcp_notsent_lowat=131072", "engine.cpus=4"),
)
"""What differs most from the others first: a budget ends the list early."""
ATTRIBUTES = ("/sys/class/net/lo/queues/rx-0/rps_cpus", "/sys/kernel/debug/sched/base_slice_ns")
"""Packets of clients on this box are received on the CPU that sent them; spread over half of them. Slices a quarter."""
START = ("thp.enabled=always", "thp.enabled=never", "thp.defrag=defer", "net.core.busy_read=50")
HTTP = ("control", "net.core.somaxconn=128", "net.core.somaxconn=65535", "net.ipv4.tcp_max_syn_backlog=65535")
LOAD = ("load.prewarm", "engine.cpus=2", "thp.enabled=always")


@dataclass
class Bench:
    asked: argparse.Namespace
    out: Path
    began: float

    @property
    def left_s(self) -> float:
        return float(self.asked.budget) - (time.monotonic() - self.began)

    def redline(self, *arguments: str, to: str = "", limit_s: float = 0.0) -> int:
        """One command; its stdout goes to the file `to`. Past `limit_s` it is told to stop, as Ctrl-C does."""
        command = [sys.executable, "-m", "redline", *arguments]
        print("$ redline", *arguments, flush=True)
        started = time.monotonic()
        path = self.out / (to or "log.txt")
        with path.open("wb" if to else "ab") as file, (self.out / "log.txt").open("ab") as log:
            child = subprocess.Popen(command, stdout=file, stderr=log, env=environment())
            try:
                child.wait(limit_s or None)
            except subprocess.TimeoutExpired:
                print("  out of time: what was measured is kept", flush=True)
                child.terminate()
                child.wait(60)
        print(f"  {child.returncode} after {time.monotonic() - started:.0f} s", flush=True)
        return int(child.returncode)

    def prove(self, part: str, settings: tuple[str, ...], model: str, *more: str) -> None:
        before = set(self.kept())
        words = [word for setting in settings for word in ("--setting", setting)]
        self.redline(
            "node", "prove", *words, "--engine", "redline", "--model", model, "--inert", "--json",
            "--settle", "0.2", "--state-dir", str(self.out / "journals"), "--db", str(self.out / "redline.db"),
            "--output", str(self.out / f"report-{part}"), *self.flags(), *more,
            to=f"prove-{part}.json", limit_s=max(self.left_s - 20, 20),
        )  # fmt: skip
        path, new = self.out / f"prove-{part}.json", set(self.kept()) - before
        if path.stat().st_size == 0 and new:  # it was ended before it could print what it has kept
            (artifact,) = new
            told = {"run": artifact.parent.name, "status": "cut short", **json.loads(artifact.read_text())}
            path.write_text(json.dumps(told))

    def kept(self) -> list[Path]:
        return list(self.out.glob("redline-artifacts/*/node-proof.json"))

    def flags(self) -> list[str]:
        asked = self.asked
        flags = [word for flag in asked.engine_flag for word in ("--engine-flag", flag)]
        return [*flags, "--concurrency", str(asked.clients), "--duration", str(asked.seconds), "--drain", "1",
                "--warmup", "fixed", "--warmup-requests", str(asked.clients), "--calibrate", "0",
                "--prompt-tokens", "128", "--output-tokens", str(asked.output_tokens)]  # fmt: skip


def facts(bench: Bench) -> None:
    bench.redline("node", "facts", "--json", to="facts.json")
    bench.redline("node", "audit", "--json", "--all", to="audit.json")
    bench.redline("node", "snapshot", "--output", str(bench.out / "box.tar.gz"))


def live(bench: Bench) -> None:
    count = len(os.sched_getaffinity(0))
    settings = [one for one in LIVE if not one.startswith("engine.cpus=") or int(one.split("=")[1]) < count]
    queue, slices = (Path(path) for path in ATTRIBUTES)
    if queue.exists():
        settings.append(f"{queue}={(1 << count) - (1 << count // 2):x}")
    if slices.exists():
        settings.append(f"{slices}={int(slices.read_text()) // 4}")
    bench.prove("live", tuple(settings), bench.asked.model, "--rounds", str(bench.asked.rounds))


def start(bench: Bench) -> None:
    bench.prove("start", START, bench.asked.model, "--rounds", "3")


def http(bench: Bench) -> None:
    more = ("--rounds", "3", "--measure", "http", "--burst", str(bench.asked.burst))
    bench.prove("http", HTTP, "bundled:tiny", *more)


def load(bench: Bench) -> None:
    model = bench.asked.load_model or written(bench)
    bench.prove("load", LOAD, model, "--rounds", "3", "--measure", "load")


def written(bench: Bench) -> str:
    """A folder with a checkpoint of random weights in the shape that was asked for."""
    folder = Path(bench.asked.scratch) / bench.asked.load_shape
    code = f"import node_checkpoint; node_checkpoint.write({bench.asked.load_shape!r}, {str(folder)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=HERE, env=environment(), check=True)
    return str(folder)


PARTS = {"facts": (facts, 10), "live": (live, 60), "start": (start, 60), "http": (http, 60), "load": (load, 60)}
"""What runs a part, and the fewest seconds that make a start of it worth while."""


def environment() -> dict[str, str]:
    paths = [str(HERE.parent / "src"), *filter(None, [os.environ.get("PYTHONPATH", "")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "COLUMNS": "160"}


def pack(out: Path) -> Path:
    """Beside the folder; the results file, which holds every request, only where it fits."""
    shutil.rmtree(out / "journals", ignore_errors=True)
    archive = out.with_name(f"{out.name}.tar.gz")
    for left_out in ((), ("redline.db",), ("redline.db", "artifacts")):

        def kept(member: tarfile.TarInfo, left_out: tuple[str, ...] = left_out) -> tarfile.TarInfo | None:
            name = member.name.partition("/")[2].split("/")[0]
            return None if any(name.startswith(one) for one in left_out) else member

        with tarfile.open(archive, "w:gz") as packed:
            packed.add(out, out.name, filter=kept)
        if archive.stat().st_size < MOST_BYTES:
            break
        print(f"{archive.stat().st_size >> 20} MB are too many", flush=True)
    return archive


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="shape:llama-3-8b")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--budget", type=float, default=360.0)
    parser.add_argument("--out", type=Path, default=Path("node-settings"))
    parser.add_argument("--rounds", type=int, default=5, help="of settings that a running engine feels")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=1.2, help="of each round")
    parser.add_argument("--output-tokens", type=int, default=64)
    parser.add_argument("--burst", type=int, default=512)
    parser.add_argument("--engine-flag", action="append", default=[], metavar="LABEL.FLAG=VALUE")
    parser.add_argument("--load-shape", default="llama-3.2-1b", help="of the checkpoint that is written and loaded")
    parser.add_argument("--load-model", default="", help="a folder with weights, instead")
    parser.add_argument("--scratch", type=Path, default=Path("/tmp"), help="where the checkpoint is written")
    asked = parser.parse_args()
    if unknown := set(asked.parts.split(",")) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}: {', '.join(PARTS)}")
    return asked


def main() -> int:
    asked = arguments()
    out = asked.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    bench = Bench(asked, out, time.monotonic())
    about: dict[str, Any] = {"arguments": {name: str(value) for name, value in vars(asked).items()}, "parts": {}}
    left = []
    for part in asked.parts.split(","):
        run, least_s = PARTS[part]
        if bench.left_s < least_s:
            left.append(part)
            continue
        started = time.monotonic()
        run(bench)
        about["parts"][part] = round(time.monotonic() - started)
    path = out / f"about-{'-'.join(about['parts']) or 'nothing'}.json"
    path.write_text(json.dumps(about, indent=1))
    print(f"packed: {pack(out)}", flush=True)
    if left:
        print(f"not run: python bench/node_settings.py --parts {','.join(left)} --out {asked.out}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
