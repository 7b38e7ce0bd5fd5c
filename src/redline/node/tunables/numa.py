"""Rows about NUMA: which node memory and engines are on, and what moves them."""

from __future__ import annotations

from redline.node.sys import Sys, SysFault, text
from redline.node.tree import cpu_list, fields
from redline.node.tunables.find import NODES, engines, nodes, of_gpus, one_node, word
from redline.node.tunables.rows import GRACE, advice, everywhere, kernel_doc, sysctl, tuned
from redline.node.tunables.tunable import Place, Source, Tunable

_BIND = Source("vendor", "vLLM docs: --numa-bind (vllm-project/vllm #38635)", "2026-04")
_LATE = Source("issue", "NVIDIA/TensorRT-LLM #18117: bound late, 22 % of memory stayed remote", "2026-08")


def _memory_mib(sys: Sys, node: int) -> int:
    line = next(
        (line for line in (text(sys, f"{NODES}/node{node}/meminfo") or "").splitlines() if "MemTotal" in line), ""
    )
    return int(line.split(":")[-1].split()[0]) >> 10 if line else 0


def _cpu_nodes(sys: Sys) -> list[int]:
    """Nodes with CPUs: the others hold GPU or CXL memory."""
    return [node for node in nodes(sys) if cpu_list(text(sys, f"{NODES}/node{node}/cpulist"))]


def _memory_places(sys: Sys) -> list[Place]:
    found = _cpu_nodes(sys)
    return [Place(f"{NODES}/node{node}/meminfo", f"node{node}") for node in found] if len(found) > 1 else []


def _memory_share(sys: Sys, place: Place) -> str:
    """This node's memory in percent of the largest node's."""
    most = max(_memory_mib(sys, node) for node in _cpu_nodes(sys))
    return str(100 * _memory_mib(sys, int(place.name.removeprefix("node"))) // most if most else 0)


def _engine_places(sys: Sys) -> list[Place]:
    if len(nodes(sys)) < 2:
        return []
    return [Place(f"/proc/{pid}/numa_maps", f"{name} {pid}") for pid, name in engines(sys)]


def _bound(sys: Sys, place: Place) -> str:
    """`bound` when the process may use the CPUs of one node only, or its memory policy binds it."""
    status = fields(sys.read(place.path.replace("numa_maps", "status")).decode(errors="replace"))
    allowed = set(cpu_list(status.get("Cpus_allowed_list")))
    if len(cpu_list(status.get("Mems_allowed_list"))) == 1:
        return "bound"
    try:
        policy = sys.read(place.path).decode(errors="replace").split(None, 2)[1:2]
    except SysFault:
        policy = []
    on = [node for node in _cpu_nodes(sys) if allowed & set(cpu_list(text(sys, f"{NODES}/node{node}/cpulist")))]
    memory = bool(policy) and policy[0].startswith(("bind", "prefer"))
    return "bound" if len(on) == 1 and memory else "CPUs only" if len(on) == 1 else "spread"


NUMA: tuple[Tunable, ...] = (
    sysctl(
        "kernel.numa_balancing",
        "automatic moving of memory between nodes",
        everywhere("equals", 0),
        GRACE,
        tuned("network-latency; PerfSpect recommends the opposite, so measure"),
        group="numa",
        effective=one_node,
        severity="medium",
        effect="Page-table scans and faults in workers that are bound to a node anyway.",
        signal="numa_pages_migrated",
    ),
    sysctl(
        "vm.zone_reclaim_mode",
        "reclaim at home before memory of another node",
        everywhere("equals", 0),
        kernel_doc("admin-guide/sysctl/vm.rst"),
        tuned("hpc-compute (1)"),
        group="numa",
        effective=one_node,
        severity="medium",
        effect="1 throws page cache (pre-warmed model files) away although other nodes have free memory.",
        signal="remote_pages",
    ),
    advice(
        "numa.gpu_node",
        "node that the firmware gives for a GPU",
        everywhere("at least", 0),
        kernel_doc("ABI/testing/sysfs-bus-pci: numa_node"),
        group="numa",
        scope="device",
        places=of_gpus("numa_node"),
        read=word,
        effective=one_node,
        absent="no GPU on a PCI bus here",
        advice="firmware: one proximity domain per socket (SRAT); in a VM: expose the topology",
        severity="medium",
        effect="-1: nobody can tell which cores are close to the GPU; pinning is guesswork.",
    ),
    advice(
        "numa.memory",
        "memory of a node, % of the largest node's",
        everywhere("at least", 80),
        Source("vendor", "AMD EPYC 9004 and Intel Xeon memory population guides", "2026-11"),
        group="numa",
        scope="device",
        places=_memory_places,
        read=_memory_share,
        absent="one NUMA node with CPUs",
        advice="populate every channel of every socket alike",
        severity="high",
        effect="A node with few or no DIMMs serves its GPUs from the other socket's memory.",
        signal="remote_pages",
    ),
    advice(
        "numa.engine",
        "inference engines bound to a node",
        everywhere("equals", "bound"),
        _BIND,
        _LATE,
        Source("measured", "vllm-ascend #6966: TPOT 11.78 to 9.90 ms; vllm #30492: no gain", "2026-04"),
        group="numa",
        scope="pid",
        places=_engine_places,
        read=_bound,
        absent="no inference engine runs, or there is one node",
        advice="start it with --numa-bind, or with redline node pin -- COMMAND (before it allocates)",
        severity="medium",
        effect="From nothing to 15 % of TPOT; late binding leaves memory behind.",
        signal="remote_pages",
    ),
)
