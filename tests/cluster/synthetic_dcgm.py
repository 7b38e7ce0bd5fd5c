"""A page in the form of DCGM's exporter 4.x. SYNTHETIC: the format is its own, the numbers are made up."""

from __future__ import annotations

import time

from redline.observe.rules.files import COUNTERS

_VALUES = {
    "DCGM_FI_DEV_GPU_UTIL": 87, "DCGM_FI_DEV_MEM_COPY_UTIL": 40, "DCGM_FI_DEV_FB_USED": 91_234,
    "DCGM_FI_DEV_FB_FREE": 52_000, "DCGM_FI_DEV_SM_CLOCK": 1740, "DCGM_FI_DEV_MEM_CLOCK": 3201,
    "DCGM_FI_DEV_POWER_USAGE": 612.3, "DCGM_FI_DEV_GPU_TEMP": 61, "DCGM_FI_DEV_MEMORY_TEMP": 70,
    "DCGM_FI_DEV_CLOCKS_EVENT_REASONS": 0x44, "DCGM_FI_PROF_SM_ACTIVE": 0.71, "DCGM_FI_PROF_SM_OCCUPANCY": 0.32,
    "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE": 0.18, "DCGM_FI_PROF_DRAM_ACTIVE": 0.64,
    "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL": 0, "DCGM_FI_DEV_PCIE_REPLAY_COUNTER": 3,
}  # fmt: skip


def dcgm_page() -> str:
    lines = []
    for name, (kind, text) in COUNTERS.items():
        value = _VALUES.get(name, time.time() % 1e6 * 1000 if kind == "counter" else 0)
        labels = 'gpu="0",UUID="GPU-00000000-0000-0000-0000-000000000000",device="nvidia0",modelName="SYNTHETIC"'
        lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}", f"{name}{{{labels}}} {value}"]
    return "\n".join(lines) + "\n"
