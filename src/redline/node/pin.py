"""Starts a command on the CPUs and the memory of a GPU's NUMA node: bound before exec, so that nothing is misplaced."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from redline.errors import EnvironmentFault, Unsupported, UsageError
from redline.node.mempolicy import bind_memory
from redline.node.pci import nodes_of, pci_devices
from redline.node.sys import Sys, text
from redline.node.tree import cpu_list, fields, short_list


@dataclass(frozen=True)
class Binding:
    """`nodes` empty: memory is left as it is. `because` says what was asked for."""

    cpus: tuple[int, ...]
    nodes: tuple[int, ...]
    because: str

    def __str__(self) -> str:
        memory = f"memory of node {short_list(list(self.nodes))}" if self.nodes else "memory as before"
        return f"CPUs {short_list(list(self.cpus))}, {memory} ({self.because})"

    def as_dict(self) -> dict[str, Any]:
        return {"cpus": short_list(list(self.cpus)), "nodes": list(self.nodes), "because": self.because}


def binding(
    sys: Sys,
    *,
    gpus: Collection[int] = (),
    nodes: Collection[int] = (),
    cpus: Collection[int] = (),
    cpus_only: bool = False,
    addresses: Sequence[str] = (),
) -> Binding:
    """What to bind to: exactly one of `gpus`, `nodes`, `cpus`. `addresses`: PCI addresses of the GPUs in NVML's order;
    without them GPUs are numbered by address, which is the same order unless a driver is told otherwise.

    Raises UsageError for what does not exist, Unsupported where the node is not known or not allowed.
    """
    if sum(map(bool, (gpus, nodes, cpus))) != 1:
        raise UsageError("say what to bind to", fix="one of --gpu 0, --node 0, --cpus 0-7")
    because = f"the CPUs {short_list(list(cpus))}" if cpus else f"node {short_list(list(nodes))}"
    wanted = set(cpus)
    if gpus:
        nodes = _nodes_of_gpus(sys, gpus, addresses)
        because = f"node {short_list(sorted(nodes))} of GPU {short_list(list(gpus))}"
    by_node = {node: set(cpu_list(text(sys, f"/sys/devices/system/node/node{node}/cpulist"))) for node in nodes_of(sys)}
    if cpus:
        nodes = [node for node, of_node in by_node.items() if of_node & wanted]
    else:
        if absent := sorted(set(nodes) - set(by_node)):
            have = f"this box has {short_list(sorted(by_node)) or 'none'}"
            raise UsageError(f"there is no node {short_list(absent)}", why=have, fix="redline node facts shows them")
        wanted = set().union(*(by_node[node] for node in nodes))
    return Binding(_allowed_cpus(sys, wanted), () if cpus_only else _allowed_nodes(sys, nodes), because)


def _nodes_of_gpus(sys: Sys, gpus: Collection[int], addresses: Sequence[str]) -> list[int]:
    devices = {device.address: device for device in pci_devices(sys) if device.kind == "gpu"}
    order = [address for address in addresses if address in devices] or list(devices)
    if absent := sorted(index for index in gpus if not 0 <= index < len(order)):
        have = f"this box has {len(order)}" if order else "PCI shows none on this box"
        fix = "redline node facts shows them; --node or --cpus bind without one"
        raise UsageError(f"there is no GPU {short_list(absent)}", why=have, fix=fix)
    nodes = {index: devices[order[index]].node for index in gpus}
    if unknown := [index for index, node in nodes.items() if node is None]:
        raise Unsupported(
            f"the NUMA node of GPU {short_list(unknown)} is not known",
            why="its numa_node is -1: the firmware, or the hypervisor, does not say, and this box has several nodes",
            fix="switch it on in the firmware (ACPI _PXM, NPS) or in the virtual machine's definition; or, where you"
            " know the node: --node N",
        )
    return sorted({node for node in nodes.values() if node is not None})


def _allowed_cpus(sys: Sys, wanted: Collection[int]) -> tuple[int, ...]:
    listed = cpu_list(fields(text(sys, "/proc/self/status")).get("Cpus_allowed_list"))
    usable = tuple(sorted(set(wanted) & set(listed)))
    if not usable:
        why = f"this process may use {short_list(listed)}" if wanted else "the node has memory and no CPU"
        fix = "widen the container's or the slice's cpuset, or choose other CPUs"
        raise Unsupported(f"none of the CPUs {short_list(list(wanted))} can be used", why=why, fix=fix)
    return usable


def _allowed_nodes(sys: Sys, nodes: Collection[int]) -> tuple[int, ...]:
    listed = fields(text(sys, "/proc/self/status")).get("Mems_allowed_list")
    allowed = set(cpu_list(listed)) if listed else set(nodes)
    if barred := sorted(set(nodes) - allowed):
        raise Unsupported(
            f"memory of node {short_list(barred)} may not be used",
            why=f"the control group (cpuset.mems) allows node {short_list(sorted(allowed))}",
            fix="widen cpuset.mems (docker run --cpuset-mems), or --cpus-only to bind the CPUs alone",
        )
    return tuple(sorted(nodes))


def pin(command: Sequence[str], to: Binding, said: Callable[[Binding], None] = lambda to: None) -> None:
    """Binds this process, calls `said`, and becomes `command`, whose exit code is the caller's from then on.

    Raises EnvironmentFault when there is no such command, Unsupported when the kernel refuses.
    """
    if not command:
        raise UsageError("there is no command to start", fix="redline node pin --gpu 0 -- vllm serve …")
    # memory first: a refusal then leaves everything as it was
    if to.nodes:
        bind_memory(to.nodes)
    try:
        os.sched_setaffinity(0, to.cpus)
    except OSError as error:
        raise Unsupported(f"the CPUs cannot be bound: {error.strerror}") from error
    said(to)
    try:
        os.execvp(command[0], list(command))
    except OSError as error:
        fix = "give its path, or activate its virtual environment"
        raise EnvironmentFault(f"{command[0]} cannot be started: {error.strerror}", fix=fix) from error
