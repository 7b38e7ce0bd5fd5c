"""What the rounds of one proof share, and how its stored rounds are read back."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from redline.analyse.proof import Sides
from redline.analyse.rounds import Round, measure_round
from redline.engines.engine import Server
from redline.engines.launch import root_of
from redline.node.sys import Sys
from redline.observe.signals import SignalWatch, listener_pids
from redline.store.read import Reader
from redline.store.rows import PointRow
from redline.tune.preflight import Job
from redline.tune.prove.candidate import Candidate
from redline.tune.prove.switch import Switch
from redline.tune.prove.ways import CpusSwitch

KEY = "prove"
"""What a point's outcome calls the signals of its round."""
_BARRED = ("invalid", "client-bound")


@dataclass
class Arms:
    """Which value each label stands for; makes the box so around each of its load points. `live`: while the engine
    runs; else it was made so before the engine started. `pids` (): the engine's own."""

    sys: Sys
    live: bool = True
    pids: tuple[int, ...] = ()
    files: tuple[Path, ...] = ()
    settle_s: float = 0.0
    values: dict[str, tuple[Switch, bool]] = field(default_factory=dict)

    def stand_for(self, candidate: Candidate, switch: Switch) -> None:
        """Both labels of `candidate`."""
        self.values |= {label: (switch, wanted) for label, wanted in zip(candidate.labels, (False, True), strict=True)}

    @contextmanager
    def around(self, job: Job, server: Server) -> Iterator[dict[str, Any]]:
        with self.hold(job.spec.label, self.pids or engine_pids(server)) as found:
            yield found

    @contextmanager
    def hold(self, label: str, pids: tuple[int, ...] = ()) -> Iterator[dict[str, Any]]:
        """The box as `label` wants it. NodeFault when it is not so any more at the end: the round does not count."""
        switch, wanted = self.values[label]
        if self.live:
            if isinstance(switch, CpusSwitch):
                switch.pids = pids
            switch.to(wanted)
            time.sleep(self.settle_s)
        else:
            switch.check()
        found: dict[str, Any] = {}
        with SignalWatch(self.sys, pids, self.files) as watch:
            yield found
        switch.check()
        found[KEY] = {"wanted": wanted, "signals": watch.found}


def engine_pids(server: Server) -> tuple[int, ...]:
    """Its own, or those that listen where it answers."""
    return server.endpoint.pids or pids_at(root_of(server.endpoint.base_url))


def pids_at(url: str) -> tuple[int, ...]:
    """Processes of this box that listen there; () for another box."""
    parts = urlsplit(url)
    if parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        return ()
    return listener_pids(parts.port or (443 if parts.scheme == "https" else 80))


def sides_of(
    reader: Reader, run_id: str, labels: tuple[str, str], slo: Mapping[str, float], *, bar: bool = True
) -> Sides:
    """Rounds of both labels that the store holds whole, in pairs. `bar`: leave out rounds whose verdict forbids a
    comparison."""
    present, wanted = (_points(reader, run_id, label) for label in labels)
    rounds: dict[str, tuple[list[Round], list[Round]]] = {}
    signals: tuple[list[dict[str, float]], list[dict[str, float]]] = ([], [])
    notes: dict[str, None] = {}
    for key in [key for key in present if key in wanted]:
        pair = (present[key], wanted[key])
        barred = [f"{point.verdict}: {'; '.join(point.reasons)}" for point in pair if point.verdict in _BARRED]
        if bar and barred:
            notes[f"{pair[0].label}, round {key[1] + 1} left out, {barred[0]}"] = None
            continue
        both = rounds.setdefault(pair[0].label, ([], []))
        for side, read, point in zip(both, signals, pair, strict=True):
            side.append(_round(reader, point, slo))
            read.append(dict(point.outcome.get(KEY, {}).get("signals", {})))
    return Sides(rounds, signals, tuple(notes))


def _points(reader: Reader, run_id: str, label: str) -> dict[tuple[str, int], PointRow]:
    """By load and number of the round: that of the start, or the place among the points of one start."""
    found: dict[tuple[str, int], PointRow] = {}
    for trial in reader.run(run_id).trials:
        seen: dict[str, int] = {}
        for point in trial.points if trial.engine == label else ():
            number = trial.repeat + seen.get(point.label, 0)
            seen[point.label] = seen.get(point.label, 0) + 1
            if point.complete and point.stopped_by not in ("interrupted", "engine-died"):
                found[point.label, number] = point
    return found


def _round(reader: Reader, point: PointRow, slo: Mapping[str, float]) -> Round:
    requests = reader.requests(point.id)
    return measure_round(
        requests,
        measured_from_ns=point.measured_from_ns,
        ended_ns=point.ended_ns,
        slo=slo,
        asked=(point.kind, point.value),
    )
