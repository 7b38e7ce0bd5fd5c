"""Made up: boxes with GPUs, network cards and NVMe disks on PCI, for the tests of facts and pictures."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.node.boxes import FakeNvml, plant, two_sockets

PCI = "sys/bus/pci/devices"


@dataclass
class Cards:
    """Devices of a made-up box; every one below a root port of its own unless `port` says below which."""

    root: Path
    links: dict[str, str] = field(default_factory=dict)

    def add(self, address: str, code: str, *, node: int, port: str, vendor: str = "0x10de", **files: str) -> None:
        bus = f"pci{port[:7]}"
        folder = f"{PCI}/{address}"
        speeds = {
            "current_link_speed": "32.0 GT/s PCIe", "max_link_speed": "32.0 GT/s PCIe", "current_link_width": "16",
            "max_link_width": "16", "numa_node": str(node), "local_cpulist": "0-1,4-5" if node == 0 else "2-3,6-7",
        }  # fmt: skip
        plant(self.root, {f"{folder}/{name}": f"{value}\n" for name, value in (speeds | files).items()})
        plant(self.root, {f"{folder}/class": f"{code}\n", f"{folder}/vendor": f"{vendor}\n"})
        slot = {"max_link_speed": "32.0 GT/s PCIe\n", "max_link_width": "16\n", "class": "0x060400\n"}
        plant(self.root, {f"{PCI}/{port}/{name}": value for name, value in slot.items()})
        self.links[f"/{folder}"] = f"../../../devices/{bus}/{port}/{address}"

    def nic(self, name: str, address: str, *, node: int, port: str, speed: str = "400000") -> None:
        self.add(address, "0x020000", node=node, port=port, vendor="0x15b3")
        files = {"speed": speed, "mtu": "9000", "operstate": "up", "address": "b8:ce:f6:12:34:56"}
        plant(self.root, {f"sys/class/net/{name}/{key}": f"{value}\n" for key, value in files.items()})
        plant(self.root, {f"sys/class/net/{name}/queues/{queue}/x": "" for queue in ("rx-0", "rx-1", "tx-0")})
        plant(self.root, {f"{PCI}/{address}/net/{name}/x": ""})
        self.links[f"/sys/class/net/{name}"] = f"../../devices/pci{port[:7]}/{port}/{address}/net/{name}"
        self.links[f"/sys/class/net/{name}/device"] = f"../../../{address}"
        self.links[f"/sys/class/net/{name}/device/driver"] = "../../../../bus/pci/drivers/mlx5_core"

    def nvme(self, name: str, address: str, *, node: int, port: str) -> None:
        self.add(address, "0x010802", node=node, port=port, vendor="0x144d", current_link_width="4", max_link_width="4")
        disk = f"sys/block/{name}n1"
        files = {
            "size": "7501476528", "queue/scheduler": "[none] mq-deadline kyber", "queue/rotational": "0",
            "queue/read_ahead_kb": "128", "queue/nr_requests": "1023", "device/model": "SAMSUNG MZWLO3T8",
            "device/serial": "S6XYZ123456789",
        }  # fmt: skip
        plant(self.root, {f"{disk}/{key}": f"{value}\n" for key, value in files.items()})
        plant(self.root, {f"{PCI}/{address}/nvme/{name}/x": ""})
        self.links[f"/{disk}"] = f"../devices/pci{port[:7]}/{port}/{address}/nvme/{name}/{name}n1"


def eight_gpus(root: Path) -> Path:
    """Two sockets, four GPUs with a network card each per socket, a narrow GPU 5, two NVMe disks, docker with CDI."""
    two_sockets(root)
    cards = Cards(root)
    for index in range(8):
        node, domain = index // 4, 0x10 * (index + 1)
        port = f"0000:{domain:02x}:01.0"
        width = {"current_link_width": "8"} if index == 5 else {}
        cards.add(f"0000:{domain + 1:02x}:00.0", "0x030200", node=node, port=port, **width)
        cards.nic(f"enp{domain}s0", f"0000:{domain + 2:02x}:00.0", node=node, port=port)
    cards.nvme("nvme0", "0000:c1:00.0", node=0, port="0000:c0:01.0")
    cards.nvme("nvme1", "0000:e1:00.0", node=1, port="0000:e0:01.0")
    plant(root, _SOFTWARE)
    for node in range(2):
        pages = f"sys/devices/system/node/node{node}/hugepages/hugepages-1048576kB"
        plant(root, {f"{pages}/nr_hugepages": f"{2 * node}\n", f"{pages}/free_hugepages": f"{node}\n"})
    return _box(root, cards)


def one_node(root: Path) -> Path:
    """One socket, two GPUs of which the firmware tells no node, one NVMe disk."""
    plant(
        root,
        {
            "proc/cpuinfo": "vendor_id\t: GenuineIntel\nmodel name\t: Intel Xeon w5-3435X\n",
            "proc/meminfo": "MemTotal: 128000000 kB\nMemAvailable: 100000000 kB\n",
            "proc/self/status": "Cpus_allowed_list:\t0-15\n",
            "sys/devices/system/cpu/online": "0-15\n",
            "sys/devices/system/node/node0/cpulist": "0-15\n",
            "sys/devices/system/node/node0/meminfo": "Node 0 MemTotal: 128000000 kB\n",
            "sys/devices/system/node/node0/distance": "10\n",
        },
    )
    cards = Cards(root)
    cards.add("0000:01:00.0", "0x030000", node=-1, port="0000:00:01.0")
    cards.add("0000:02:00.0", "0x030000", node=-1, port="0000:00:02.0", max_link_speed="64.0 GT/s PCIe")
    cards.nvme("nvme0", "0000:03:00.0", node=-1, port="0000:00:03.0")
    return _box(root, cards)


def _box(root: Path, cards: Cards) -> Path:
    commands = {"docker --version": [0, "Docker version 28.2.2, build abc\n"], "nvcc --version": [0, "V12.8.93\n"]}
    (root / "redline-box.json").write_text(json.dumps({"links": cards.links, "commands": commands}))
    return root


_SOFTWARE = {
    "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build\n",
    "usr/lib/x86_64-linux-gnu/libnccl.so.2": "",
    "usr/lib/x86_64-linux-gnu/libnccl.so.2.27.3": "",
    "etc/docker/daemon.json": '{"default-runtime": "nvidia", "http-proxy": "http://carol:pw@proxy.example.com:3128"}',
    "etc/cdi/nvidia.yaml": "cdiVersion: 0.6.0\nkind: nvidia.com/gpu\n"
    "devices:\n- name: '0'\n- name: all\ncontainerEdits:\n"
    "  mounts:\n  - hostPath: /usr/lib/x86_64-linux-gnu/libcuda.so.570.1.2\n",
}


def nvml_of(addresses: list[str], **changes: Any) -> FakeNvml:
    """NVML with a GPU at each address, all of them linked to an NVSwitch."""
    return FakeNvml(
        gpus=len(addresses),
        DeviceGetPciInfo=lambda handle: SimpleNamespace(busId=f"0000{addresses[int(handle[3:])]}".upper()),
        DeviceGetNvLinkState=1,
        DeviceGetNvLinkVersion=4,
        DeviceGetNvLinkRemoteDeviceType=2,
        **changes,
    )


EIGHT = [f"0000:{0x10 * (index + 1) + 1:02x}:00.0" for index in range(8)]
