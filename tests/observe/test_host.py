from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from redline.observe import host
from redline.observe.host import HostSampler
from redline.observe.sample import Sample


def by_name(samples: list[Sample]) -> dict[str, Sample]:
    return {sample.name: sample for sample in samples}


def test_engine_box_and_client() -> None:
    script = "import sys; block = bytearray(50_000_000); print('up', flush=True)\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", script], stdout=-1, text=True) as engine:
        assert engine.stdout is not None
        engine.stdout.readline()
        sampler = HostSampler([engine.pid])
        first = by_name(sampler.read())
        time.sleep(0.5)
        second = by_name(sampler.read())
        engine.kill()
    assert first["engine.rss_bytes"].value > 50e6
    assert 50e6 < first["engine.pss_bytes"].value <= first["engine.rss_bytes"].value * 1.1
    assert first["engine.rss_high_water_bytes"].value >= 50e6
    assert first["engine.processes"].value == 1
    assert "engine.cpu_cores" not in first, "a rate needs two looks"
    assert 0.05 < second["engine.cpu_cores"].value < 1.3, "it spins on one core"
    assert second["engine.cpu_s"].value > first["engine.cpu_s"].value
    assert "engine.pss_bytes" not in second, "page-table walks are rare"
    for name in ("host.cpu_busy_share", "host.cpu_steal_share", "host.cpu_pressure_share"):
        if name in second:
            assert 0 <= second[name].value <= 1
    assert second["host.cpu_busy_share"].value > 0.05
    assert second["client.cpu_cores"].value < 0.9
    assert second["client.rss_bytes"].value > 1e6
    assert second["host.memory_available_bytes"].value > 1e6
    times = [sample.t_ns for sample in second.values()]
    assert max(times) == min(times), "one tick, one instant"


def test_units_are_in_the_names() -> None:
    ends = {"B": "_bytes", "s": "_s", "share": "_share", "cores": "_cores"}
    sampler = HostSampler([os.getpid()])
    for sample in [*sampler.read(), *sampler.read()]:
        assert sample.name.endswith(ends.get(sample.unit, "")), sample
        assert sample.name in (host.__doc__ or ""), sample


def test_a_server_of_somebody_else_has_no_engine_samples() -> None:
    assert not [sample for sample in HostSampler(()).read() if sample.name.startswith("engine.")]


def test_an_engine_that_is_gone_gives_nothing_rather_than_zero() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert not [sample for sample in HostSampler([child.pid]).read() if sample.name.startswith("engine.")]


def test_a_slow_page_table_walk_is_repeated_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(pid: int) -> int:
        time.sleep(0.03)
        return 1

    monkeypatch.setattr(host, "rollup", slow)
    sampler = HostSampler([os.getpid()])
    sampler.read()
    assert sampler._costly_at - time.monotonic() > 2.5


def test_a_sum_with_an_unreadable_process_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "rollup", lambda pid: None)
    names = by_name(HostSampler([os.getpid()]).read())
    assert "engine.pss_bytes" not in names
    assert "engine.rss_bytes" in names
