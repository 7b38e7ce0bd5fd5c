from __future__ import annotations

import os
from typing import Any

from redline.errors import Skipped
from redline.observe.gpu import GpuSampler
from redline.observe.sample import Sample
from redline.sampled import SAMPLED
from tests.node.boxes import FakeNvml, process


def read(pids: list[int], **changes: Any) -> list[Sample]:
    library = FakeNvml(**changes)
    sampler = GpuSampler.open(pids, library)
    assert isinstance(sampler, GpuSampler)
    samples = sampler.read()
    sampler.close()
    assert library.opened == 0
    return samples


def test_every_gpu_with_its_label() -> None:
    samples = read([], gpus=2)
    assert {sample.labels["gpu"] for sample in samples} == {"0", "1"}
    one = {sample.name: (sample.value, sample.unit) for sample in samples if sample.labels["gpu"] == "1"}
    assert one["gpu.memory_used_bytes"] == (1e9, "B")
    assert one["gpu.utilisation_share"] == (0.87, "share")
    assert one["gpu.power_w"] == (512.3, "W")
    assert one["gpu.energy_j"] == (5000.0, "J")
    assert one["gpu.sm_clock_mhz"] == (1980.0, "MHz")
    assert one["gpu.slowed"] == (0.0, "")
    assert all(name in SAMPLED for name in one)


def test_power_and_heat_slow_a_card_down_idleness_does_not() -> None:
    for bits, slowed in ((0x1, 0.0), (0x4, 1.0), (0x40, 1.0), (0x2, 0.0)):
        samples = read([], DeviceGetCurrentClocksEventReasons=bits)
        assert [sample.value for sample in samples if sample.name == "gpu.slowed"] == [slowed]


def test_the_engines_memory_is_that_of_its_processes_on_all_gpus() -> None:
    me = os.getpid()
    running = {"gpu0": [process(me, 3_000), process(1, 99)], "gpu1": [process(me, 4_000)]}
    samples = read([me], gpus=2, DeviceGetComputeRunningProcesses=lambda handle: running[handle])
    held = [sample for sample in samples if sample.name == "engine.gpu_memory_bytes"]
    assert [(sample.value, sample.labels) for sample in held] == [(7_000.0, {"source": "process"})]


def test_where_processes_cannot_be_told_apart_the_devices_use_is_labelled_as_such() -> None:
    for running in ([], [process(99_999_999, 5)], [process(os.getpid(), None)]):
        samples = read([os.getpid()], gpus=2, DeviceGetComputeRunningProcesses=running)
        held = [sample for sample in samples if sample.name == "engine.gpu_memory_bytes"]
        assert [(sample.value, sample.labels) for sample in held] == [(2e9, {"source": "device"})]


def test_what_the_driver_does_not_tell_is_left_out() -> None:
    names = {sample.name for sample in read([], DeviceGetPowerUsage=None, DeviceGetUtilizationRates=None)}
    assert "gpu.power_w" not in names
    assert "gpu.utilisation_share" not in names
    assert "gpu.memory_used_bytes" in names


def test_what_is_not_supported_is_said_once_and_not_asked_again() -> None:
    asked = []

    def refused(handle: str) -> int:
        asked.append(handle)
        raise FakeNvml.NVMLError("Not Supported")

    sampler = GpuSampler.open([], FakeNvml(gpus=2, DeviceGetPowerUsage=refused))
    assert isinstance(sampler, GpuSampler)
    for _ in range(3):
        sampler.read()
    assert asked == ["gpu0", "gpu1"]
    said = [note for note in sampler.notes if "PowerUsage" in note]
    assert said == [f"GPU {n} (NVIDIA H200) does not tell its PowerUsage: not supported" for n in (0, 1)]


def test_a_gpu_that_is_lost_is_asked_again() -> None:
    class Lost(FakeNvml.NVMLError):
        value = 15

    left = [Lost("GPU is lost"), Lost("GPU is lost")]

    def flaky(handle: str) -> int:
        if left:
            raise left.pop()
        return 200_000

    sampler = GpuSampler.open([], FakeNvml(DeviceGetPowerUsage=flaky))
    assert isinstance(sampler, GpuSampler)
    power = [[one.value for one in sampler.read() if one.name == "gpu.power_w"] for _ in range(3)]
    assert power == [[], [], [200.0]]
    assert len([note for note in sampler.notes if "GPU is lost" in note]) == 1


def test_no_gpu_is_skipped() -> None:
    opened = GpuSampler.open([], FakeNvml(start=FakeNvml.NVMLError_LibraryNotFound))
    assert isinstance(opened, Skipped)


def test_compute_instances_of_one_mig_instance_are_one_series() -> None:
    numbers = {"mig0": 1, "mig1": 1, "mig2": 5}
    samples = read(
        [], DeviceGetMigMode=lambda handle: (1, 1), DeviceGetMaxMigDeviceCount=lambda handle: 4,
        DeviceGetMigDeviceHandleByIndex=lambda handle, place: f"mig{place}" if place < 3 else None,
        DeviceGetGpuInstanceId=lambda handle: numbers[handle],
    )  # fmt: skip
    used = [one.labels for one in samples if one.name == "gpu.memory_used_bytes"]
    assert used == [{"gpu": "0"}, {"gpu": "0", "mig": "1"}, {"gpu": "0", "mig": "5"}]
