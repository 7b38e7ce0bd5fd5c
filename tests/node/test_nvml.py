from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from redline.errors import Skipped
from redline.node.nvml import Nvml, clock_reasons, nvml, open_nvml, process_memory, reason_names
from tests.node.boxes import FakeNvml, process


def test_no_driver_is_an_answer() -> None:
    opened = open_nvml(FakeNvml(start=FakeNvml.NVMLError_LibraryNotFound))
    assert isinstance(opened, Skipped)
    assert "no NVIDIA driver" in opened.reason
    assert "GPU" in opened.how_to_get_it
    other = open_nvml(FakeNvml(start=FakeNvml.NVMLError))
    assert isinstance(other, Skipped)
    assert "does not start" in other.reason


def test_a_driver_without_gpus_is_closed_again() -> None:
    library = FakeNvml(gpus=0)
    opened = open_nvml(library)
    assert isinstance(opened, Skipped)
    assert library.opened == 0


def test_it_is_closed_after_use() -> None:
    library = FakeNvml()
    with nvml(library) as opened:
        assert isinstance(opened, Nvml)
        assert library.opened == 1
    assert library.opened == 0


def test_whatever_cannot_be_told_is_none() -> None:
    def odd(*_: Any) -> None:
        raise TypeError("an older driver made ctypes complain")

    with nvml(FakeNvml(DeviceGetPowerUsage=None, DeviceGetName=odd)) as opened:
        assert isinstance(opened, Nvml)
        handle = opened.handles[0]
        assert opened.ask("DeviceGetPowerUsage", handle) is None
        assert opened.ask("DeviceGetName", handle) is None
        assert opened.ask("NoSuchFunction", handle) is None


def test_clock_reasons_by_the_old_name_too() -> None:
    changes: dict[str, Any] = {
        "DeviceGetCurrentClocksEventReasons": None,
        "DeviceGetCurrentClocksThrottleReasons": 0x44,
    }
    with nvml(FakeNvml(**changes)) as opened:
        assert isinstance(opened, Nvml)
        bits = clock_reasons(opened, opened.handles[0])
    assert reason_names(bits) == ["power-cap", "thermal (hardware)"]
    assert reason_names(None) == reason_names(0) == []


def test_reason_bits_against_pynvml() -> None:
    import pynvml

    assert reason_names(pynvml.nvmlClocksEventReasonSwPowerCap) == ["power-cap"]
    assert reason_names(pynvml.nvmlClocksEventReasonHwSlowdown) == ["hardware-slowdown"]
    assert reason_names(pynvml.nvmlClocksEventReasonSwThermalSlowdown) == ["thermal (software)"]
    assert reason_names(pynvml.nvmlClocksEventReasonHwThermalSlowdown) == ["thermal (hardware)"]
    assert reason_names(pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown) == ["power-brake"]
    assert reason_names(pynvml.nvmlClocksEventReasonGpuIdle) == ["idle"]
    assert (pynvml.NVML_CLOCK_SM, pynvml.NVML_CLOCK_MEM, pynvml.NVML_TEMPERATURE_GPU) == (1, 2, 0)


def test_processes_of_both_kinds_and_hidden_amounts() -> None:
    changes: dict[str, Any] = {
        "DeviceGetComputeRunningProcesses": [process(10, 5), process(11, None)],
        "DeviceGetGraphicsRunningProcesses": [SimpleNamespace(pid=12, usedGpuMemory=7)],
    }
    with nvml(FakeNvml(**changes)) as opened:
        assert isinstance(opened, Nvml)
        assert process_memory(opened, opened.handles[0]) == {10: 5, 11: None, 12: 7}
