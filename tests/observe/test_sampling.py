from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from redline.clock import now_ns
from redline.observe.host import HostSampler
from redline.observe.sample import Sample
from redline.observe.sampling import sampling
from tests.node.boxes import FakeNvml

NONE = FakeNvml(start=FakeNvml.NVMLError_LibraryNotFound)


def test_samples_cover_the_run_on_its_clock_and_end_with_it() -> None:
    got: list[Sample] = []
    began = now_ns()
    with sampling([os.getpid()], got.extend, interval_s=0.02, nvml_library=NONE) as watch:
        time.sleep(0.5)
    ended = now_ns()
    times = [sample.t_ns for sample in got if sample.name == "engine.rss_bytes"]
    assert len(times) >= 5
    assert times == sorted(times)
    assert began <= times[0] < times[-1] <= ended
    assert ended - times[-1] < 2e9, "the last look is at the very end"
    count = len(got)
    time.sleep(0.1)
    assert len(got) == count
    assert not [thread for thread in threading.enumerate() if thread.name in ("redline-host", "redline-gpu")]
    assert (
        [str(one) for one in watch.skipped]
        == [str(one) for one in watch.skipped if "no NVIDIA driver" in str(one)]
        != []
    )
    assert watch.notes == []


def test_its_own_cost_is_measured_and_small() -> None:
    got: list[Sample] = []
    with sampling([os.getpid()], got.extend, interval_s=0.1, nvml_library=NONE) as watch:
        time.sleep(1)
    cost = watch.overhead["host"]
    assert cost.ticks >= 3
    assert 0 < cost.cpu_s < 0.3 * cost.elapsed_s  # takes about 1 %
    own = [sample for sample in got if sample.name == "sampler.cpu_s"]
    assert [(sample.labels, sample.value) for sample in own] == [({"sampler": "host"}, cost.cpu_s)]


def test_gpus_are_sampled_in_a_thread_of_their_own() -> None:
    got: list[Sample] = []
    library = FakeNvml()
    with sampling([os.getpid()], got.extend, interval_s=0.02, nvml_library=library) as watch:
        time.sleep(0.2)
    assert {"gpu.power_w", "engine.rss_bytes", "engine.gpu_memory_bytes"} <= {sample.name for sample in got}
    assert set(watch.overhead) == {"host", "gpu"}
    assert library.opened == 0
    assert watch.skipped == []


def test_a_slow_driver_is_asked_less_often_and_delays_nobody_else() -> None:
    def slow(*_: Any) -> None:
        time.sleep(0.05)

    got: list[Sample] = []
    with sampling([], got.extend, interval_s=0.02, nvml_library=FakeNvml(DeviceGetTemperature=slow)) as watch:
        time.sleep(0.9)
    assert watch.overhead["gpu"].ticks <= 3
    assert watch.overhead["host"].ticks >= 8


def test_a_sampler_that_fails_is_a_note_and_the_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: object) -> list[Sample]:
        raise OSError("odd")

    monkeypatch.setattr(HostSampler, "read", broken)
    with sampling([], lambda samples: None, interval_s=0.01, nvml_library=NONE) as watch:
        time.sleep(0.1)
    assert watch.notes == ["host: OSError: odd"]
    assert watch.overhead["host"].ticks > 1, "it is tried again"


def test_a_sampler_that_cannot_even_start_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: object, pids: object) -> None:
        raise RuntimeError("no /proc")

    monkeypatch.setattr(HostSampler, "__init__", broken)
    with sampling([], lambda samples: None, nvml_library=NONE) as watch:
        pass
    assert watch.notes == ["host: RuntimeError: no /proc"]


def test_a_store_that_cannot_keep_is_a_note() -> None:
    def full(samples: list[Sample]) -> None:
        raise ValueError("disk full")

    with sampling([], full, interval_s=0.01, nvml_library=NONE) as watch:
        time.sleep(0.05)
    assert watch.notes == ["host: ValueError: disk full"]


def test_an_error_in_the_block_passes_through_and_ends_the_threads() -> None:
    with pytest.raises(ZeroDivisionError), sampling([], lambda samples: None, nvml_library=NONE):
        raise ZeroDivisionError
    assert not [thread for thread in threading.enumerate() if thread.name == "redline-host"]


def test_into_the_store_and_out_again(tmp_path: Path) -> None:
    from redline.store.store import Store
    from tests.store.recorded import EXPERIMENT

    with Store.open(tmp_path / "r.db") as store:
        trial = store.begin_trial(store.begin_run(EXPERIMENT, {}, []), model="m", spec=EXPERIMENT.engines[0], repeat=0)
        with sampling([os.getpid()], lambda samples: store.add_samples(trial, samples), 0.02, nvml_library=FakeNvml()):
            time.sleep(0.2)
        store.flush()
        peak = store.peak(trial, "engine.rss_bytes")
        assert peak is not None
        assert peak == max(store.samples(trial, "engine.rss_bytes")[0].value)
        assert peak > 1e6
        assert store.samples(trial, "gpu.power_w")[0].labels == {"gpu": "0"}
