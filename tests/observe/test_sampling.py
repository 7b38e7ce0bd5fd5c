from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from redline.clock import now_ns
from redline.observe import samplers
from redline.observe.apart import Apart
from redline.observe.host import HostSampler
from redline.observe.sample import Sample, Tick
from redline.observe.samplers import Plan
from redline.observe.sampling import sampling
from redline.store.store import Store
from tests.node.boxes import FakeNvml
from tests.store.recorded import EXPERIMENT

NONE = FakeNvml(start=FakeNvml.NVMLError_LibraryNotFound)
ME = (os.getpid(),)


def plan(interval_s: float = 0.02, pids: tuple[int, ...] = ME, names: tuple[str, ...] = ("host", "gpu")) -> Plan:
    return Plan(pids=pids, interval_s=interval_s, samplers=names)


def names(ticks: list[Tick]) -> set[str]:
    return {column[0] for tick in ticks for column in tick.layout.columns}


def of(ticks: list[Tick], name: str) -> list[tuple[int, float]]:
    found = []
    for tick in ticks:
        values = json.loads(tick.values)
        found += [(tick.t_ns, values[at]) for at, column in enumerate(tick.layout.columns) if column[0] == name]
    return found


def alone(prefix: str = "redline-") -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name in (f"{prefix}host", f"{prefix}gpu")]


def test_samples_cover_the_run_on_its_clock_and_end_with_it() -> None:
    """In a process of their own."""
    got: list[Tick] = []
    began = now_ns()
    with sampling(Plan(pids=ME), got.extend) as watch:
        time.sleep(1.5)
        assert isinstance(watch._source, Apart)
        pid = watch._source.pid
    ended = now_ns()
    times = [t_ns for t_ns, _ in of(got, "engine.rss_bytes")]
    assert len(times) >= 5
    assert times == sorted(times)
    assert began <= times[0] < times[-1] <= ended
    assert ended - times[-1] < 2e9, "the last look is at the very end"
    assert not Path(f"/proc/{pid}").exists()
    assert {"host", "metrics", "gpu", "dcgm"} == {*watch.overhead, *watch.told()["skipped"]} | {"gpu"}
    assert watch.notes == []
    told = watch.told()
    assert 0 < told["samplers"]["host"]["cpu_s"] < 0.3 * told["samplers"]["host"]["elapsed_s"]
    assert told["process"]["cpu_s"] >= told["samplers"]["host"]["cpu_s"]
    assert of(got, "sampler.cpu_s")[-1][1] == pytest.approx(told["samplers"]["host"]["cpu_s"], abs=0.01)


def test_a_sampler_process_that_is_killed_is_started_again_and_it_is_said() -> None:
    got: list[Tick] = []
    with sampling(plan(0.05, names=("host",)), got.extend) as watch:
        assert isinstance(watch._source, Apart)
        while not got:
            time.sleep(0.05)
        os.kill(watch._source.pid, signal.SIGKILL)
        killed = now_ns()
        until = time.monotonic() + 30
        while got[-1].t_ns < killed and time.monotonic() < until:
            time.sleep(0.05)
    assert got[-1].t_ns > killed
    assert watch.notes == ["the sampler process died (signal 9): it was started again, samples are missing in between"]


def test_a_sampler_process_that_is_stopped_does_not_hold_the_run_up(monkeypatch: pytest.MonkeyPatch) -> None:
    from redline.observe import apart

    monkeypatch.setattr(apart, "STOP_S", -1.0)
    got: list[Tick] = []
    with sampling(plan(0.05, names=("host",)), got.extend) as watch:
        assert isinstance(watch._source, Apart)
        while not got:
            time.sleep(0.05)
        os.kill(watch._source.pid, signal.SIGSTOP)
        began = time.monotonic()
    assert time.monotonic() - began < 20
    assert any("was killed" in note for note in watch.notes)


def test_nobody_is_left_when_redline_is_killed() -> None:
    script = """
import time
from redline.observe.samplers import Plan
from redline.observe.sampling import sampling
with sampling(Plan(samplers=("host",)), lambda ticks: None) as watch:
    print(watch._source.pid, flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=-1, text=True) as redline:
        assert redline.stdout is not None
        sampler = int(redline.stdout.readline())
        redline.kill()
    until = time.monotonic() + 20
    while Path(f"/proc/{sampler}/cmdline").exists() and _lives(sampler) and time.monotonic() < until:
        time.sleep(0.05)
    assert not _lives(sampler)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_gpus_are_sampled_in_a_thread_of_their_own() -> None:
    got: list[Tick] = []
    library = FakeNvml()
    with sampling(plan(), got.extend, nvml_library=library) as watch:
        time.sleep(0.2)
    assert {"gpu.power_w", "engine.rss_bytes", "engine.gpu_memory_bytes"} <= names(got)
    assert set(watch.overhead) == {"host", "gpu"}
    assert library.opened == 0
    assert watch.skipped == []


def test_no_gpu_is_said_and_no_dcgm_is_not() -> None:
    with sampling(Plan(samplers=("gpu", "dcgm")), lambda ticks: None, nvml_library=NONE) as watch:
        time.sleep(0.2)
    assert [one.reason for one in watch.skipped] == ["no NVIDIA driver on this box"]


def test_a_slow_driver_is_asked_less_often_and_delays_nobody_else() -> None:
    def slow(*_: Any) -> None:
        time.sleep(0.1)

    with sampling(plan(), lambda ticks: None, nvml_library=FakeNvml(DeviceGetPowerUsage=slow)) as watch:
        time.sleep(1.2)
    assert watch.overhead["gpu"].ticks <= 5, "twelve without a limit"
    assert watch.overhead["host"].ticks >= 6


def test_one_costly_look_makes_no_hole_and_costly_ones_slow_down() -> None:
    class Idle:
        name, notes = "host", list[str]()

        def read(self) -> list[Sample]:
            return []

        def close(self) -> None: ...

    owner = samplers.Samplers(plan(names=()), lambda name, found: None)
    loop = samplers._Loop(owner, Idle(), 0.1, 0.02)
    assert [loop._owed_s(busy_s) for busy_s in (0.0005, 0.018, 0.0005, 0.0005)] == [0.0] * 4
    periods = [0.1 + loop._owed_s(0.01) for _ in range(50)]
    assert periods[-1] == pytest.approx(0.5), "ten milliseconds of work are two percent of it"
    assert sum(periods) >= 50 * 0.01 / 0.02 - samplers.CREDIT_S


def test_a_sampler_that_hangs_is_told_of_while_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samplers, "HUNG_S", 0.1)
    gate = threading.Event()
    library = FakeNvml(DeviceGetPowerUsage=lambda handle: gate.wait(20) and 1)
    got: list[Tick] = []
    running = samplers.Samplers(plan(), lambda name, found: got.append(name), library)  # type: ignore[arg-type]
    running.start()
    time.sleep(0.4)
    running.look()
    assert [note for note in running.notes if note.startswith("gpu: no answer for 0 s")]
    before = got.count("host")  # type: ignore[arg-type]
    time.sleep(0.3)
    assert got.count("host") > before, "the others go on"  # type: ignore[arg-type]
    gate.set()
    running.stop()
    assert [note for note in running.notes if note.startswith("gpu: answered again")]


def test_a_sampler_that_fails_is_a_note_and_the_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: object) -> list[Sample]:
        raise OSError("odd")

    monkeypatch.setattr(HostSampler, "read", broken)
    with sampling(plan(0.01), lambda ticks: None, nvml_library=NONE) as watch:
        time.sleep(0.2)
    assert watch.notes == ["host: OSError: odd"]
    assert watch.overhead["host"].ticks > 1, "it is tried again"


def test_a_sampler_that_cannot_even_start_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: object, pids: object, client: object) -> None:
        raise RuntimeError("no /proc")

    monkeypatch.setattr(HostSampler, "__init__", broken)
    with sampling(plan(), lambda ticks: None, nvml_library=NONE) as watch:
        time.sleep(0.1)
    assert watch.notes == ["host: RuntimeError: no /proc"]


def test_a_store_that_cannot_keep_is_a_note() -> None:
    def full(ticks: list[Tick]) -> None:
        raise ValueError("disk full")

    with sampling(plan(0.01), full, nvml_library=NONE) as watch:
        time.sleep(0.1)
    assert watch.notes == ["samples are not kept: ValueError: disk full"]


def test_an_error_in_the_block_passes_through_and_ends_the_threads() -> None:
    with pytest.raises(ZeroDivisionError), sampling(plan(), lambda ticks: None, nvml_library=NONE):
        raise ZeroDivisionError
    assert not alone()


def test_into_the_store_and_out_again(tmp_path: Path) -> None:
    with Store.open(tmp_path / "r.db") as store:
        trial = store.begin_trial(store.begin_run(EXPERIMENT, {}, []), model="m", spec=EXPERIMENT.engines[0], repeat=0)
        with sampling(plan(), lambda ticks: store.add_ticks(trial, ticks), nvml_library=FakeNvml()) as watch:
            time.sleep(0.3)
        store.keep_telemetry(trial, watch.told())
        store.flush()
        peak = store.peak(trial, "engine.rss_bytes")
        assert peak is not None
        assert peak == max(store.samples(trial, "engine.rss_bytes")[0].value)
        assert peak > 1e6
        assert store.samples(trial, "gpu.power_w")[0].labels == {"gpu": "0"}
        assert store.run("last").trials[0].telemetry["samplers"]["host"]["ticks"] > 1
