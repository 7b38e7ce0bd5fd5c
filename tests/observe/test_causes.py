from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from redline.observe import causes
from redline.observe.causes import CauseSampler, groups_of, limit_hits, tcp_count, throttled_s
from redline.observe.reading import Kept
from redline.sampled import SAMPLED


def test_a_stopped_engine_shows_and_every_name_is_in_the_table() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    sampler = CauseSampler([child.pid])
    try:
        first = {one.name: one.value for one in sampler.read()}
        child.send_signal(signal.SIGSTOP)
        ends, second = time.monotonic() + 10, first
        while second.get("cause.stopped_share") != 1.0 and time.monotonic() < ends:
            time.sleep(0.05)
            second = {one.name: one.value for one in sampler.read()}
    finally:
        child.kill()
        child.wait()
        sampler.close()
    assert first["cause.stopped_share"] == 0
    assert second["cause.stopped_share"] == 1
    assert "cause.client_run_queue_share" in second
    assert set(second) <= {name for name, one in SAMPLED.items() if one.sampler == "causes"}


def test_an_engine_that_is_gone_says_nothing() -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    sampler = CauseSampler([child.pid])
    sampler.read()
    time.sleep(0.1)
    told = {one.name for one in sampler.read()}
    assert "cause.stopped_share" not in told
    assert "cause.irq_max_share" in told or not Path("/proc/stat").exists()


def test_counters_of_tcp_by_name() -> None:
    files = Kept()
    assert (tcp_count(files, os.getpid(), "RetransSegs") or 0) >= 0
    assert tcp_count(files, os.getpid(), "NoSuchCounter") is None


@pytest.mark.parametrize(
    ("line", "folder", "files", "throttled", "hits"),
    [
        ("0::/serving", "serving", {"cpu.stat": "usage_usec 5\nthrottled_usec 1500000\n",
         "memory.events": "low 0\nhigh 3\nmax 4\noom 0\n"}, 1.5, 7),
        ("4:cpu,cpuacct:/x", "cpu,cpuacct/x", {"cpu.stat": "nr_throttled 2\nthrottled_time 2500000000\n"}, 2.5, None),
        ("5:memory:/x", "memory/x", {"memory.failcnt": "12\n"}, None, 12),
    ],
)  # fmt: skip
def test_both_kinds_of_cgroup(
    tmp_path: Path, line: str, folder: str, files: dict[str, str], throttled: float | None, hits: int | None
) -> None:
    (tmp_path / "proc/7").mkdir(parents=True)
    (tmp_path / "proc/7/cgroup").write_text(line + "\n")
    place = tmp_path / "cgroup" / folder
    place.mkdir(parents=True)
    for name, content in files.items():
        (place / name).write_text(content)
    cpu, memory = groups_of(7, tmp_path / "cgroup", str(tmp_path / "proc"))
    assert (throttled_s(cpu) if cpu else None) == throttled
    assert (limit_hits(memory) if memory else None) == hits


def test_a_quota_that_holds_many_cpus_is_used_up_all_of_the_time_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = iter((0.0, 64.0))
    monkeypatch.setattr(causes, "groups_of", lambda *_: (tmp_path, None))
    monkeypatch.setattr(causes, "throttled_s", lambda _: next(told))
    sampler = CauseSampler([os.getpid()])
    sampler.read()
    time.sleep(0.05)
    found = {one.name: one.value for one in sampler.read()}
    sampler.close()
    assert found["cause.throttled_share"] == 1.0
