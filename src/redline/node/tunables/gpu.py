"""Rows about GPUs and their driver. redline reads them; GPU clocks, power and modes are a person's to set."""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence

from redline.node.daemons import runs
from redline.node.sys import Sys, SysFault, text
from redline.node.tunables.find import (
    PCI,
    gpus,
    here,
    kernel_log,
    of_gpus,
    of_smi,
    pci,
    rdma,
    smi,
    smi_field,
    word,
)
from redline.node.tunables.rows import advice, everywhere, kernel_doc, only_for, want
from redline.node.tunables.tunable import Fit, Place, Reader, Reason, Source, Tunable, Want

_SMI_DOC = Source("vendor", "nvidia-smi(1), driver 595", "2026-08")
_DCGM = Source("tool", "DCGM 4.6.0 diagnostics", "2026-08")
_MATRIX = Source("vendor", "NVIDIA data-center driver matrix (r615)", "2026-11")
_NO_SMI = "nvidia-smi finds no GPU here"
BRANCHES = {"580": "2028-06", "595": "2027-03", "615": "2027-08", "620": "2027-11"}
"""Driver branches under support at the date of `_MATRIX`. R535 ended 2026-06, R610 2026-08."""


def _field(name: str) -> Reader:
    return lambda sys, place: smi_field(sys, place, name)


def _has(name: str) -> Reason:
    """Reason for GPUs that do not tell this field."""

    def reason(sys: Sys, place: Place) -> str:
        value = smi_field(sys, place, name)
        return "this GPU does not have it" if not value or value.startswith(("[", "n/a")) else ""

    return reason


def _field_of(name: str) -> Fit:
    def fit(sys: Sys, place: Place, wanted: Want) -> Want:
        return want(wanted.op, smi_field(sys, place, name))

    return fit


def _slowed_by(sys: Sys, place: Place) -> str:
    found = smi(sys, "reasons").get(place.name.removeprefix("GPU "), {})
    if not found:
        raise SysFault("unsupported", "nvidia-smi", errno.ENOTSUP, "this driver does not tell why clocks are low")
    active = [name.rpartition(".")[2] for name, value in found.items() if value == "active"]
    return " ".join(active) or "none"


def _rows(sys: Sys, place: Place) -> str:
    found = smi(sys, "rows").get(place.name.removeprefix("GPU "), {})
    bad = [name.rpartition(".")[2] for name, value in found.items() if value not in ("no", "0") and value[:1] != "["]
    return " ".join(bad) or "none"


def _link_gen(sys: Sys, place: Place) -> str:
    """The link's generation under load; an idle link drops it, so then nobody knows."""
    now, most = (smi_field(sys, place, f"pcie.link.gen.gpu{which}") for which in ("current", "max"))
    state = smi_field(sys, place, "pstate")
    if now != most and state not in ("p0", "p1", "p2"):
        raise SysFault(
            "unsupported", "nvidia-smi", errno.ENOTSUP, f"generation {now}: an idle link is slow, ask under load"
        )
    return now


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


def _nvlink_places(sys: Sys) -> Sequence[Place]:
    return here("all GPUs")(sys) if "Link 0" in sys.run(["nvidia-smi", "nvlink", "-s"], timeout_s=60).out else []


def _dead_links(sys: Sys, _place: Place) -> str:
    return str(sys.run(["nvidia-smi", "nvlink", "-s"], timeout_s=60).out.lower().count("inactive"))


def _xids(sys: Sys, _place: Place) -> str:
    return str(kernel_log(sys).count("NVRM: Xid"))


def _smi_row(
    id_: str, title: str, field: str, value: str, effect: str, how: str, severity: str, *sources: Source
) -> Tunable:
    return advice(
        id_,
        title,
        everywhere("equals", value),
        *(sources or (_SMI_DOC,)),
        group="gpu",
        scope="device",
        places=of_smi(),
        read=_field(field),
        applies=_has(field),
        absent=_NO_SMI,
        advice=how,
        severity=severity,
        effect=effect,
    )


GPU: tuple[Tunable, ...] = (
    _smi_row(
        "gpu.persistence",
        "driver stays loaded without clients",
        "persistence_mode",
        "enabled",
        "Without it the first client of an idle GPU waits seconds and clocks start over.",
        "enable nvidia-persistenced.service; nvidia-smi -pm 1 is on its way out",
        "medium",
    ),
    _smi_row(
        "gpu.ecc",
        "memory error correction",
        "ecc.mode.current",
        "enabled",
        "Off, a flipped bit is a wrong token that nobody sees; costs about 6 % of memory on GDDR, nothing on HBM.",
        "nvidia-smi -e 1, then reset the GPU",
        "medium",
        _SMI_DOC,
        _DCGM,
    ),
    advice(
        "gpu.mig",
        "GPU cut into instances (MIG)",
        only_for("latency", "throughput", op="equals", values=("disabled",)),
        _SMI_DOC,
        group="gpu",
        scope="device",
        places=of_smi(),
        read=_field("mig.mode.current"),
        applies=_has("mig.mode.current"),
        absent=_NO_SMI,
        advice="nvidia-smi -mig 0, once no instance is in use",
        severity="medium",
        effect="With MIG on and no instance made an engine finds no GPU; instances have no NVLink.",
    ),
    advice(
        "gpu.compute_mode",
        "who may use the GPU",
        everywhere("one of", "default", "exclusive_process"),
        _SMI_DOC,
        group="gpu",
        scope="device",
        places=of_smi(),
        read=_field("compute_mode"),
        applies=_has("compute_mode"),
        absent=_NO_SMI,
        advice="nvidia-smi -c DEFAULT",
        severity="high",
        effect="prohibited refuses every engine.",
    ),
    advice(
        "gpu.power_limit",
        "power limit, W",
        everywhere("at least", 0),
        _SMI_DOC,
        group="gpu",
        scope="device",
        places=of_smi(),
        read=_field("power.limit"),
        fit=_field_of("power.default_limit"),
        applies=_has("power.limit"),
        absent=_NO_SMI,
        advice="nvidia-smi -pl <default>, unless the rack asks for less",
        severity="medium",
        effect="Below the default, prefill slows down long before decode does.",
        signal="gpu_power_w",
    ),
    advice(
        "gpu.slowdown",
        "why clocks are low now",
        everywhere("equals", "none"),
        _SMI_DOC,
        _DCGM,
        group="gpu",
        scope="device",
        places=of_smi(),
        read=_slowed_by,
        absent=_NO_SMI,
        advice="look at cooling, at the power supplies and at the cables",
        severity="high",
        effect="A GPU that is too hot or short of power runs at a fraction; one slow GPU slows all of its group.",
        signal="gpu_clock_mhz",
    ),
    advice(
        "gpu.remapped_rows",
        "memory rows that wait for a reset or could not be replaced",
        everywhere("equals", "none"),
        _SMI_DOC,
        _DCGM,
        group="gpu",
        scope="device",
        places=of_smi("rows"),
        read=_rows,
        absent="this GPU does not remap rows",
        advice="pending: drain and reset the GPU; failure: have it replaced",
        severity="high",
        effect="The next error in such a row ends every process on the GPU.",
    ),
    advice(
        "gpu.pcie_width",
        "lanes of the GPU's link",
        everywhere("at least", 0),
        _SMI_DOC,
        _DCGM,
        group="gpu",
        scope="device",
        places=of_smi(),
        read=_field("pcie.link.width.current"),
        fit=_field_of("pcie.link.width.max"),
        applies=_has("pcie.link.width.current"),
        absent=_NO_SMI,
        advice="reseat the card or the riser; look for bifurcation in the firmware",
        severity="high",
        effect="Half the lanes, half the rate of weight loading, KV offload and, without NVLink, of all-reduce.",
        signal="pcie_gb_s",
    ),
    advice(
        "gpu.pcie_generation",
        "generation of the GPU's link under load",
        everywhere("at least", 0),
        _SMI_DOC,
        _DCGM,
        group="gpu",
        scope="device",
        places=of_smi(),
        read=_link_gen,
        fit=_field_of("pcie.link.gen.gpumax"),
        applies=_has("pcie.link.gen.gpucurrent"),
        absent=_NO_SMI,
        advice="firmware: link speed auto; check risers and retimers",
        severity="high",
        effect="Each generation less halves what the link carries.",
        signal="pcie_gb_s",
    ),
    advice(
        "gpu.nvlink",
        "NVLinks that are down",
        everywhere("at most", 0),
        _SMI_DOC,
        _DCGM,
        group="gpu",
        places=_nvlink_places,
        read=_dead_links,
        absent="no NVLink",
        advice="reset the GPUs; then look at fabric manager's log and at the bridge",
        severity="high",
        effect="All-reduce runs over what is left, or over PCIe.",
        signal="nvlink_gb_s",
    ),
    advice(
        "gpu.xid",
        "XID errors in the kernel's log",
        everywhere("at most", 0),
        Source("vendor", "NVIDIA XID errors, r595", "2026-08"),
        group="gpu",
        places=_driver_places,
        read=_xids,
        absent="no NVIDIA driver is loaded",
        advice="dmesg | grep Xid, then NVIDIA's list: some end with a reset, some with a new card",
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
        Source("vendor", "NVIDIA driver installation guide r620: open modules from Turing on", "2026-10"),
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
        Source("vendor", "NVIDIA driver installation guide", "2026-10"),
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
        Source("vendor", "NVIDIA Container Toolkit 1.20.0", "2026-10"),
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
