"""What a run in progress, an endpoint or the bare box looks like now: the newest values and the last minute of each."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import orjson

from redline.clock import now_ns
from redline.engines.http import try_fetch
from redline.errors import EnvironmentFault, UsageError
from redline.observe.sample import Column, Tick
from redline.observe.samplers import NAMES, Plan
from redline.observe.sampling import sampling
from redline.store.read import Reader, default_path
from redline.store.rows import RunRow, TrialRow
from redline.tune.sampled import pids_behind

WINDOW_S = 60.0
FIRST_LOOK_S = 1.5
"""Until rates and shares are there: they need two looks."""


@dataclass(frozen=True)
class Gauge:
    """One series of the last minute. `age_s`: how old its newest value is. `recent`: (seconds ago, value)."""

    name: str
    unit: str
    labels: dict[str, str]
    value: float
    age_s: float
    recent: tuple[tuple[float, float], ...] = field(repr=False, default=())

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name, "unit": self.unit, "labels": self.labels, "value": self.value,
            "age_s": round(self.age_s, 3),
        }  # fmt: skip


@dataclass(frozen=True)
class Snapshot:
    """`title` says what is looked at, `status` is that of the run (running, done, …) or `live`."""

    title: str
    status: str
    run_id: str
    engine: str
    point: str
    gauges: tuple[Gauge, ...]
    telemetry: dict[str, Any]

    def find(self, name: str) -> list[Gauge]:
        """One for each set of labels."""
        return [gauge for gauge in self.gauges if gauge.name == name]

    def as_dict(self) -> dict[str, Any]:
        return {
            "title": self.title, "status": self.status, "run": self.run_id, "engine": self.engine,
            "point": self.point, "values": [gauge.as_dict() for gauge in self.gauges], "telemetry": self.telemetry,
        }  # fmt: skip


class Source(Protocol):
    """Use it as a context manager."""

    def __enter__(self) -> Source: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None: ...

    def look(self) -> Snapshot: ...


def source(which: str = "", *, url: str = "", box: bool = False, db: Path | None = None) -> Source:
    """Of the run `which` (the newest that goes on when none is named), of the server at `url`, or of the bare box.

    UsageError when no run goes on, EnvironmentFault when nothing answers at `url`.
    """
    if sum(map(bool, (which, url, box))) > 1:
        raise UsageError("a run, --url and --box exclude each other", fix="name one of them")
    return Live(url) if url or box else Stored(which, db or default_path())


def watch(
    which: str = "", *, url: str = "", box: bool = False, db: Path | None = None, every_s: float = 0.5
) -> Iterator[Snapshot]:
    """A look every so often, until the run has ended; an endpoint and a box are looked at until the caller stops."""
    with source(which, url=url, box=box, db=db) as opened:
        while True:
            seen = opened.look()
            yield seen
            if seen.status not in ("running", "live"):
                return
            time.sleep(every_s)


class Stored:
    """A run in the results file, which its own process goes on writing."""

    def __init__(self, which: str, path: Path) -> None:
        if not which and not path.is_file():
            raise _nothing(path)
        self._reader = Reader.open(path)
        try:
            self._run_id = self._resolve(which)
        except BaseException:
            self._reader.close()
            raise

    def _resolve(self, which: str) -> str:
        if which:
            return self._reader.run(which).id
        going = [row.id for row in self._reader.runs(50) if row.status == "running"]
        if not going:
            raise _nothing(self._reader.path)
        return going[0]

    def __enter__(self) -> Stored:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._reader.close()

    def look(self) -> Snapshot:
        run = self._reader.run(self._run_id)
        trial = run.trials[-1] if run.trials else None
        now = now_ns() if run.status == "running" else _end(run)
        found = self._reader.run_samples(run.id, (), now - int(WINDOW_S * 1e9), now) if trial else []
        gauges = tuple(
            _gauge((one.name, one.unit, one.labels), one.t_ns, one.value, now)
            for one in found
            if trial is not None and one.trial_id == trial.id and np.isfinite(one.value).any()
        )
        title = f"run {run.id}" + (f" · {run.name}" if run.name else "")
        return Snapshot(
            title, run.status, run.id, _engine(trial), _point(run, trial), gauges, trial.telemetry if trial else {}
        )


def _nothing(path: Path) -> UsageError:
    return UsageError(
        f"no run goes on in {path}",
        why="redline compare, bench and serve are runs that can be watched",
        fix="redline watch --url http://127.0.0.1:8000, redline watch --box, or redline watch RUN for its end",
    )


class Live:
    """Samplers of our own; nothing is stored. `url` '' is the box alone."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/").removesuffix("/v1")
        if self._url and "://" not in self._url:
            self._url = f"http://{self._url}"
        self._recent: dict[Column, deque[tuple[int, float]]] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Live:
        plan = Plan(pids=pids_behind(self._url), metrics_interval_s=1.0, samplers=("host", "gpu", "dcgm"))
        if self._url:
            plan = replace(plan, metrics_url=_metrics_url(self._url), samplers=NAMES)
        self._watch = self._stack.enter_context(sampling(plan, self._take))
        time.sleep(FIRST_LOOK_S)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stack.close()

    def _take(self, ticks: list[Tick]) -> None:
        for tick in ticks:
            values = orjson.loads(tick.values)
            for column, value in zip(tick.layout.columns, values, strict=True):
                if value is None:
                    continue
                kept = self._recent.get(column)
                if kept is None:
                    kept = self._recent[column] = deque()
                kept.append((tick.t_ns, value))
                while kept[0][0] < tick.t_ns - WINDOW_S * 1e9:
                    kept.popleft()

    def look(self) -> Snapshot:
        now, gauges = now_ns(), []
        for (name, unit, labels), kept in sorted(self._recent.items()):
            pairs = np.array(kept, dtype=np.float64)
            gauges.append(_gauge((name, unit, orjson.loads(labels)), pairs[:, 0], pairs[:, 1], now))
        title = self._url or "this box"
        return Snapshot(title, "live", "", self._url, "", tuple(gauges), self._watch.told())


def _metrics_url(url: str) -> str | None:
    """None when the server has none. EnvironmentFault when nothing answers."""
    reply = try_fetch(f"{url}/metrics", headers={"Accept": "text/plain"}, timeout_s=3.0)
    if reply is None:
        raise EnvironmentFault(
            f"nothing answers at {url}", why="the port is closed, or the server takes longer than 3 s",
            fix="redline serve starts an engine; redline watch --box shows the box alone",
        )  # fmt: skip
    return f"{url}/metrics" if reply.ok else None


def _gauge(column: tuple[str, str, dict[str, str]], t_ns: Any, value: Any, now: int) -> Gauge:
    known = np.isfinite(value)
    times, values = t_ns[known], value[known]
    ago = (now - times) / 1e9
    recent = tuple(zip(ago.tolist(), values.tolist(), strict=True))
    return Gauge(*column, value=float(values[-1]), age_s=float(ago[-1]), recent=recent)


def _end(run: RunRow) -> int:
    """Of a run that has ended, also of one whose process died."""
    ends = [run.ended_ns, *(trial.ended_ns for trial in run.trials)]
    ends += [point.ended_ns for trial in run.trials for point in trial.points]
    return max((end for end in ends if end is not None), default=now_ns())


def _engine(trial: TrialRow | None) -> str:
    if trial is None:
        return ""
    state = "" if trial.status in ("ready", "done") else f" ({trial.status})"
    return f"{trial.model} on {trial.engine} {trial.engine_version}".rstrip() + state


def _point(run: RunRow, trial: TrialRow | None) -> str:
    """The load point under way, or the last one."""
    if trial is None or not trial.points:
        return "served, no load of ours" if run.served else ""
    last = trial.points[-1]
    return last.label + (f" · {last.verdict}" if last.complete else "")
