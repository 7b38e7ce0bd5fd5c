"""GPUs, network cards and NVMe disks as PCI sees them: NUMA node, local CPUs, link now and at best, the way there."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Literal

from redline.node.sys import Sys, text
from redline.node.tree import Fact

Kind = Literal["gpu", "nvswitch", "nic", "nvme"]
DEVICES = "/sys/bus/pci/devices"
NVIDIA, AMD = "0x10de", "0x1002"
_ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_GENERATIONS = {2.5: 1, 5.0: 2, 8.0: 3, 16.0: 4, 32.0: 5, 64.0: 6, 128.0: 7}
"""Transfers per second and lane, in GT/s, and the generation that has them."""


@dataclass(frozen=True)
class Link:
    """A PCIe link. `slot_*` is what the port above it can do at best: a card runs no faster than its slot."""

    generation: int | None = None
    width: int | None = None
    generation_max: int | None = None
    width_max: int | None = None
    slot_generation_max: int | None = None
    slot_width_max: int | None = None

    @property
    def narrow(self) -> bool:
        """Fewer lanes than the card has. Never a matter of idling, unlike the generation."""
        return bool(self.width and self.width_max and self.width < self.width_max)

    @property
    def slow_slot(self) -> bool:
        own, slot = self.generation_max, self.slot_generation_max
        return bool(own and slot and slot < own)


@dataclass(frozen=True)
class PciDevice:
    """`node` None: the firmware does not say (-1) and the box has several. `path`: addresses from the root port down.

    `names`: what the kernel calls it (`eth0`, `mlx5_0`, `nvme0`)."""

    address: str
    kind: Kind
    vendor: str
    names: tuple[str, ...]
    node: int | None
    local_cpus: str
    link: Link
    path: tuple[str, ...]
    root: str

    def as_fact(self) -> Fact:
        return asdict(self) | {"narrow": self.link.narrow, "slow_slot": self.link.slow_slot}


def pci_devices(sys: Sys) -> list[PciDevice]:
    """All GPUs, NVSwitches, network cards and NVMe disks, by address."""
    found = []
    for address in sys.names(DEVICES):
        kind = _kind(text(sys, f"{DEVICES}/{address}/class") or "", text(sys, f"{DEVICES}/{address}/vendor") or "")
        if kind is not None:
            found.append(_device(sys, address, kind))
    return found


def nodes_of(sys: Sys) -> list[int]:
    names = sys.names("/sys/devices/system/node")
    return sorted(int(name[4:]) for name in names if re.fullmatch(r"node\d+", name))


def node_of(sys: Sys, folder: str) -> int | None:
    """The node that a device's folder names. -1 means "not told", which leaves no doubt where there is one node."""
    told = text(sys, f"{folder}/numa_node")
    if told is not None and told.isdigit():
        return int(told)
    nodes = nodes_of(sys)
    return nodes[0] if len(nodes) == 1 else None


def addresses_in(path: str) -> tuple[str, ...]:
    """PCI addresses in a sysfs path, the nearest to the CPU first."""
    return tuple(part for part in path.split("/") if _ADDRESS.fullmatch(part))


def generation(speed: str | None) -> int | None:
    """`32.0 GT/s PCIe` as 5; None for `Unknown`."""
    number = re.match(r"([\d.]+) ?GT/s", speed or "")
    return _GENERATIONS.get(float(number[1])) if number else None


def _kind(code: str, vendor: str) -> Kind | None:
    number = int(code, 16) >> 8 if re.fullmatch(r"0x[0-9a-f]{6}", code) else 0
    if number == 0x0302 or (number in (0x0300, 0x0380, 0x1200) and vendor in (NVIDIA, AMD)):
        return "gpu"
    if number == 0x0680 and vendor == NVIDIA:
        return "nvswitch"
    if number == 0x0108:
        return "nvme"
    return "nic" if number >> 8 == 0x02 else None


def _device(sys: Sys, address: str, kind: Kind) -> PciDevice:
    folder = f"{DEVICES}/{address}"
    target = sys.link(folder) or ""
    path = addresses_in(target) or (address,)
    root = next((part for part in target.split("/") if part.startswith("pci")), "")
    return PciDevice(
        address=address,
        kind=kind,
        vendor=text(sys, f"{folder}/vendor") or "",
        names=_names(sys, folder, kind),
        node=node_of(sys, folder),
        local_cpus=text(sys, f"{folder}/local_cpulist") or "",
        link=_link(sys, folder, path),
        path=path,
        root=root,
    )


def _names(sys: Sys, folder: str, kind: Kind) -> tuple[str, ...]:
    if kind == "nvme":
        return tuple(sys.names(f"{folder}/nvme"))
    if kind != "nic":
        return ()
    virtio = [f"{folder}/{name}" for name in sys.names(folder) if name.startswith("virtio")]
    return tuple(
        name for place in (folder, *virtio) for part in ("net", "infiniband") for name in sys.names(f"{place}/{part}")
    )


def _link(sys: Sys, folder: str, path: tuple[str, ...]) -> Link:
    slot = f"{DEVICES}/{path[-2]}" if len(path) > 1 else ""
    return Link(
        generation=generation(text(sys, f"{folder}/current_link_speed")),
        width=_lanes(text(sys, f"{folder}/current_link_width")),
        generation_max=generation(text(sys, f"{folder}/max_link_speed")),
        width_max=_lanes(text(sys, f"{folder}/max_link_width")),
        slot_generation_max=generation(text(sys, f"{slot}/max_link_speed")) if slot else None,
        slot_width_max=_lanes(text(sys, f"{slot}/max_link_width")) if slot else None,
    )


def _lanes(width: str | None) -> int | None:
    """0 and 255 mean "no link" and "unknown"."""
    number = int(width) if width and width.isdigit() else 0
    return number if 0 < number <= 32 else None


def relation(one: PciDevice, other: PciDevice) -> str:
    """How far two devices are apart, in the words of `nvidia-smi topo`: PIX one switch, PXB several, PHB one root
    complex, NODE one NUMA node, SYS across nodes, `?` unknown."""
    shared = sum(1 for a, b in zip(one.path, other.path, strict=False) if a == b)
    if shared:
        hops = max(len(one.path), len(other.path)) - shared
        return "PIX" if hops <= 2 else "PXB"  # a switch is an upstream and a downstream port
    if one.root and one.root == other.root:
        return "PHB"
    if one.node is None or other.node is None:
        return "?"
    return "NODE" if one.node == other.node else "SYS"
