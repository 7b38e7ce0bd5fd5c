"""Rows about interrupts and the kernel's packet work."""

from __future__ import annotations

import posixpath

from redline.node.daemons import runs
from redline.node.sys import Sys, text
from redline.node.tree import cpu_list, fields
from redline.node.tunables.find import PCI, cpus, nics, nodes, of_nics, pci, word
from redline.node.tunables.rows import advice, everywhere, kernel_doc, only_for, sysctl, want
from redline.node.tunables.tunable import Place, Source, Tunable, Want

_SCALING = kernel_doc("networking/scaling.rst")
_IRQ = kernel_doc("core-api/irq/irq-affinity.rst")
_NET_SYSCTL = kernel_doc("admin-guide/sysctl/net.rst")


def mask(numbers: list[int]) -> str:
    """CPUs as the kernel writes a mask, leading zeros left out: `ff,ffffffff`."""
    digits = f"{sum(1 << cpu for cpu in numbers):x}"
    head = len(digits) % 8
    groups = ([digits[:head]] if head else []) + [digits[at : at + 8] for at in range(head, len(digits), 8)]
    return ",".join(groups)


def _mask_here(sys: Sys, place: Place) -> str:
    number = int(word(sys, place).replace(",", "") or "0", 16)
    return mask([cpu for cpu in range(number.bit_length()) if number >> cpu & 1])


def pressure(sys: Sys, column: int) -> int:
    """Sum over the CPUs of a column of softnet_stat: 1 dropped for a full backlog, 2 ran out of budget."""
    lines = (text(sys, "/proc/net/softnet_stat") or "").splitlines()
    return sum(int(line.split()[column], 16) for line in lines if len(line.split()) > column)


def _no_squeeze(sys: Sys, _place: Place) -> str:
    if pressure(sys, 2) * 10000 > pressure(sys, 0):
        return ""
    return f"a poll ran out of budget {pressure(sys, 2):,} times in {pressure(sys, 0):,} packets since boot"


def _no_drops(sys: Sys, _place: Place) -> str:
    return "" if pressure(sys, 1) else "no packet was ever dropped for a full backlog since boot"


def _queues(sys: Sys, nic: str) -> int:
    return len([name for name in sys.names(f"/sys/class/net/{nic}/queues") if name.startswith("rx-")])


def _rps_places(sys: Sys) -> list[Place]:
    return [
        Place(path, f"{nic} {path.split('/')[-2]}")
        for nic in nics(sys)
        for path in sys.glob(f"/sys/class/net/{nic}/queues/rx-*/rps_cpus")
    ]


def _rps_fit(sys: Sys, place: Place, _want: Want) -> Want | None:
    """All CPUs for a card with one queue; off where the card spreads packets itself."""
    if _queues(sys, place.name.split()[0]) > 1:
        return want("equals", "0")
    return want("equals", mask(cpus(sys))) if len(cpus(sys)) > 1 else None


def _one_cpu_is_enough(sys: Sys, place: Place) -> str:
    return _no_squeeze(sys, place) if _queues(sys, place.name.split()[0]) == 1 else ""


def _no_rps(sys: Sys, _place: Place) -> str:
    steered = any(int((text(sys, place.path) or "0").replace(",", ""), 16) for place in _rps_places(sys))
    return "" if steered else "no receive queue steers packets (rps_cpus is 0): the table is not used"


def _irqs_of(sys: Sys, *classes: str) -> list[Place]:
    """Interrupts of PCI functions of some classes, on boxes with several nodes."""
    if len(nodes(sys)) < 2:
        return []
    found = []
    for folder in pci(sys, *classes):
        for irq in sorted(sys.names(f"{folder}/msi_irqs"), key=int):
            path = f"/proc/irq/{irq}/smp_affinity_list"
            administrative = any(name.endswith("q0") for name in sys.names(f"/proc/irq/{irq}"))
            if sys.exists(path) and not administrative:  # that queue carries no data
                found.append(Place(path, f"{posixpath.basename(folder)} {irq}"))
    return found


def _local(sys: Sys, place: Place, _want: Want) -> Want | None:
    """The CPUs of the device's node."""
    near = text(sys, f"{PCI}/{place.name.split()[0]}/local_cpulist")
    return want("within", near) if near else None


def _managed(sys: Sys, place: Place) -> str:
    """Whether the kernel manages it, which debugfs and NVMe's names tell."""
    irq = place.name.split()[-1]
    flags = text(sys, f"/sys/kernel/debug/irq/irqs/{irq}") or ""
    names = sys.names(f"/proc/irq/{irq}")
    io_queue = any(name.startswith("nvme") for name in names)
    return (
        "managed by the kernel: one queue per CPU, each completes where it was sent; writes end in EIO"
        if "IRQD_AFFINITY_MANAGED" in flags or io_queue
        else ""
    )


_BALANCE_FILES = ("/etc/default/irqbalance", "/etc/sysconfig/irqbalance")


def _banned(sys: Sys, _place: Place) -> str:
    for path in _BALANCE_FILES:
        value = fields(text(sys, path), "=").get("IRQBALANCE_BANNED_CPULIST", "").strip("\"'")
        if cpu_list(value):
            return "some"
    return "none"


def _affinity_row(id_: str, title: str, classes: tuple[str, ...], **more: object) -> Tunable:
    return Tunable(
        id=id_,
        title=title,
        group="irq",
        scope="device",
        places=lambda sys: _irqs_of(sys, *classes),
        read=word,
        wants=everywhere("within", ""),
        fit=_local,
        absent="one NUMA node, or no such device with interrupts of its own",
        owners=("irqbalance",),
        sources=(_IRQ,),
        signal="remote_interrupts",
        **more,  # type: ignore[arg-type]
    )


IRQ: tuple[Tunable, ...] = (
    _affinity_row(
        "irq.nic",
        "interrupts of network cards on their own node",
        ("0x0200", "0x0207"),
        unwritable=_managed,
        severity="low",
        risk=1,
        effect="Packets are handled beside the memory that they are in; matters at 100 Gbit/s, not for tokens.",
    ),
    _affinity_row(
        "irq.nvme",
        "interrupts of NVMe drives on their own node",
        ("0x0108",),
        applies=_managed,
        severity="info",
        effect="Only drives whose queues the kernel does not manage: each completes beside its memory.",
    ),
    advice(
        "irq.banned_cpus",
        "CPUs that irqbalance keeps clear",
        only_for("latency", op="equals", values=("some",)),
        Source("tool", "irqbalance(1): IRQBALANCE_BANNED_CPULIST", "2026-11"),
        group="irq",
        places=lambda sys: [Place(_BALANCE_FILES[0])] if runs(sys, "irqbalance") else [],
        read=_banned,
        absent="irqbalance does not run",
        advice="IRQBALANCE_BANNED_CPULIST=<the engine's CPUs> in /etc/default/irqbalance (RHEL: /etc/sysconfig)",
        severity="info",
        effect="Device interrupts stay off the cores where the engine spins.",
        signal="irq_on_engine_cores",
    ),
    Tunable(
        id="net.rps",
        title="CPUs that share a receive queue's packets",
        group="irq",
        scope="device",
        places=_rps_places,
        read=_mask_here,
        wants=everywhere("equals", "0"),
        fit=_rps_fit,
        effective=_one_cpu_is_enough,
        absent="no network card with receive queues",
        persist="udev",
        persist_key="queues/rx-0/rps_cpus",
        risk=1,
        severity="low",
        effect="One-queue cards (virtio) stop loading one CPU with all packets; with many queues it only adds hops.",
        signal="softirq_share",
        sources=(_SCALING,),
    ),
    sysctl(
        "net.core.rps_sock_flow_entries",
        "table that steers packets to the reader's CPU",
        everywhere("at least", 32768),
        _SCALING,
        group="irq",
        fit=lambda sys, _place, wanted: wanted if _one_queue(sys) else None,
        effective=_no_rps,
        severity="info",
        effect="With RPS on: a packet is handled on the CPU whose thread reads it.",
        signal="softirq_share",
    ),
    sysctl(
        "net.core.netdev_budget",
        "packets that one poll may take",
        everywhere("at least", 600),
        _NET_SYSCTL,
        group="irq",
        effective=_no_squeeze,
        severity="info",
        effect="Fewer returns to the scheduler during bursts of packets.",
        signal="time_squeeze",
    ),
    sysctl(
        "net.core.netdev_max_backlog",
        "packets that may wait for a CPU",
        everywhere("at least", 4096),
        _NET_SYSCTL,
        group="irq",
        effective=_no_drops,
        severity="info",
        effect="Bursts through loopback, bridges and RPS are kept instead of dropped.",
        signal="softnet_dropped",
    ),
)


def _one_queue(sys: Sys) -> bool:
    return any(_queues(sys, place.name) == 1 for place in of_nics("queues")(sys))
