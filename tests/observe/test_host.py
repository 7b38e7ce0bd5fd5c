from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from redline.observe import engine_tree
from redline.observe.cpus import Cpus
from redline.observe.devices import Devices
from redline.observe.host import HostSampler
from redline.observe.memory import Memory
from redline.observe.reading import Kept, Rates, Reading
from redline.observe.sample import Sample
from redline.sampled import SAMPLED
from tests.node.boxes import plant


def by_name(samples: list[Sample]) -> dict[str, Sample]:
    return {sample.name: sample for sample in samples}


def test_engine_box_and_client() -> None:
    script = "import sys; block = bytearray(50_000_000); print('up', flush=True)\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", script], stdout=-1, text=True) as engine:
        assert engine.stdout is not None
        engine.stdout.readline()
        sampler = HostSampler([engine.pid])
        first = by_name(sampler.read())
        time.sleep(0.6)
        second = by_name(sampler.read())
        engine.kill()
        sampler.close()
    assert first["engine.rss_bytes"].value > 50e6
    assert 50e6 < first["engine.pss_bytes"].value <= first["engine.rss_bytes"].value * 1.1
    assert first["engine.rss_high_water_bytes"].value >= 50e6
    assert first["engine.processes"].value == 1
    assert "engine.cpu_cores" not in first, "a rate needs two looks"
    assert 0.05 < second["engine.cpu_cores"].value < 1.3, "it spins on one core"
    assert second["engine.cpu_s"].value > first["engine.cpu_s"].value
    assert second["engine.run_queue_ms_per_s"].value >= 0
    assert "engine.pss_bytes" not in second, "page-table walks are rare"
    shares = [one for one in second.values() if one.unit == "share"]
    assert len(shares) > 5
    assert all(0 <= one.value <= 1 for one in shares)
    assert second["host.cpu_busy_share"].value > 0.05
    assert second["client.cpu_cores"].value < 0.9
    assert second["client.rss_bytes"].value > 1e6
    assert second["host.memory_available_bytes"].value > 1e6
    times = [sample.t_ns for sample in second.values()]
    assert max(times) == min(times), "one tick, one instant"


def test_a_list_of_the_kernel_is_read_beyond_its_first_page() -> None:
    files = Kept("/proc/self")
    for _ in range(2):  # the second time the file is open already
        assert files.read("maps").count("\n") == pytest.approx(Path("/proc/self/maps").read_text().count("\n"), abs=20)
        assert len(files.read("maps")) > 8192, "or it would prove nothing"
    files.close()


def test_units_are_in_the_names() -> None:
    ends = {
        "B": "_bytes", "s": "_s", "share": "_share", "cores": "_cores", "ms": "_ms", "1/s": "_per_s",
        "B/s": "_bytes_per_s", "tok/s": "_tokens_per_s", "ms/s": "_ms_per_s", "W": "_w", "J": "_j", "MHz": "_mhz",
        "°C": "_c", "": "",
    }  # fmt: skip
    for name, told in SAMPLED.items():
        assert name.endswith(ends[told.unit]), name
        assert told.name == name


def test_time_in_the_run_queue_is_that_of_two_threads_on_one_core() -> None:
    """Two that spin on one core: each is ready half of the time and has no CPU."""
    script = (
        "import os, threading\nos.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "if os.fork() == 0:\n  while True: pass\nprint('up', flush=True)\nwhile True: pass"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=-1, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    ) as engine:
        assert engine.stdout is not None
        engine.stdout.readline()
        sampler, found = HostSampler([engine.pid]), []
        for _ in range(12):
            found += [one.value for one in sampler.read() if one.name == "engine.run_queue_ms_per_s"]
            time.sleep(0.1)
        os.killpg(engine.pid, 9)
        sampler.close()
    assert 600 < sum(found) / len(found) < 2100, "at least a second per second, more where others want the core too"


def test_a_server_of_somebody_else_has_no_engine_samples() -> None:
    assert not [sample for sample in HostSampler(()).read() if sample.name.startswith("engine.")]


def test_an_engine_that_is_gone_gives_nothing_rather_than_zero() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert not [sample for sample in HostSampler([child.pid]).read() if sample.name.startswith("engine.")]


def test_the_client_is_redline_with_its_workers_and_without_the_engine() -> None:
    script = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass\ninput()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=-1) as spinner:
        time.sleep(1)
        of_workers = by_name(HostSampler([]).read())["client.cpu_s"].value
        without = by_name(HostSampler([spinner.pid]).read())["client.cpu_s"].value
        spinner.kill()
    assert of_workers - without > 0.1


def test_a_slow_page_table_walk_is_repeated_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(pid: int) -> int:
        time.sleep(0.03)
        return 1

    monkeypatch.setattr(engine_tree, "rollup", slow)
    sampler = HostSampler([os.getpid()])
    sampler.read()
    assert sampler._engine._costly_at - time.monotonic() > 2.5


def test_a_sum_with_an_unreadable_process_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_tree, "rollup", lambda pid: None)
    names = by_name(HostSampler([os.getpid()]).read())
    assert "engine.pss_bytes" not in names
    assert "engine.rss_bytes" in names


def test_a_counter_that_goes_backwards_has_no_rate() -> None:
    rates = Rates()
    assert rates.per_s("x", 0, 10) is None
    assert rates.per_s("x", 2_000_000_000, 30) == 10
    assert rates.per_s("x", 3_000_000_000, 5) is None
    assert rates.resets == 1
    assert rates.per_s("x", 4_000_000_000, 6) == 1


def test_the_wall_clock_that_is_stepped_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = HostSampler(())
    sampler.read()
    ahead = time.time() + 3
    monkeypatch.setattr(time, "time", lambda: ahead)
    sampler._slow_at = 0.0
    sampler.read()
    assert [note for note in sampler.notes if "stepped by +3" in note or "stepped by +2.9" in note]


BOX = {
    "stat": "cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 50 0 50 350 50 0 0 0\nintr 1000 5 5\nctxt 5000\nprocesses 10\n"
    "procs_running 3\nprocs_blocked 1\n",
    "pressure/io": "some avg10=0 avg60=0 avg300=0 total=1000\nfull avg10=0 avg60=0 avg300=0 total=500\n",
    "meminfo": "MemTotal: 1000 kB\nMemAvailable: 600 kB\nBuffers: 10 kB\nCached: 200 kB\nDirty: 5 kB\n"
    "SwapTotal: 100 kB\nSwapFree: 40 kB\n",
    "vmstat": "pswpin 1\npswpout 2\npgfault 100\npgmajfault 10\nallocstall_normal 1\nallocstall_movable 1\n",
    "diskstats": " 259 0 nvme0n1 10 0 100 5 20 0 200 5 0 50 10\n"
    " 259 1 nvme0n1p1 10 0 100 5 20 0 200 5 0 50 10\n 7 0 loop0 9 0 9 9 9 9 9 9 9 9 9\n",
    "net/dev": "Inter-|\n face |\n  eth0: 1000 9 1 1 0 0 0 0 2000 9 0 0 0 0 0 0\n"
    "  dummy: 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n",
    "net/snmp": "Tcp: ActiveOpens RetransSegs\nTcp: 5 10\n",
    "softirqs": "          CPU0 CPU1\nNET_RX: 10 20\nHI: 1 1\n",
}  # fmt: skip
LATER = {
    "stat": "cpu  140 0 130 710 110 0 10 0 0 0\ncpu0 70 0 65 355 55 0 5 0\nintr 3000 5 5\nctxt 9000\nprocesses 14\n"
    "procs_running 5\nprocs_blocked 2\n",
    "pressure/io": "some avg10=0 avg60=0 avg300=0 total=501000\nfull avg10=0 avg60=0 avg300=0 total=100500\n",
    "vmstat": "pswpin 3\npswpout 2\npgfault 300\npgmajfault 12\nallocstall_normal 4\nallocstall_movable 2\n",
    "diskstats": " 259 0 nvme0n1 10 0 300 5 20 0 600 5 0 550 10\n 259 1 nvme0n1p1 10 0 100 5 20 0 200 5 0 50 10\n",
    "net/dev": "Inter-|\n face |\n  eth0: 3000 9 1 4 0 0 0 0 8000 9 0 0 0 0 0 0\n",
    "net/snmp": "Tcp: ActiveOpens RetransSegs\nTcp: 5 18\n",
    "softirqs": "          CPU0 CPU1\nNET_RX: 110 120\nHI: 1 1\n",
}  # fmt: skip


def test_a_made_up_box_second_by_second(tmp_path: Path) -> None:
    """Two looks, two seconds apart."""
    proc, blocks = tmp_path / "proc", tmp_path / "block"
    plant(proc, BOX)
    plant(blocks, {"nvme0n1/size": "1\n", "loop0/size": "1\n"})
    files = Kept(str(proc))
    parts: list[Cpus | Memory | Devices] = [Cpus(files), Memory(files), Devices(files, blocks)]
    for part in parts:
        part.read(Reading(1_000_000_000))
    plant(proc, LATER)
    into = Reading(3_000_000_000)
    for part in parts:
        part.read(into)
    files.close()
    found = {(one.name.partition(".")[2], *one.labels.values()): one.value for one in into.samples}
    assert found == {
        ("cpu_busy_share",): 0.8, ("cpu_iowait_share",): 0.1, ("cpu_irq_share",): 0.0, ("cpu_softirq_share",): 0.1,
        ("cpu_steal_share",): 0.0, ("cpu_core_busy_share", "0"): 0.8, ("context_switches_per_s",): 2000,
        ("forks_per_s",): 2, ("interrupts_per_s",): 1000, ("running_tasks",): 5, ("blocked_tasks",): 2,
        ("io_pressure_share",): 0.25, ("io_pressure_full_share",): 0.05,
        ("memory_available_bytes",): 614_400, ("page_cache_bytes",): 215_040, ("dirty_bytes",): 5120,
        ("swap_used_bytes",): 61_440, ("swap_in_per_s",): 1, ("swap_out_per_s",): 0, ("faults_per_s",): 100,
        ("major_faults_per_s",): 1, ("direct_reclaims_per_s",): 2,
        ("disk_read_bytes_per_s", "nvme0n1"): 51_200, ("disk_written_bytes_per_s", "nvme0n1"): 102_400,
        ("disk_busy_share", "nvme0n1"): 0.25,
        ("network_rx_bytes_per_s", "eth0"): 1000, ("network_tx_bytes_per_s", "eth0"): 3000,
        ("network_drops_per_s", "eth0"): 1.5, ("tcp_retransmits_per_s",): 4, ("softirqs_per_s", "NET_RX"): 100,
    }  # fmt: skip


def test_a_file_that_grows_is_read_whole(tmp_path: Path) -> None:
    plant(tmp_path, {"stat": "x" * 10})
    files = Kept(str(tmp_path))
    assert files.read("stat") == "x" * 10
    (tmp_path / "stat").write_text("y" * 50_000)
    assert files.read("stat") == "y" * 50_000
    assert files.read("none") == ""
    files.close()
