"""Workers go where the server is not, or stay where they are and say why."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from redline.load.cores import plan_cores, server_cores, wanted_workers

STAT = "{pid} (a (b) c) S " + "0 " * 10 + "{used} 0 " + "0 " * 23 + "{core} 0 0"


def box(root: Path, threads: dict[int, list[tuple[int, int]]], allowed: str, cores: int = 8, smt: bool = False) -> Path:
    """A recorded /proc and /sys: per pid (ticks used, core it last ran on) of each thread; two memory nodes."""
    for pid, each in threads.items():
        for number, (used, core) in enumerate(each):
            folder = root / f"proc/{pid}/task/{pid + number}"
            folder.mkdir(parents=True)
            (folder / "stat").write_text(STAT.format(pid=pid + number, used=used, core=core))
            (folder / "status").write_text(f"Name:\tx\nCpus_allowed_list:\t{allowed}\n")
    for core in range(cores):
        folder = root / f"sys/devices/system/cpu/cpu{core}/topology"
        folder.mkdir(parents=True)
        other = (core + cores // 2) % cores
        (folder / "thread_siblings_list").write_text(f"{min(core, other)},{max(core, other)}" if smt else str(core))
    for node, cpus in enumerate((f"0-{cores // 2 - 1}", f"{cores // 2}-{cores - 1}")):
        folder = root / f"sys/devices/system/node/node{node}"
        folder.mkdir(parents=True)
        (folder / "cpulist").write_text(cpus)
    return root


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))


def test_a_confined_server_is_believed(tmp_path: Path) -> None:
    root = box(tmp_path, {100: [(50, 5), (1, 6)]}, "4-6")
    plan = plan_cores((100,), wanted=1, root=root)
    assert (plan.server, plan.cores, plan.note) == ((4, 5, 6), (7,), "")  # its memory node first
    assert plan_cores((100,), wanted=9, root=root).workers == 4  # one of five is left for redline
    assert plan_cores((100,), wanted=9, root=root).cores == (7, 0, 1, 2)


def test_a_free_server_is_watched(tmp_path: Path) -> None:
    root = box(tmp_path, {100: [(500, 1), (400, 2), (3, 7)], 200: [(100, 0)]}, "0-7")
    assert server_cores((100, 200), range(8), root) == (0, 1, 2)
    assert plan_cores((100, 200), wanted=2, root=root).cores == (3, 4)


def test_hyper_threads_of_the_server_are_not_free(tmp_path: Path) -> None:
    root = box(tmp_path, {100: [(5, 0)]}, "0-1", smt=True)  # 0 and 4, 1 and 5 are one core each
    plan = plan_cores((100,), wanted=3, root=root)
    assert plan.cores == (2, 3, 6)


def test_too_few_cores_pin_nobody(tmp_path: Path) -> None:
    root = box(tmp_path, {100: [(5, core) for core in range(7)]}, "0-7")
    plan = plan_cores((100,), wanted=4, root=root)
    assert (plan.workers, plan.cores) == (1, ())
    assert plan.note == "workers are not pinned: 1 of 8 cores are left beside the server, 2 are needed"
    assert plan_cores((100,), wanted=1, asked=3, root=root).workers == 3  # asked is asked


def test_what_is_not_known_is_not_guessed(tmp_path: Path) -> None:
    assert "not known" in plan_cores((), wanted=1, root=tmp_path).note
    assert plan_cores((), wanted=9, root=tmp_path).workers == 3  # half of the box is the server's
    far = plan_cores((), wanted=9, local=False, root=tmp_path)
    assert (far.workers, far.note) == (7, "workers are not pinned: the server is not on this box")
    assert "load.pin is off" in plan_cores((), wanted=1, pin=False, root=tmp_path).note


@pytest.mark.parametrize(
    ("kind", "value", "tokens", "workers"),
    [("closed", 1, 128, 1), ("closed", 250, 128, 1), ("closed", 251, 128, 2), ("closed", 10_000, 1, 40),
     ("poisson", 1, 128, 1), ("poisson", 1000, 128, 11), ("constant", 5000, 1, 5)],
)  # fmt: skip
def test_sized_by_streams_and_chunks(kind: str, value: float, tokens: float, workers: int) -> None:
    assert wanted_workers(kind, value, tokens) == workers
