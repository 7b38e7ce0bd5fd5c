"""Where things are on a box: its CPUs, nodes, disks, network cards, GPUs, engines. Short answers for the rows."""

from __future__ import annotations

import errno
import posixpath
from collections.abc import Callable, Sequence

from redline.node.sys import Sys, SysFault, text
from redline.node.tree import chosen, cpu_list, fields
from redline.node.tunables.tunable import Place

CPUS = "/sys/devices/system/cpu"
NODES = "/sys/devices/system/node"
PCI = "/sys/bus/pci/devices"
NVIDIA, MELLANOX = "0x10de", "0x15b3"
ENGINES = ("vllm", "sglang", "tritonserver", "trtllm", "text-generation", "transformers serve")
Finder = Callable[[Sys], Sequence[Place]]


def one(path: str, name: str = "") -> Finder:
    """The file itself, where it exists."""
    return lambda sys: [Place(path, name)] if sys.exists(path) else []


def each(pattern: str, part: int = -2) -> Finder:
    """Every file that matches; named by one part of its path."""
    return lambda sys: [Place(path, path.split("/")[part]) for path in sys.glob(pattern)]


def here(name: str = "") -> Finder:
    """A fact of the whole box that no single file holds."""
    return lambda _sys: [Place("/", name)]


def word(sys: Sys, place: Place) -> str:
    """The file's content, one space between its words."""
    return " ".join(sys.read(place.path).decode(errors="replace").split())


def bracketed(sys: Sys, place: Place) -> str:
    """The bracketed word."""
    return chosen(word(sys, place)) or ""


def number(sys: Sys, path: str) -> int | None:
    """An integer, None when it cannot be read or is none."""
    try:
        return int(text(sys, path) or "")
    except ValueError:
        return None


def cpus(sys: Sys) -> list[int]:
    return cpu_list(text(sys, f"{CPUS}/online"))


def cpus_of_process(sys: Sys) -> list[int]:
    """CPUs that this process, and so an engine started beside it, may use."""
    allowed = fields(text(sys, "/proc/self/status")).get("Cpus_allowed_list")
    return cpu_list(allowed) or cpus(sys)


def cores(sys: Sys, among: Sequence[int]) -> int:
    """Physical cores behind some CPUs."""
    siblings = {text(sys, f"{CPUS}/cpu{cpu}/topology/thread_siblings_list") or str(cpu) for cpu in among}
    return len(siblings)


def nodes(sys: Sys) -> list[int]:
    return cpu_list(text(sys, f"{NODES}/online"))


def one_node(sys: Sys, _place: Place) -> str:
    """Reason: NUMA settings on a box with one node."""
    return "one NUMA node: no memory is remote" if len(nodes(sys)) < 2 else ""


def memory_kib(sys: Sys) -> int:
    return int((fields(text(sys, "/proc/meminfo")).get("MemTotal") or "0").split()[0])


def pci(sys: Sys, *classes: str, vendor: str = "") -> list[str]:
    """Folders of PCI functions whose class begins with one of `classes` (`0x0302`)."""
    found = []
    for address in sys.names(PCI):
        kind = text(sys, f"{PCI}/{address}/class") or ""
        if kind.startswith(classes) and (not vendor or text(sys, f"{PCI}/{address}/vendor") == vendor):
            found.append(f"{PCI}/{address}")
    return found


def gpus(sys: Sys) -> list[str]:
    """PCI folders of NVIDIA's GPUs."""
    return pci(sys, "0x0300", "0x0302", vendor=NVIDIA)


def gpu_count(sys: Sys) -> int:
    """GPUs that can be used from here, also where PCI is hidden (containers, microVMs)."""
    return len(gpus(sys)) or len(sys.glob("/dev/nvidia[0-9]*"))


def no_gpu(sys: Sys, _place: Place) -> str:
    return "" if gpu_count(sys) else "no GPU"


def of_gpus(file: str) -> Finder:
    """One file of each GPU's PCI folder."""
    return lambda sys: [Place(f"{path}/{file}", posixpath.basename(path)) for path in gpus(sys) if sys.exists(path)]


def rdma(sys: Sys) -> list[str]:
    return sys.names("/sys/class/infiniband")


def disks(sys: Sys) -> list[str]:
    """Real block devices: no loop, RAM or compressed swap devices, nothing of no size."""
    names = [
        name for name in sys.names("/sys/block") if not name.startswith(("loop", "ram", "zram", "sr", "fd", "nbd"))
    ]
    return [name for name in names if (number(sys, f"/sys/block/{name}/size") or 0) > 0]


def of_disks(file: str) -> Finder:
    return lambda sys: [Place(path, name) for name in disks(sys) if sys.exists(path := f"/sys/block/{name}/{file}")]


def nics(sys: Sys) -> list[str]:
    """Network cards that are up: those with a device behind them."""
    found = []
    for name in sys.names("/sys/class/net"):
        folder = f"/sys/class/net/{name}"
        if sys.exists(f"{folder}/device") and text(sys, f"{folder}/operstate") in ("up", "unknown"):
            found.append(name)
    return found


def of_nics(file: str) -> Finder:
    return lambda sys: [Place(path, name) for name in nics(sys) if sys.exists(path := f"/sys/class/net/{name}/{file}")]


def fastest_nic_mbit(sys: Sys) -> int:
    """0 when no card tells."""
    return max([number(sys, f"/sys/class/net/{name}/speed") or 0 for name in nics(sys)], default=0)


def engines(sys: Sys) -> list[tuple[int, str]]:
    """(pid, name) of running inference engines, by their command lines."""
    return engines_in(sys.run(["ps", "-eo", "pid=,args="]).out)


def engines_in(processes: str) -> list[tuple[int, str]]:
    """The same of the answer of `ps -eo pid=,args=`."""
    found = []
    for line in processes.splitlines():
        pid, _, arguments = line.strip().partition(" ")
        words = arguments.lower().split()[:4]
        name = next((engine for engine in ENGINES if any(engine in posixpath.basename(each) for each in words)), "")
        if name and pid.isdigit():
            found.append((int(pid), name))
    return found


def boot_argument(sys: Sys, name: str) -> str | None:
    """Value of the last such boot argument; '' for one without a value; None when it is not given."""
    found = None
    for argument in (text(sys, "/proc/cmdline") or "").split(" -- ")[0].split():
        key, _, value = argument.partition("=")
        found = value if key.replace("-", "_") == name.replace("-", "_") else found
    return found


def kernel_log(sys: Sys) -> str:
    """What dmesg tells. Raises SysFault where it may not be read."""
    ran = sys.run(["dmesg"])
    if ran.rc != 0:
        raise SysFault("denied", "dmesg", errno.EPERM, ran.err.strip() or "the kernel's log is for root only")
    return ran.out


SMI = (
    "persistence_mode,ecc.mode.current,mig.mode.current,compute_mode,power.limit,power.default_limit,"
    "pcie.link.width.current,pcie.link.width.max,pcie.link.gen.gpucurrent,pcie.link.gen.gpumax,pstate,"
    "driver_version,compute_cap"
)
SMI_LATER = {
    "reasons": "clocks_event_reasons.hw_thermal_slowdown,clocks_event_reasons.hw_power_brake_slowdown,"
    "clocks_event_reasons.sw_thermal_slowdown",
    "rows": "remapped_rows.pending,remapped_rows.failure",
}
"""Queries of their own: a driver that does not know one of their fields refuses the whole query."""


def smi(sys: Sys, query: str = "") -> dict[str, dict[str, str]]:
    """GPU's index → field → value in small letters, from nvidia-smi; {} without it. `query`: one of `SMI_LATER`."""
    names = SMI_LATER[query] if query else SMI
    ran = sys.run(["nvidia-smi", f"--query-gpu=index,{names}", "--format=csv,noheader,nounits"], timeout_s=60)
    if ran.rc != 0:
        return {}
    rows = [[cell.strip().lower() for cell in line.split(",")] for line in ran.out.splitlines() if line.strip()]
    return {row[0]: dict(zip(names.split(","), row[1:], strict=False)) for row in rows}


def of_smi(query: str = "") -> Finder:
    return lambda sys: [Place(f"nvidia-smi/{query}", f"GPU {index}") for index in smi(sys, query)]


def smi_field(sys: Sys, place: Place, field: str) -> str:
    """One value of the GPU that `place` names."""
    return smi(sys, place.path.partition("/")[2]).get(place.name.removeprefix("GPU "), {}).get(field, "")


def own_cgroup(sys: Sys, controller: str = "") -> str:
    """Path of this process's control group: of version 2, or of a controller of version 1."""
    for line in (text(sys, "/proc/self/cgroup") or "").splitlines():
        _id, controllers, path = line.split(":", 2)
        if controllers == controller or (controller and controller in controllers.split(",")):
            return path.rstrip("/")
    return ""


def of_cgroup(file: str, old: str = "") -> Finder:
    """A limit of this process's control group or of the nearest group above that has one; `old` is version 1's
    `controller/file`."""

    def find(sys: Sys) -> Sequence[Place]:
        group = own_cgroup(sys)
        candidates = []
        while True:
            candidates.append(f"/sys/fs/cgroup{group}/{file}")
            if not group:
                break
            group = group.rpartition("/")[0]
        controller, _, name = old.partition("/")
        if name:
            candidates.append(f"/sys/fs/cgroup/{controller}{own_cgroup(sys, controller)}/{name}")
            candidates.append(f"/sys/fs/cgroup/{controller}/{name}")
        there = [path for path in candidates if sys.exists(path)]
        limiting = [path for path in there if (text(sys, path) or "max").split()[0] not in ("max", "-1")]
        return [Place(path) for path in (limiting or there)[:1]]

    return find
