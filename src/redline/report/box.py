"""The facts of a box as one screen of text: a line per subject, a table per kind of device, and what is missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Part:
    """`lines` are (name, text); a table has a heading in `columns`. `bad`: (row, column) of cells that are no good."""

    title: str
    lines: tuple[tuple[str, str], ...] = ()
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    bad: frozenset[tuple[int, int]] = frozenset()


def box_parts(facts: Facts) -> list[Part]:
    """Everything of `node.box.node_facts` that a person wants to see at once."""
    parts = [_box(facts), _nodes(facts), _gpus(facts), _nics(facts), _disks(facts), _software(facts), _missing(facts)]
    return [part for part in parts if part.lines or part.rows]


def size(count: float | None) -> str:
    """Bytes in decimal units."""
    if count is None:
        return "?"
    for unit, digits in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= digits:
            return f"{count / digits:.3g} {unit}"
    return f"{count / 1e3:.3g} kB"


def _box(facts: Facts) -> Part:
    cpu, kernel, virtual = facts["cpu"], facts["kernel"], facts["virtualisation"]
    where = [virtual.get("hypervisor") or "bare metal", virtual.get("container") and f"in {virtual['container']}"]
    lines = [
        ("box", _join(facts.get("box_hash"), kernel.get("distribution"), f"kernel {kernel.get('release')}", *where)),
        ("CPU", _join(f"{cpu.get('sockets')} × {cpu.get('model')}", _cores(cpu), _clock(cpu["frequency"]))),
        ("memory", _memory(facts["memory"])),
        ("limits", _limits(facts)),
        ("boot", str(kernel.get("cmdline", ""))),
    ]
    return Part("", tuple((name, text) for name, text in lines if text))


def _cores(cpu: Facts) -> str:
    usable = cpu.get("usable_cores")
    less = f", {usable:g} usable" if usable and usable < cpu.get("threads", 0) else ""
    return f"{cpu.get('cores')} cores, {cpu.get('threads')} threads (SMT {cpu.get('smt')}){less}"


def _clock(frequency: Facts) -> str:
    if "skipped" in frequency:
        return ""
    preference = frequency.get("energy_preference")
    energy = f", EPP {preference}" if isinstance(preference, str) else ""
    return f"{frequency.get('driver')}: {frequency.get('governor')}{energy}"


def _memory(memory: Facts) -> str:
    huge = memory.get("transparent_hugepages", {})
    swap = memory.get("swap_total_bytes") or 0
    return _join(
        f"{size(memory.get('total_bytes'))}, {size(memory.get('usable_bytes'))} free for a new process",
        f"swap {size(swap)} (swappiness {memory.get('swappiness')})" if swap else "no swap",
        f"THP {huge.get('enabled')}, defrag {huge.get('defrag')}" if "enabled" in huge else "",
        f"NUMA balancing {memory.get('numa_balancing')}",
    )


def _limits(facts: Facts) -> str:
    group = ", ".join(f"{name} {value}" for name, value in _mapping(facts.get("cgroup")).items())
    limits = _mapping(facts.get("limits"))
    own = [f"{name.replace('_', ' ')} {value[0]}" for name, value in limits.items() if isinstance(value, list)]
    return _join(f"control group: {group}" if group else "control group: none", *own)


def _nodes(facts: Facts) -> Part:
    rows = []
    for node in _listed(facts.get("nodes")):
        pages = [
            f"{pages.get('nr')}×{_page(name)} ({pages.get('free')} free)"
            for name, pages in node["hugepages"].items()
            if pages.get("nr")
        ]
        devices = [", ".join(node[kind]) for kind in ("gpu", "nic", "nvme") if node[kind]]
        memory = size(node["memory_bytes"])
        rows.append(
            (str(node["node"]), node["cpus"], memory, node["distance"], ", ".join(pages) or "none", " · ".join(devices))
        )
    lost = [device for device in _listed(facts.get("devices")) if device["node"] is None]
    if lost:
        names = ", ".join(device["address"] for device in lost)
        rows.append(("?", "", "", "", "", f"{names}: numa_node is -1"))
    return Part("NUMA nodes", (), ("node", "CPUs", "memory", "distances", "huge pages", "devices"), tuple(rows))


def _page(name: str) -> str:
    kilobytes = int(name.removesuffix("kB"))
    return f"{kilobytes >> 20} GB" if kilobytes >= 1 << 20 else f"{kilobytes >> 10} MB"


def _gpus(facts: Facts) -> Part:
    by_address = {device["address"]: device for device in _listed(facts.get("devices"))}
    rows, bad = [], set()
    for place, card in enumerate(facts["gpu"].get("devices", ())):
        device = by_address.get(card.get("pci_address"), {})
        link, reasons = card["pcie"], card["clock_event_reasons"]
        faults = _faults(card)
        used = f"{size(card['memory_used_bytes'])} of {size(card['memory_bytes'])}"
        watts = f"{_known(card['power']['now_w'])} of {_known(card['power']['limit_w'])}"
        now = f"{link['generation']}×{link['width']}"
        best = f"{link.get('generation_device_max') or link['generation_max']}×{link['width_max']}"
        rows.append(
            (
                str(card["index"]), str(card["name"]), _known(device.get("node")), f"{now} of {best}",
                used, _on(card["ecc"]), _mig(card),
                f"{card['nvlinks']}" if card["nvlinks"] else "none", _on(card["persistence"]),
                f"{card['clocks_mhz']['sm']} of {card['clocks_mhz']['sm_max']}", ", ".join(reasons) or "none",
                watts, _known(card["temperature_c"]),
                faults or "none",
            )
        )  # fmt: skip
        bad |= {(place, 3)} if link["width"] and link["width"] < (link["width_max"] or 0) else set()
        bad |= {(place, 10)} if set(reasons) - {"idle", "application-clocks"} else set()
        bad |= {(place, 13)} if faults else set()
    columns = (
        *("GPU", "name", "node", "PCIe now", "memory", "ECC", "MIG", "NVLinks", "persistence", "SM MHz"),
        *("clock held by", "W", "°C", "faults"),
    )
    driver = facts["gpu"].get("driver")
    title = f"GPUs (driver {driver}, CUDA up to {facts['gpu'].get('cuda')})" if driver else "GPUs"
    return Part(title, (), columns, tuple(rows), frozenset(bad))


def _mig(card: Facts) -> str:
    return f"{len(card['mig_devices'])} parts" if card.get("mig_devices") else _on(card["mig"])


def _faults(card: Facts) -> str:
    rows, errors = card.get("remapped_rows") or {}, card.get("ecc_errors") or {}
    found = [name for name in ("pending", "failed") if rows.get(name)]
    found = [f"row remapping {name}" for name in found]
    if errors.get("volatile_uncorrected"):
        found.append(f"{errors['volatile_uncorrected']} uncorrected ECC errors")
    return ", ".join(found)


def _nics(facts: Facts) -> Part:
    rows = []
    for nic in _listed(facts.get("nics")):
        if not nic["virtual"]:
            speed = nic["speed_mbit_per_s"]
            told = f"{speed / 1000:g} Gbit/s" if isinstance(speed, int) else "?"
            queues = f"{nic['rx_queues']} rx, {nic['tx_queues']} tx"
            rdma = ", ".join(nic["rdma"]) or "no"
            state, driver = nic["state"] or "?", nic["driver"] or "?"
            rows.append((nic["name"], _known(nic["node"]), told, str(nic["mtu"]), state, queues, rdma, driver))
    columns = ("network", "node", "speed", "MTU", "state", "queues", "RDMA", "driver")
    return Part("Network", (), columns, tuple(rows))


def _disks(facts: Facts) -> Part:
    rows = []
    for disk in _listed(facts.get("disks")):
        if disk["bytes"]:
            ahead = f"{disk['read_ahead_kb']} kB"
            kind = " ".join(filter(None, (disk["kind"], disk["model"])))
            rows.append(
                (disk["name"], _known(disk["node"]), size(disk["bytes"]), kind, disk["scheduler"] or "?", ahead)
            )
    return Part("Disks", (), ("disk", "node", "size", "kind", "scheduler", "read-ahead"), tuple(rows))


def _software(facts: Facts) -> Part:
    software, containers = _mapping(facts.get("software")), _mapping(facts.get("containers"))
    lines = []
    for name, fact in software.items():
        copies = fact.get("copies") or ([fact] if "version" in fact else [])
        told = ", ".join(
            _join(copy["version"], copy.get("flavor"), copy.get("from") and f"({copy['from']})", between=" ")
            for copy in copies
        )
        lines.append((name.replace("_", " "), told))
    for name in ("docker", "podman", "containerd", "nvidia_toolkit"):
        lines.append((name.replace("_", " "), containers.get(name, {}).get("version", "")))
    for spec in _listed(containers.get("cdi")):
        stale = f", stale: made for driver {', '.join(spec['made_for'])}" if spec.get("stale") else ""
        lines.append(("CDI", f"{spec['file']}: {spec.get('kind')}, {spec.get('devices')} devices{stale}"))
    if facts["gpu"].get("devices"):
        lines.append(("persistence daemon", "running" if containers.get("persistence_daemon") else "not running"))
    return Part("Software", tuple((name, text) for name, text in lines if text))


def _missing(facts: Facts) -> Part:
    """Every skipped fact once, with how to get it."""
    found: dict[tuple[str, str], list[str]] = {}
    for name, fact in skipped_facts(facts):
        found.setdefault((fact["skipped"], fact.get("how", "")), []).append(name)
    lines = [
        (
            names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more",
            f"{why}" + (f" → {how}" if how else ""),
        )
        for (why, how), names in found.items()
    ]
    return Part("Not told by this box", tuple(lines))


def skipped_facts(facts: Any, name: str = "") -> Iterator[tuple[str, Facts]]:
    """(dotted name, fact) of everything that is `skipped`."""
    if isinstance(facts, Mapping):
        if "skipped" in facts:
            yield name, facts
            return
        for key, value in facts.items():
            yield from skipped_facts(value, f"{name}.{key}" if name else str(key))
    elif isinstance(facts, Sequence) and not isinstance(facts, str):
        for value in facts:
            label = value.get("name") if isinstance(value, Mapping) and value.get("virtual") is not True else None
            if label is not None or not isinstance(value, Mapping) or "virtual" not in value:
                yield from skipped_facts(value, f"{name}.{label}" if label else name)


def _mapping(value: Any) -> Facts:
    return value if isinstance(value, Mapping) and "skipped" not in value else {}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _join(*parts: Any, between: str = " · ") -> str:
    return between.join(str(part) for part in parts if part and not isinstance(part, Mapping))


def _known(value: Any) -> str:
    return "?" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _on(value: bool | None) -> str:
    return "?" if value is None else "on" if value else "off"
