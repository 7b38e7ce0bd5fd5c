"""What a Prometheus reads, as text: whom to scrape, what to compute ahead, what to ring for; and DCGM's list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from redline.observe.rules.alerts import all_groups
from redline.observe.rules.cases import engine_and_box_tests, slo_tests
from redline.spec.slo import SloSpec

HEAD = "# Written by redline: change the experiment or the flags and write it again.\n"
TARGETS: dict[str, tuple[str, ...]] = {
    "engine": ("127.0.0.1:8000",),
    "redline": ("127.0.0.1:9410",),
    "node": ("127.0.0.1:9100",),
    "dcgm": ("127.0.0.1:9400",),
}
"""By job, where each listens when it is started on this box by hand."""

COUNTERS = {
    "DCGM_FI_DEV_GPU_UTIL": ("gauge", "Share of time in which a kernel was resident (%)"),
    "DCGM_FI_DEV_MEM_COPY_UTIL": ("gauge", "Share of time in which memory was read or written (%)"),
    "DCGM_FI_DEV_FB_USED": ("gauge", "Device memory in use (MiB)"),
    "DCGM_FI_DEV_FB_FREE": ("gauge", "Device memory free (MiB)"),
    "DCGM_FI_DEV_SM_CLOCK": ("gauge", "SM clock (MHz)"),
    "DCGM_FI_DEV_MEM_CLOCK": ("gauge", "Memory clock (MHz)"),
    "DCGM_FI_DEV_POWER_USAGE": ("gauge", "Power (W)"),
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": ("counter", "Energy since the driver was loaded (mJ)"),
    "DCGM_FI_DEV_GPU_TEMP": ("gauge", "Temperature (C)"),
    "DCGM_FI_DEV_MEMORY_TEMP": ("gauge", "Temperature of the memory (C)"),
    "DCGM_FI_DEV_CLOCKS_EVENT_REASONS": ("gauge", "Why the clock is where it is (bits)"),
    "DCGM_FI_DEV_XID_ERRORS": ("gauge", "The last Xid for ever: for the eye and not for alerts"),
    "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL": ("counter", "Uncorrectable ECC errors since the driver was loaded"),
    "DCGM_FI_DEV_PCIE_REPLAY_COUNTER": ("counter", "PCIe retries"),
    "DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL": ("counter", "NVLink traffic over all lanes"),
    "DCGM_FI_PROF_SM_ACTIVE": ("gauge", "Share of cycles in which an SM had a warp"),
    "DCGM_FI_PROF_SM_OCCUPANCY": ("gauge", "Share of the warps that would fit"),
    "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE": ("gauge", "Share of cycles of the tensor cores"),
    "DCGM_FI_PROF_DRAM_ACTIVE": ("gauge", "Share of cycles in which device memory moved data"),
    "DCGM_FI_PROF_PCIE_TX_BYTES": ("counter", "Bytes sent over PCIe"),
    "DCGM_FI_PROF_PCIE_RX_BYTES": ("counter", "Bytes received over PCIe"),
}
"""DCGM's own default list leaves most of these out. Fields that a card does not have are skipped by the exporter."""


def prometheus_yml(targets: Mapping[str, Sequence[str]], every: str = "5s", alertmanagers: Sequence[str] = ()) -> str:
    """`targets` by job; jobs without one are left out."""
    jobs: list[dict[str, Any]] = [
        {"job_name": job, "static_configs": [{"targets": list(hosts)}]} for job, hosts in targets.items() if hosts
    ]
    document: dict[str, Any] = {
        "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": "15s"},
        "rule_files": ["rules/*.yml"],
        "scrape_configs": jobs,
    }
    if alertmanagers:
        document["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": list(alertmanagers)}]}]}
    return to_yaml(document)


def rule_files(slo: SloSpec, *, success: float = 0.99, hung_after: str = "60s") -> dict[str, str]:
    """Names and contents of the files in `rules/`, and of their unit tests in `tests/`."""
    groups = all_groups(slo, success=success, hung_after=hung_after)
    files = {
        f"rules/{name}.yml": to_yaml({"groups": [group.as_dict() for group in found]}) for name, found in groups.items()
    }
    plain = engine_and_box_tests(hung_after, ["../rules/recording.yml", "../rules/alerts.yml"])
    burning = slo_tests(slo, success, ["../rules/slo.yml"])
    return {**files, "tests/alerts.yml": to_yaml(plain), "tests/slo.yml": to_yaml(burning)}


def dcgm_counters() -> str:
    lines = [f"{name}, {kind}, {text}" for name, (kind, text) in COUNTERS.items()]
    return HEAD + "# DCGM field, Prometheus type, help\n" + "\n".join(lines) + "\n"


class _Whole(yaml.SafeDumper):
    """What stands twice is written twice, without anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def to_yaml(document: Any, head: str = HEAD) -> str:
    return head + yaml.dump(document, Dumper=_Whole, sort_keys=False, width=1000, allow_unicode=True)
