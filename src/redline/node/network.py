"""Network interfaces: speed, MTU, queues, driver, and the NUMA node they hang on."""

from __future__ import annotations

from redline.node.disks import number
from redline.node.pci import DEVICES, addresses_in, node_of
from redline.node.sys import Sys, text
from redline.node.tree import Fact, skipped

NET = "/sys/class/net"


def nic_facts(sys: Sys) -> list[Fact]:
    """One entry per interface but loopback. `virtual`: no device stands behind it (bridge, veth, tunnel, bond)."""
    return [_nic(sys, name) for name in sys.names(NET) if name not in ("lo", "bonding_masters")]


def _nic(sys: Sys, name: str) -> Fact:
    folder = f"{NET}/{name}"
    device = sys.link(f"{folder}/device")
    where = addresses_in(sys.link(folder) or "")
    driver = sys.link(f"{folder}/device/driver")
    queues = sys.names(f"{folder}/queues")
    return {
        "name": name,
        "virtual": device is None,
        "driver": driver.rsplit("/", 1)[-1] if driver else None,
        "state": text(sys, f"{folder}/operstate"),
        "speed_mbit_per_s": _speed(sys, folder),
        "mtu": number(sys, f"{folder}/mtu"),
        "rx_queues": sum(1 for queue in queues if queue.startswith("rx-")),
        "tx_queues": sum(1 for queue in queues if queue.startswith("tx-")),
        "rdma": sys.names(f"{folder}/device/infiniband"),
        "pci_address": where[-1] if where else None,
        "node": node_of(sys, f"{DEVICES}/{where[-1]}") if where else None,
    }


def _speed(sys: Sys, folder: str) -> int | Fact:
    """Mbit/s. An interface that is down, and one that has no fixed speed, answer EINVAL or -1."""
    speed = number(sys, f"{folder}/speed")
    if speed is None or speed < 0:
        return skipped("the interface does not tell its speed", "bring it up; virtual ones have none (ask the host)")
    return speed
