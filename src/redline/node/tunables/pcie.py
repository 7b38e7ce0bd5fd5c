"""Rows about PCI Express: what stands between GPUs, cards and memory."""

from __future__ import annotations

import posixpath
import re
import struct

from redline.node.sys import Sys, SysFault, text
from redline.node.tunables.find import PCI, bracketed, gpus, pci, word
from redline.node.tunables.rows import GRACE, advice, everywhere, kernel_doc, want
from redline.node.tunables.tunable import Fit, Place, Source, Tunable, Want
from redline.node.writable import is_virtual

_ACS_CAPABILITY = 0x000D
_REDIRECT = 0b1_1100
"""ACS control: request redirect (bit 2), completion redirect (3), upstream forwarding (4)."""
_EXPRESS_CAPABILITY, _DOWNSTREAM_PORT = 0x10, 6
_NCCL = Source("vendor", "NCCL troubleshooting: PCI access control services", "2026-11")


def _acs_control(config: bytes) -> int | None:
    """The ACS control word of a function's configuration space; None without that capability."""
    at = 0x100
    for _ in range(64):
        if at + 8 > len(config) or at < 0x100:
            return None
        (header,) = struct.unpack_from("<I", config, at)
        if header & 0xFFFF == _ACS_CAPABILITY:
            (control,) = struct.unpack_from("<H", config, at + 6)
            return int(control)
        at = header >> 20
    return None


def _port_type(config: bytes) -> int | None:
    """What kind of port a function is; None when its PCI Express capability cannot be read."""
    at = config[0x34] if len(config) > 0x34 else 0
    for _ in range(48):
        if at < 0x40 or at + 4 > len(config):
            return None
        if config[at] == _EXPRESS_CAPABILITY:
            return config[at + 2] >> 4
        at = config[at + 1]
    return None


def _above_gpus(sys: Sys) -> set[str]:
    """Addresses of the bridges above GPUs, from where their links lead; empty when nothing tells."""
    return {part for folder in gpus(sys) for part in (sys.link(folder) or "").split("/")[:-1] if part.count(":") == 2}


def _ports(sys: Sys) -> list[Place]:
    """Downstream ports of PCI Express switches above GPUs, once two GPUs could talk below one. Root ports are left out:
    traffic between two of them goes through the root anyway."""
    above = _above_gpus(sys)
    found = []
    for folder in pci(sys, "0x0604") if len(gpus(sys)) > 1 else []:
        address = posixpath.basename(folder)
        try:
            kind = _port_type(sys.read(f"{folder}/config"))
        except SysFault:
            kind = None
        if kind in (_DOWNSTREAM_PORT, None) and (not above or address in above):
            found.append(Place(f"{folder}/config", address))
    return found


def _redirects(sys: Sys, place: Place) -> str:
    config = sys.read(place.path)
    if len(config) <= 64:
        raise SysFault("denied", place.path, 0, "only root may read more than 64 bytes of it")
    return "on" if (_acs_control(config) or 0) & _REDIRECT else "off"


def _in_guest(sys: Sys, _place: Place) -> str:
    return "a virtual machine needs it for isolation, and cannot set it" if is_virtual(sys) else ""


def _groups(sys: Sys) -> list[Place]:
    return [
        Place(f"{folder}/iommu_group/type", posixpath.basename(folder))
        for folder in gpus(sys)
        if sys.exists(f"{folder}/iommu_group/type")
    ]


def _aspm_in_use(sys: Sys, _place: Place) -> str:
    switches = sys.glob(f"{PCI}/*/link/l[01]*_aspm")
    if switches and all(text(sys, path) == "0" for path in switches):
        return "no link here saves power"
    return "no link here can save power" if not switches else ""


def _links(sys: Sys) -> list[Place]:
    """Network cards and NVMe drives; GPUs have a row of their own."""
    return [
        Place(f"{folder}/current_link_width", posixpath.basename(folder))
        for folder in pci(sys, "0x0200", "0x0207", "0x0108")
        if sys.exists(f"{folder}/current_link_width")
    ]


def _beside(name: str) -> Fit:
    def fit(sys: Sys, place: Place, wanted: Want) -> Want | None:
        most = text(sys, posixpath.join(posixpath.dirname(place.path), name))
        return want(wanted.op, _gigatransfers(most)) if most and most not in ("0", "255") else None

    return fit


def _gigatransfers(value: str) -> str:
    """`32.0 GT/s PCIe` as `32.0`."""
    return value.split()[0]


def _speed(sys: Sys, place: Place) -> str:
    return _gigatransfers(word(sys, place))


def _speeds(sys: Sys) -> list[Place]:
    return [Place(place.path.replace("_width", "_speed"), place.name) for place in _links(sys)]


def _serious(sys: Sys, place: Place) -> str:
    """Errors that were not corrected, since boot."""
    folder = posixpath.dirname(place.path)
    total = 0
    for name in ("aer_dev_fatal", "aer_dev_nonfatal"):
        match = re.search(r"TOTAL_ERR\w*\s+(\d+)", text(sys, f"{folder}/{name}") or "")
        total += int(match.group(1)) if match else 0
    return str(total)


def _corrected(sys: Sys, place: Place) -> str:
    match = re.search(r"TOTAL_ERR\w*\s+(\d+)", sys.read(place.path).decode(errors="replace"))
    return match.group(1) if match else ""


def _with_errors(sys: Sys) -> list[Place]:
    found = pci(sys, "0x0300", "0x0302", "0x0200", "0x0207", "0x0108")
    return [
        Place(f"{folder}/aer_dev_correctable", posixpath.basename(folder))
        for folder in found
        if sys.exists(f"{folder}/aer_dev_correctable")
    ]


_AER = kernel_doc("ABI/testing/sysfs-bus-pci-devices-aer_stats")

PCIE: tuple[Tunable, ...] = (
    advice(
        "pcie.acs",
        "switches send GPU to GPU traffic up to the root (ACS)",
        everywhere("equals", "off"),
        _NCCL,
        Source("tool", "GPUd components/pci: judged on bare metal only", "2026-08"),
        group="pcie",
        scope="device",
        places=_ports,
        read=_redirects,
        applies=_in_guest,
        absent="no two GPUs behind a PCI Express switch",
        advice="switch ACS off in the firmware, or with setpci at every boot (single tenant only)",
        severity="high",
        effect="Peer-to-peer copies cross the CPU's root complex: a fraction of the rate, or hangs.",
        signal="p2p_gb_s",
    ),
    advice(
        "pcie.iommu",
        "IOMMU translates the GPU's addresses",
        everywhere("equals", "pt"),
        Source("vendor", "NVIDIA NIM docs: iommu=pt", "2026-11"),
        GRACE,
        group="pcie",
        scope="device",
        places=_groups,
        read=lambda sys, place: "pt" if word(sys, place) == "identity" else "translated",
        applies=_in_guest,
        absent="no IOMMU, or no GPU on a PCI bus here",
        advice="boot with iommu=pt",
        persist="cmdline",
        persist_key="iommu",
        needs_reboot=True,
        risk=3,
        severity="medium",
        effect="Each DMA is looked up in a table; peer-to-peer may go through the root complex.",
        signal="p2p_gb_s",
    ),
    Tunable(
        id="pcie.aspm",
        title="power saving of links",
        group="pcie",
        scope="host",
        places=lambda sys: [Place(path)] if sys.exists(path := "/sys/module/pcie_aspm/parameters/policy") else [],
        read=bracketed,
        wants={
            "latency": want("equals", "performance"),
            "throughput": want("one of", "default", "performance"),
            "shared": want("one of", "default", "performance"),
            "vm": None,
        },
        effective=_aspm_in_use,
        absent="this kernel does not manage it",
        persist="cmdline",
        persist_key="pcie_aspm.policy",
        risk=1,
        severity="low",
        effect="A link that sleeps takes up to tens of us to wake.",
        signal="pcie_replays",
        sources=(kernel_doc("admin-guide/kernel-parameters.txt: pcie_aspm.policy"),),
    ),
    advice(
        "pcie.width",
        "lanes of network cards and NVMe drives",
        everywhere("at least", 0),
        kernel_doc("ABI/testing/sysfs-bus-pci: current_link_width"),
        group="pcie",
        scope="device",
        places=_links,
        read=word,
        fit=_beside("max_link_width"),
        absent="no card or drive that tells its link",
        advice="move it to a wider slot or reseat it",
        severity="medium",
        effect="Half the lanes, half the rate of model loading or KV transfer.",
        signal="load_s",
    ),
    advice(
        "pcie.speed",
        "link speed of network cards and NVMe drives, GT/s",
        everywhere("at least", 0),
        kernel_doc("ABI/testing/sysfs-bus-pci: current_link_speed"),
        group="pcie",
        scope="device",
        places=_speeds,
        read=_speed,
        fit=_beside("max_link_speed"),
        absent="no card or drive that tells its link",
        advice="firmware: link speed auto; an older slot is a limit",
        severity="low",
        effect="Each generation less halves what the link carries.",
        signal="load_s",
    ),
    advice(
        "pcie.errors",
        "uncorrected link errors since boot",
        everywhere("at most", 0),
        _AER,
        group="pcie",
        scope="device",
        places=_with_errors,
        read=_serious,
        absent="no device reports errors here",
        advice="reseat the card, change the riser or the cable",
        severity="high",
        effect="Resets of the link under load: engines die with CUDA errors.",
    ),
    advice(
        "pcie.corrected_errors",
        "corrected link errors since boot",
        everywhere("at most", 1000),
        _AER,
        group="pcie",
        scope="device",
        places=_with_errors,
        read=_corrected,
        absent="no device reports errors here",
        advice="watch whether it grows; reseat the card if it does",
        severity="low",
        effect="Each is a packet sent twice; a growing count comes before a link that falls back.",
        signal="pcie_replays",
    ),
)
