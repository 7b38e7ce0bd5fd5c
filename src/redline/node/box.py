"""The whole box: everything of `facts`, and what hangs on which NUMA node, with PCIe, disks, network and containers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from redline.clock import wall_time
from redline.errors import UsageError
from redline.node.cgroup import group_limits
from redline.node.containers import container_facts
from redline.node.cpu import cpu_facts
from redline.node.disks import disk_facts
from redline.node.facts import asked, guarded, read_from
from redline.node.fake import FakeSys
from redline.node.gpu import gpu_facts
from redline.node.network import nic_facts
from redline.node.pci import PciDevice, pci_devices, relation
from redline.node.software import software_facts
from redline.node.sys import Sys, text
from redline.node.tree import Fact, is_skipped, skipped

ANSWERS = "/redline-answers.json"
"""In a copy of a box: what no file of the box tells, as `asked` found it there."""
_HOW = "redline node snapshot on the box itself keeps it"


def node_facts(sys: Sys, nvml_library: Any = None) -> Fact:
    """All facts of a box, live or copied, as JSON-like data. What it does not tell is `skipped`, with a reason."""
    answers = _answers(sys, nvml_library)
    root = root_of(sys)
    gpu = answers.get("gpu", {})
    devices = _with_indices(pci_devices(sys), gpu)
    placed = {
        "nodes": lambda: _nodes(sys, root, devices),
        "devices": lambda: [device.as_fact() | {"index": index} for device, index in devices],
        "nearest": lambda: _nearest(devices),
        "disks": lambda: disk_facts(sys),
        "nics": lambda: nic_facts(sys),
        "software": lambda: software_facts(sys, answers.get("wheels", {})),
        "containers": lambda: container_facts(sys, gpu.get("driver")),
        "cgroup": lambda: group_limits(root),
    }
    files = read_from(root, answers.get("architecture", ""))
    return {"taken_wall": wall_time(), **answers, **files, **guarded(placed)}


def opened(place: Path) -> FakeSys:
    """The box whose copy lies in the folder `place`. Raises UsageError."""
    if not (place / "proc").is_dir():
        why = "there is no proc in it" if place.is_dir() else ""
        raise UsageError(f"{place} is no copy of a box", why=why, fix="redline node snapshot makes one")
    return FakeSys(place)


def root_of(sys: Sys) -> Path:
    """The folder that stands for / of this box."""
    root = getattr(_innermost(sys), "root", Path("/"))
    return root if isinstance(root, Path) else Path("/")


def _innermost(sys: Sys) -> Sys:
    """Without what records or remembers."""
    while (inner := getattr(sys, "inner", None)) is not None:
        sys = inner
    return sys


def _answers(sys: Sys, nvml_library: Any) -> Fact:
    kept = text(sys, ANSWERS)
    if kept is not None and nvml_library is None:
        found: Fact = json.loads(kept)
        return found
    if _innermost(sys).kind == "live":
        return asked(root_of(sys), nvml_library)
    gpu = gpu_facts(nvml_library) if nvml_library is not None else skipped("this copy has no answers of NVML", _HOW)
    nothing = skipped("this copy does not hold it", _HOW)
    return {"gpu": gpu} | dict.fromkeys(("python", "packages", "torch_build", "redline", "limits"), nothing)


def _with_indices(devices: list[PciDevice], gpu: Fact) -> list[tuple[PciDevice, int | None]]:
    """GPUs with the number by which NVML, and so everybody, calls them."""
    listed = {card.get("pci_address"): card["index"] for card in gpu.get("devices", ())}
    cards = [device.address for device in devices if device.kind == "gpu"]
    by_address = dict(zip(cards, range(len(cards)), strict=True)) if is_skipped(gpu) else {}
    return [(device, listed.get(device.address, by_address.get(device.address))) for device in devices]


def _nodes(sys: Sys, root: Path, devices: list[tuple[PciDevice, int | None]]) -> list[Fact]:
    """Each node with its CPUs, memory, huge pages, and what hangs on it."""
    nodes = cpu_facts(root)["numa_nodes"]
    for node in nodes:
        number = node["node"]
        node["hugepages"] = _hugepages(sys, number)
        for kind in ("gpu", "nic", "nvme"):
            node[kind] = [
                called(device, index) for device, index in devices if (device.kind, device.node) == (kind, number)
            ]
    return list(nodes)


def _hugepages(sys: Sys, node: int) -> dict[str, Fact]:
    """Reserved and free pages of each size: /proc/meminfo only knows the default size, and no nodes."""
    folder = f"/sys/devices/system/node/node{node}/hugepages"
    found: dict[str, Fact] = {}
    for size in sys.names(folder):
        counts = {name: text(sys, f"{folder}/{size}/{name}_hugepages") for name in ("nr", "free", "surplus")}
        found[size.removeprefix("hugepages-")] = {name: int(value) for name, value in counts.items() if value}
    return found


def called(device: PciDevice, index: int | None = None) -> str:
    """The shortest name that people know it by."""
    if device.kind == "gpu" and index is not None:
        return f"GPU {index}"
    return "/".join(device.names) or device.address


def _nearest(devices: list[tuple[PciDevice, int | None]]) -> dict[str, Mapping[str, str]]:
    """Per GPU its relation to every network card and NVMe disk, the nearest first."""
    order = ("PIX", "PXB", "PHB", "NODE", "SYS", "?")
    others = [device for device, _ in devices if device.kind in ("nic", "nvme")]
    found: dict[str, Mapping[str, str]] = {}
    for card, index in devices:
        if card.kind == "gpu":
            pairs = [(relation(card, other), called(other)) for other in others]
            found[called(card, index)] = {
                name: how for how, name in sorted(pairs, key=lambda pair: order.index(pair[0]))
            }
    return found
