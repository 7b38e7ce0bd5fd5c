"""Recorded and made-up boxes for the tests of the probes. The made-up ones are labelled so."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any


def plant(root: Path, files: dict[str, str]) -> Path:
    """Writes `files` under `root`."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def two_sockets(root: Path) -> Path:
    """Made up: two sockets, two cores each, two threads per core, amd-pstate, cgroup v2."""
    files = {
        "proc/cpuinfo": "vendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC 9555 64-Core Processor\n"
        "microcode\t: 0xb002151\nflags\t\t: fpu avx2 fma avx512f avx512_bf16 hypervisorless\n",
        "proc/self/status": "Name:\tpython\nCpus_allowed_list:\t0-7\n",
        "proc/self/cgroup": "0::/user.slice/session.scope\n",
        "proc/meminfo": "MemTotal:  1000000 kB\nMemAvailable:  800000 kB\nSwapTotal:  2000 kB\nSwapFree:  500 kB\n",
        "proc/cmdline": "BOOT_IMAGE=/vmlinuz root=UUID=11-22-33 quiet mitigations=off -- init --password x",
        "proc/loadavg": "0.50 0.40 0.30 1/234 5678\n",
        "proc/uptime": "1000.5 900.0\n",
        "proc/sys/vm/swappiness": "60\n",
        "proc/sys/kernel/osrelease": "6.8.0-50-generic\n",
        "proc/sys/kernel/version": "#51-Ubuntu SMP PREEMPT_DYNAMIC Sat\n",
        "proc/sys/kernel/hostname": "secret-host-name\n",
        "proc/pressure/cpu": "some avg10=1.50 avg60=0 avg300=0 total=123\n",
        "etc/os-release": 'NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 24.04.1 LTS"\n',
        "etc/machine-id": "abcdef\n",
        "sys/devices/system/cpu/online": "0-7\n",
        "sys/devices/system/cpu/smt/control": "on\n",
        "sys/devices/system/clocksource/clocksource0/current_clocksource": "tsc\n",
        "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
        "sys/kernel/mm/transparent_hugepage/defrag": "always defer defer+madvise [madvise] never\n",
        "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages": "16\n",
        "sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages": "4\n",
        "sys/fs/cgroup/cgroup.controllers": "cpu memory\n",
    }
    for cpu in range(8):
        core = cpu % 4
        topology = f"sys/devices/system/cpu/cpu{cpu}/topology"
        files[f"{topology}/physical_package_id"] = f"{core // 2}\n"
        files[f"{topology}/thread_siblings_list"] = f"{core},{core + 4}\n"
        policy = f"sys/devices/system/cpu/cpufreq/policy{cpu}"
        files[f"{policy}/scaling_driver"] = "amd-pstate-epp\n"
        files[f"{policy}/scaling_governor"] = "powersave\n" if cpu == 3 else "performance\n"
        files[f"{policy}/energy_performance_preference"] = "performance\n"
        files[f"{policy}/scaling_max_freq"] = "4400000\n"
        files[f"{policy}/scaling_min_freq"] = "600000\n"
    for node in range(2):
        files[f"sys/devices/system/node/node{node}/meminfo"] = f"Node {node} MemTotal:       500000 kB\n"
        files[f"sys/devices/system/node/node{node}/cpulist"] = (
            f"{node * 2}-{node * 2 + 1},{node * 2 + 4}-{node * 2 + 5}\n"
        )
        files[f"sys/devices/system/node/node{node}/distance"] = "10 32\n" if node == 0 else "32 10\n"
    return plant(root, files)


class FakeNvml:
    """Stands for pynvml with one GPU. `changes` overrides functions by name; None makes one fail as a driver would."""

    class NVMLError(Exception):
        value = 3  # not supported

    class NVMLError_LibraryNotFound(NVMLError):  # noqa: N801 - the library's own spelling
        pass

    def __init__(self, gpus: int = 1, start: type[Exception] | None = None, **changes: Any) -> None:
        self.start = start
        self.opened = 0
        self.answers: dict[str, Any] = {
            "DeviceGetCount": gpus,
            "DeviceGetHandleByIndex": lambda index: f"gpu{index}",
            "SystemGetDriverVersion": "580.95.05",
            "SystemGetCudaDriverVersion_v2": 13000,
            "DeviceGetName": b"NVIDIA H200",
            "DeviceGetUUID": "GPU-1234",
            "DeviceGetCudaComputeCapability": (9, 0),
            "DeviceGetMemoryInfo": SimpleNamespace(total=150_754_820_096, used=1_000_000_000, free=0),
            "DeviceGetUtilizationRates": SimpleNamespace(gpu=87, memory=40),
            "DeviceGetPowerUsage": 512_300,
            "DeviceGetEnforcedPowerLimit": 700_000,
            "DeviceGetPowerManagementDefaultLimit": 700_000,
            "DeviceGetTotalEnergyConsumption": 5_000_000,
            "DeviceGetClockInfo": lambda handle, kind: {1: 1980, 2: 3201}[kind],
            "DeviceGetMaxClockInfo": lambda handle, kind: {1: 1980, 2: 3201}[kind],
            "DeviceGetTemperature": 41,
            "DeviceGetPersistenceMode": 1,
            "DeviceGetEccMode": [1, 1],
            "DeviceGetMigMode": [0, 0],
            "DeviceGetRemappedRows": (0, 0, 0, 0),
            "DeviceGetCurrentClocksEventReasons": 0x1,
            "DeviceGetCurrPcieLinkGeneration": 1,
            "DeviceGetMaxPcieLinkGeneration": 5,
            "DeviceGetCurrPcieLinkWidth": 16,
            "DeviceGetMaxPcieLinkWidth": 16,
            "DeviceGetComputeRunningProcesses": [],
            "DeviceGetComputeMode": 0,
            **changes,
        }

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("nvml"):
            raise AttributeError(name)
        answer = self.answers.get(name.removeprefix("nvml"))

        def call(*arguments: Any) -> Any:
            if answer is None:
                raise self.NVMLError("Not Supported")
            return answer(*arguments) if callable(answer) else answer

        return call

    def nvmlInit(self) -> None:
        if self.start is not None:
            raise self.start("no")
        self.opened += 1

    def nvmlShutdown(self) -> None:
        self.opened -= 1


def process(pid: int, used: int | None) -> SimpleNamespace:
    """One entry of a running-processes list."""
    return SimpleNamespace(pid=pid, usedGpuMemory=used)
