"""What nsys left behind finds its phase; a stand-in exports, since the real one needs a GPU to record anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from redline.engines.engine import Engine
from redline.errors import EnvironmentFault
from redline.spec.engine import EngineSpec
from redline.spec.model import ModelSpec
from redline.tune.preflight import adapter
from redline.tune.profile.engine import Driven, Job, _from_outside, _servers
from redline.tune.profile.nsys import exported, require_nsys
from redline.tune.profile.phases import Point, Recorded

STAND_IN = """#!/bin/sh
for last; do :; done
case "$last" in *.3.nsys-rep) echo damaged >&2; exit 1;; esac
cp "$last" "${last%.nsys-rep}.sqlite"
"""


@pytest.fixture
def nsys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "nsys"
    program.parent.mkdir()
    program.write_text(STAND_IN)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")


def job(folder: Path, *wanted: tuple[str, int, int]) -> Job:
    engine: Engine = adapter("transformers")
    spec = EngineSpec(kind="transformers")
    return Job(ModelSpec(id="m"), spec, engine, wanted, steps=4, repeats=1, folder=folder, nsys=True)


def driven(part: Job) -> list[Driven]:
    none = Recorded(0.1, 0.1, 1.0, 1.0, 1.0, None)
    return [Driven(phase, Point(size, length, 1), none, server=part.server) for phase, size, length in part.wanted]


def test_each_server_has_reports_of_its_own_and_one_that_is_damaged_costs_itself(nsys: None, tmp_path: Path) -> None:
    whole = job(tmp_path, ("decode", 1, 64), ("decode", 8, 64), ("decode", 1, 128))
    parts = _servers(whole)
    assert [part.wanted for part in parts] == [(("decode", 1, 64), ("decode", 1, 128)), (("decode", 8, 64),)]
    for part in parts:
        part.reports.mkdir()
        for place in range(1, len(part.wanted) + 2):  # the first one is of warming up
            (part.reports / f"nsys.{place}.nsys-rep").write_text(f"server {part.server}, range {place}")
    found = _from_outside(whole, [one for part in parts for one in driven(part)])
    texts = [one.found.trace.read_text() if one.found.trace else None for one in found]
    assert texts == ["server 0, range 2", None, "server 1, range 2"]


def test_reports_are_in_the_order_of_their_ranges(nsys: None, tmp_path: Path) -> None:
    for place in (1, 2, 10):
        (tmp_path / f"nsys.{place}.nsys-rep").touch()
    assert [path and path.name for path in exported(tmp_path)] == ["nsys.1.sqlite", "nsys.2.sqlite", "nsys.10.sqlite"]


def test_without_nsys_nothing_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentFault, match="nsys"):
        require_nsys()
