"""Plants causes beside real runs and says what `redline explain` made of them.

    python bench/explain.py [--only stopped,hogged,…] [--duration 30] [--out FOLDER]

Each case is one run of redline's engine on the bundled model with something planted at random times, and one without.
"planted" is the share of lost time in the planted windows beyond the rate outside of them: what a perfect explanation
would name. As root; what this box cannot do is skipped with words. --out gets `explain.db`, and after each
case `explain.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import explain_network

import redline
from redline.analyse.explain.explanation import Explanation
from redline.analyse.explain.score import attributable
from redline.engines.endpoint import Endpoint
from redline.errors import RedlineError, Skipped
from redline.report.explain.read import PointExplained
from redline.spec.overrides import experiment_from
from redline.testing.plants import Hogged, Plant, Squeezed, Stopped, Stormed, alone, calmed
from redline.tune.events import Events

Planting = Callable[[Endpoint], Plant | None]
FAMILIES = {
    "stopped": "stopped",
    "hogged": "cpu",
    "squeezed": "memory",
    "stormed": "disk",
    "lossy": "network",
    "quiet": "",
}


class WithPlant(Events):
    """Plants once the engine is ready."""

    def __init__(self, planting: Planting, stack: ExitStack) -> None:
        super().__init__()
        self._planting, self._stack = planting, stack
        self.plant: Plant | None = None

    def ready(self, endpoint: Endpoint) -> None:
        calmed(endpoint.pids)
        self.plant = self._planting(endpoint)
        if self.plant is not None:
            self._stack.enter_context(self.plant)


def run_case(planting: Planting, flags: dict[str, Any], db: Path) -> tuple[PointExplained, Plant | None]:
    experiment = experiment_from(
        None, {"calibrate": 0.0, "warmup": "fixed", "explain": True, "stamps": "auto", **flags}
    )
    with ExitStack() as stack:
        events = WithPlant(planting, stack)
        outcome = redline.compare(experiment, db=db, events=events)
    return redline.explain(outcome.run_id, db=db).points[0], events.plant


def truth(found: Explanation, windows: list[tuple[int, int]]) -> float:
    """What the planted windows explain."""
    if not windows:
        return 0.0
    began, ended = (np.array(part, np.int64) for part in zip(*windows, strict=True))
    active = np.minimum(found.grid.paint(began, ended), 1.0)
    return attributable(found.lost, active) / max(float(found.lost.sum()), 1e-12)


def engine_flags(duration: float, **more: Any) -> dict[str, Any]:
    return {
        "model": ["bundled:tiny"], "engines": ["redline"], "concurrency": "4", "duration": duration,
        "prompt_tokens": 48, "output_tokens": 96, **more,
    }  # fmt: skip


@contextmanager
def planted(name: str, duration: float) -> Iterator[tuple[Planting, dict[str, Any]] | Skipped]:
    """How to plant it, and the flags of the run."""
    flags = engine_flags(duration)
    core = min(os.sched_getaffinity(0))
    if name == "stopped":
        yield (lambda at: Stopped(at.pids, lasts_s=0.5)), flags
    elif name == "hogged":
        yield (lambda at: Hogged(at.pids, core)), flags
    elif name == "squeezed":
        skipped = Squeezed.available()
        env = [
            f"redline.{one}"
            for one in ("MALLOC_MMAP_THRESHOLD_=65536", "MALLOC_TRIM_THRESHOLD_=0", "MALLOC_ARENA_MAX=1")
        ]
        yield skipped or ((lambda at: Squeezed(at.pids)), {**flags, "engine_env": env})
    elif name == "stormed":
        with tempfile.TemporaryDirectory(dir=os.environ.get("REDLINE_DISK", ".")) as folder:
            audited = Path(__file__).with_name("audited")
            env = [
                f"redline.REDLINE_AUDIT_LOG={folder}/audit.log",
                f"redline.PYTHONPATH={audited}:{os.environ.get('PYTHONPATH', '')}",
            ]
            yield (lambda at: Stormed(Path(folder))), {**flags, "engine_env": env}
    elif name == "lossy":
        with explain_network.lossy_engine() as found:
            yield found if isinstance(found, Skipped) else (found.planting, {**flags, **found.flags})
    else:
        yield (lambda at: alone(at.pids)), {**flags, "concurrency": "1"}


def told(name: str, point: PointExplained, plant: Plant | None) -> dict[str, Any]:
    found = point.explanation
    blamed = found.blamed
    family = FAMILIES[name]
    top = blamed[0] if blamed else None
    mine = sum(one.explains for one in blamed if one.cause.family == family)
    return {
        "case": name, "requests": len(found.slow), "lost_share": found.lost_share,
        "windows": len(plant.windows) if plant else 0,
        "planted": truth(found, plant.windows) if plant else 0.0, "found": mine, "unexplained": found.unexplained,
        "top": top.cause.key if top else "nobody", "top_family": top.cause.family if top else "",
        "right": (top.cause.family if top else "") == family,
        "blamed": {one.cause.key: round(one.explains, 4) for one in blamed},
        "who": dict(top.who[:3]) if top else {}, "run": point.run.id,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(FAMILIES))
    parser.add_argument("--duration", type=float, default=30.0)
    parser.add_argument("--out", type=Path, default=Path("redline-results/explain"), metavar="FOLDER")
    args = parser.parse_args()
    if unknown := set(args.only.split(",")) - set(FAMILIES):
        parser.error(f"--only: there is no {sorted(unknown)[0]!r}; there are {', '.join(FAMILIES)}")
    args.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in args.only.split(","):
        began = time.monotonic()
        try:
            with planted(name, args.duration) as how:
                if isinstance(how, Skipped):
                    print(f"{name}: {how}")
                    continue
                row = told(name, *run_case(*how, args.out / "explain.db"))
        except (RedlineError, RuntimeError, subprocess.CalledProcessError) as error:  # the other cases are worth theirs
            print(f"{name}: failed: {error}", flush=True)
            continue
        rows.append(row)
        print(
            f"{name}: lost {row['lost_share']:.1%}, planted {row['planted']:.0%}, found {row['found']:.0%}, "
            f"top {row['top']}, unexplained {row['unexplained']:.0%}, blamed {row['blamed']}, who {row['who']}, "
            f"{time.monotonic() - began:.0f} s",
            flush=True,
        )
        (args.out / "explain.json").write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
