from __future__ import annotations

import json
from typing import Any

from redline.node.gpu import gpu_facts
from redline.node.tree import is_skipped
from tests.node.boxes import FakeNvml, process


def test_everything_about_a_gpu_but_its_serial_numbers() -> None:
    gpu = gpu_facts(FakeNvml(gpus=2, DeviceGetComputeRunningProcesses=[process(7, 1)]))
    assert (gpu["driver"], gpu["cuda"], len(gpu["devices"])) == ("580.95.05", "13.0", 2)
    device = gpu["devices"][0]
    assert device["name"] == "NVIDIA H200"
    assert device["compute_capability"] == "9.0"
    assert device["power"] == {"limit_w": 700.0, "default_limit_w": 700.0, "now_w": 512.3}
    assert device["clocks_mhz"]["sm"] == 1980
    assert device["clocks_mhz"]["sm_application"] is None
    assert device["pcie"] == {
        "generation": 1, "generation_max": 5, "generation_device_max": None, "width": 16, "width_max": 16,
    }  # fmt: skip
    assert (device["ecc"], device["mig"], device["persistence"]) == (True, False, True)
    assert device["remapped_rows"] == {"correctable": 0, "uncorrectable": 0, "pending": False, "failed": False}
    assert device["clock_event_reasons"] == ["idle"]
    assert device["processes"] == 1
    assert device["nvlinks"] == 0
    assert "GPU-1234" not in json.dumps(gpu)
    assert len(device["uuid_hash"]) == 12


def test_a_driver_that_tells_little() -> None:
    changes: dict[str, Any] = dict.fromkeys(name for name in FakeNvml().answers if name.startswith("DeviceGet"))
    changes |= {"DeviceGetCount": 1, "DeviceGetHandleByIndex": "handle", "SystemGetCudaDriverVersion_v2": None}
    gpu = gpu_facts(FakeNvml(**changes))
    device = gpu["devices"][0]
    assert gpu["cuda"] is None
    assert device["name"] is device["memory_bytes"] is device["ecc"] is device["remapped_rows"] is None
    assert device["power"]["limit_w"] is None


def test_a_card_that_is_cut_into_parts() -> None:
    parts = {0: "part0", 2: "part2"}
    names = {"gpu0": "NVIDIA H200", "part0": "NVIDIA H200 MIG 3g.71gb", "part2": b"NVIDIA H200 MIG 1g.18gb"}
    changes: dict[str, Any] = {"DeviceGetMigMode": [1, 1], "DeviceGetMaxMigDeviceCount": 7, "DeviceGetName": names.get}
    gpu = gpu_facts(FakeNvml(DeviceGetMigDeviceHandleByIndex=lambda handle, place: parts.get(place), **changes))
    assert gpu["devices"][0]["mig_devices"] == ["NVIDIA H200 MIG 3g.71gb", "NVIDIA H200 MIG 1g.18gb"]


def test_no_gpu() -> None:
    assert is_skipped(gpu_facts(FakeNvml(start=FakeNvml.NVMLError_LibraryNotFound)))
