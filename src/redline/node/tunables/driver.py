"""Rows about the GPU driver: its branch, its modules, and what stands beside it."""

from __future__ import annotations

import re

from redline.node.daemons import runs
from redline.node.sys import Sys, text
from redline.node.tunables.find import PCI, gpus, kernel_log, of_gpus, pci, rdma, word
from redline.node.tunables.rows import advice, everywhere, kernel_doc
from redline.node.tunables.tunable import Place, Reader, Source, Tunable

_MATRIX = Source("vendor", "NVIDIA data-center driver matrix (r615)", "2026-11")
BRANCHES = ("580", "595", "615", "620")
"""Driver branches under support at the date of `_MATRIX`: R580 until 2028-06, R595 until 2027-03. R535 ended 2026-06,
R610 2026-08."""
_HARDWARE_XIDS = frozenset({48, 63, 64, 74, 79, 92, 94, 95, 119, 120, 140})


def _driver_text(sys: Sys) -> str:
    return text(sys, "/proc/driver/nvidia/version") or ""


def _driver_places(sys: Sys) -> list[Place]:
    return [Place("/proc/driver/nvidia/version")] if _driver_text(sys) else []


def _branch(sys: Sys, _place: Place) -> str:
    match = re.search(r"\b(\d{3})\.\d+", _driver_text(sys))
    return match.group(1) if match else ""


def _flavour(sys: Sys, _place: Place) -> str:
    return "open" if "Open Kernel Module" in _driver_text(sys) else "closed"


def _has_driver(sys: Sys) -> list[Place]:
    return [Place("/sys/module/nvidia")] if gpus(sys) else []


def _module(name: str) -> Reader:
    return lambda sys, _place: "loaded" if sys.exists(f"/sys/module/{name}") else "absent"


def _has_switch(sys: Sys) -> list[Place]:
    """NVSwitch: a PCI bridge of NVIDIA's, class 0680."""
    return [Place("/proc/driver/nvidia-nvswitch")] if pci(sys, "0x0680", vendor="0x10de") else []


def _fabric(sys: Sys, _place: Place) -> str:
    return "runs" if runs(sys, "nvidia-fabricmanager") else "stopped"


def _cdi_places(sys: Sys) -> list[Place]:
    runtimes = ("/usr/bin/docker", "/usr/bin/containerd", "/usr/bin/podman", "/usr/bin/crio")
    return [Place("/etc/cdi")] if gpus(sys) and any(sys.exists(path) for path in runtimes) else []


def _cdi(sys: Sys, _place: Place) -> str:
    found = [name for folder in ("/etc/cdi", "/var/run/cdi", "/run/cdi") for name in sys.names(folder)]
    return "described" if any("nvidia" in name for name in found) else "missing"


def _xids(sys: Sys, _place: Place) -> str:
    """Those that speak of hardware; 13, 31, 43 and 45 are most often a program's own fault."""
    found = re.findall(r"NVRM: Xid \([^)]*\): (\d+)", kernel_log(sys))
    return str(sum(int(number) in _HARDWARE_XIDS for number in found))


DRIVER: tuple[Tunable, ...] = (
    advice(
        "gpu.xid",
        "XID errors of hardware in the kernel's log",
        everywhere("at most", 0),
        Source("vendor", "NVIDIA XID catalog; Health Validation, XID checks", "2026-11"),
        group="gpu",
        places=_driver_places,
        read=_xids,
        absent="no NVIDIA driver is loaded",
        advice="dmesg | grep Xid, then NVIDIA's catalog: some end with a reset, some with a new card",
        severity="high",
        effect="A GPU that has reported errors may have been running degraded since.",
    ),
    advice(
        "gpu.driver_branch",
        "driver branch under support",
        everywhere("one of", *BRANCHES),
        _MATRIX,
        group="gpu",
        places=_driver_places,
        read=_branch,
        absent="no NVIDIA driver is loaded",
        advice="580 is supported until 2028-06",
        severity="medium",
        effect="Branches past their end get no fixes; new CUDA versions need newer ones.",
    ),
    advice(
        "gpu.driver_flavour",
        "kernel modules of the driver",
        everywhere("equals", "open"),
        Source("vendor", "NVIDIA driver installation guide r620: open modules from Turing on", "2026-11"),
        group="gpu",
        places=_driver_places,
        read=_flavour,
        absent="no NVIDIA driver is loaded",
        advice="install nvidia-open instead of cuda-drivers",
        severity="low",
        effect="GPUDirect by dma-buf, Grace and Blackwell need the open modules.",
    ),
    advice(
        "gpu.nouveau",
        "nouveau driver",
        everywhere("equals", "absent"),
        Source("vendor", "NVIDIA driver installation guide", "2026-11"),
        group="gpu",
        places=_has_driver,
        read=_module("nouveau"),
        absent="no GPU on a PCI bus here",
        advice="blacklist nouveau in /etc/modprobe.d and rebuild the initramfs",
        needs_reboot=True,
        severity="high",
        effect="It takes the GPU before NVIDIA's driver can.",
    ),
    advice(
        "gpu.fabric_manager",
        "fabric manager on NVSwitch boxes",
        everywhere("equals", "runs"),
        Source("vendor", "NVIDIA Fabric Manager user guide", "2026-08"),
        group="gpu",
        places=_has_switch,
        read=_fabric,
        absent="no NVSwitch",
        advice="install nvidia-fabricmanager in exactly the driver's version and enable it",
        severity="high",
        effect="Without it CUDA does not start on HGX boxes (error 802).",
    ),
    advice(
        "gpu.peermem",
        "module for RDMA to GPU memory",
        everywhere("equals", "loaded"),
        Source("vendor", "NVIDIA GPUDirect RDMA documentation", "2026-08"),
        group="gpu",
        places=lambda sys: [Place("/sys/module/nvidia_peermem")] if gpus(sys) and rdma(sys) else [],
        read=_module("nvidia_peermem"),
        effective=lambda sys, place: (
            "the open modules give GPU memory to RDMA by dma-buf" if _flavour(sys, place) == "open" else ""
        ),
        absent="no GPU beside an RDMA card",
        advice="modprobe nvidia_peermem, and a line in /etc/modules-load.d",
        severity="medium",
        effect="Otherwise KV transfer and NCCL between hosts go through host memory.",
        signal="rdma_gb_s",
    ),
    advice(
        "gpu.cdi",
        "GPUs described for containers (CDI)",
        everywhere("equals", "described"),
        Source("vendor", "NVIDIA Container Toolkit 1.20.0", "2026-11"),
        group="gpu",
        places=_cdi_places,
        read=_cdi,
        absent="no container runtime beside a GPU",
        advice="nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml, or enable nvidia-cdi-refresh.path",
        severity="low",
        effect="Containers keep their GPUs over systemctl daemon-reload, which the older hook does not promise.",
    ),
    Tunable(
        id="gpu.runtime_pm",
        title="GPU may be switched off when idle",
        group="gpu",
        scope="device",
        places=of_gpus("power/control"),
        read=word,
        wants=everywhere("equals", "on"),
        effective=lambda sys, place: (
            "the driver does not support it for this GPU"
            if text(sys, f"{PCI}/{place.name}/power/runtime_status") == "unsupported"
            else ""
        ),
        absent="no GPU on a PCI bus here",
        persist="udev",
        persist_key="power/control",
        risk=1,
        severity="info",
        effect="auto lets a workstation's card sleep; the next request waits until it is back.",
        sources=(kernel_doc("power/runtime_pm.rst"),),
    ),
)
