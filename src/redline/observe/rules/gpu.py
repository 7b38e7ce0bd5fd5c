"""GPUs by DCGM's exporter and by redline's own (NVML): one set of series, with `source` saying whose.

DCGM's names changed: field 112 was CLOCK_THROTTLE_REASONS before DCGM 3.3 and is CLOCKS_EVENT_REASONS since. Its Xid
gauge keeps the last one for ever, so nothing rings for it: the kernel log has the times.
"""

from __future__ import annotations

from redline.node.nvml import REASONS, SLOWING
from redline.observe.rules.rule import Group, Record

GPU = "job, instance, gpu"
BITS = ("DCGM_FI_DEV_CLOCKS_EVENT_REASONS", "DCGM_FI_DEV_CLOCK_THROTTLE_REASONS")
_MIB = 2**20

# series: (DCGM's expression, NVML's by redline's exporter)
BOTH = {
    "gpu:utilisation:ratio": ("DCGM_FI_DEV_GPU_UTIL / 100", "redline_gpu_utilisation_share"),
    "gpu:memory_used:bytes": (f"DCGM_FI_DEV_FB_USED * {_MIB}", "redline_gpu_memory_used_bytes"),
    "gpu:power:watts": ("DCGM_FI_DEV_POWER_USAGE", "redline_gpu_power_w"),
    "gpu:temperature:celsius": ("DCGM_FI_DEV_GPU_TEMP", "redline_gpu_temperature_c"),
    "gpu:sm_clock:mhz": ("DCGM_FI_DEV_SM_CLOCK", "redline_gpu_sm_clock_mhz"),
    # the card's own counters: NVML has them (GPM) from Hopper on
    "gpu:sm_active:ratio": ("DCGM_FI_PROF_SM_ACTIVE", "redline_gpu_sm_active_share"),
    "gpu:tensor_active:ratio": ("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", "redline_gpu_tensor_active_share"),
    "gpu:dram_active:ratio": ("DCGM_FI_PROF_DRAM_ACTIVE", "redline_gpu_dram_active_share"),
    "gpu:pcie_received:bytes_rate1m": ("rate(DCGM_FI_PROF_PCIE_RX_BYTES[1m])", "redline_gpu_pcie_rx_bytes_per_s"),
    "gpu:pcie_sent:bytes_rate1m": ("rate(DCGM_FI_PROF_PCIE_TX_BYTES[1m])", "redline_gpu_pcie_tx_bytes_per_s"),
    "gpu:ecc_uncorrected:total": ("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", "redline_gpu_ecc_uncorrected"),
}


def gpu_group() -> Group:
    records = [
        Record(name, f"max by ({GPU}) ({expr})", {"source": source})
        for name, pair in BOTH.items()
        for source, expr in zip(("dcgm", "nvml"), pair, strict=True)
    ]
    bits = " or ".join(f"max by ({GPU}) ({name})" for name in BITS)
    for bit, reason in REASONS.items():
        if bit & SLOWING:
            # PromQL has no bit operations
            dcgm = f"floor(({bits}) / {bit}) % 2"
            nvml = f'max by ({GPU}) (redline_gpu_clock_event{{reason="{reason}"}})'
            labels = {"reason": reason}
            records.append(Record("gpu:slowed:bool", dcgm, {**labels, "source": "dcgm"}))
            records.append(Record("gpu:slowed:bool", nvml, {**labels, "source": "nvml"}))
    return Group("gpu", tuple(records))
