"""How many load workers, and on which cores: away from the server's, each on one of its own, when there are enough.

Nothing is pinned on a guess. A server that may run anywhere keeps that freedom; its busiest threads are looked at, and
the workers take cores that these did not last run on. On a box with too few cores the scheduler decides, and the
outcome says so.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from redline.node.cgroup import cpu_limit
from redline.node.tree import cpu_list, fields, text

STREAMS_PER_WORKER = 250
CHUNKS_PER_S_PER_WORKER = 12_500  # about a quarter of what one worker sustains on one core
SENDS_PER_S_PER_WORKER = 1_000
_BUSY_SHARE = 0.05
"""Of the busiest thread's CPU time: what makes another thread worth keeping clear of."""


@dataclass(frozen=True)
class CorePlan:
    """`cores[i]` is for worker i; empty when nobody is pinned, and `note` says why. `server`: where the server runs."""

    workers: int
    cores: tuple[int, ...] = ()
    server: tuple[int, ...] = ()
    note: str = ""


def wanted_workers(kind: str, value: float, output_tokens: float) -> int:
    """How many workers a load point asks for; `value` is clients (`closed`) or requests per second."""
    if kind == "closed":
        return max(1, math.ceil(value / STREAMS_PER_WORKER))
    return max(1, math.ceil(value * output_tokens / CHUNKS_PER_S_PER_WORKER), math.ceil(value / SENDS_PER_S_PER_WORKER))


def plan_cores(
    pids: Sequence[int], *, wanted: int, asked: int = 0, pin: bool = True, local: bool = True, root: Path = Path("/")
) -> CorePlan:
    """Workers and cores for a load point. `asked` workers are started whatever the box has; 0 leaves it to us.

    `local`: the server runs on this box, as far as we know.
    """
    mine = sorted(os.sched_getaffinity(0))
    server = server_cores(pids, mine, root)
    free = _free(mine, server, root)
    quota = int(cpu_limit(root) or len(mine))
    spare = max(1, min(len(free) if server else len(mine) // (2 if local else 1), quota) - 1)
    workers = asked or min(wanted, spare)
    if not pin:
        return CorePlan(workers, server=server, note="workers are not pinned: load.pin is off")
    if not server:
        why = "the server's processes are not known" if local else "the server is not on this box"
        return CorePlan(workers, note=f"workers are not pinned: {why}")
    if len(free) < workers + 1:  # one more for redline itself
        left = f"{len(free)} of {len(mine)} cores are left beside the server"
        return CorePlan(workers, server=server, note=f"workers are not pinned: {left}, {workers + 1} are needed")
    return CorePlan(workers, tuple(_nearest(free, server, root)[:workers]), server)


def server_cores(pids: Iterable[int], mine: Iterable[int], root: Path = Path("/")) -> tuple[int, ...]:
    """The cores that a confined server may use; if it may use all of `mine`, where its busiest threads last ran."""
    allowed: set[int] = set()
    threads: list[tuple[int, int]] = []
    for pid in pids:
        for folder in (root / f"proc/{pid}/task").glob("*"):
            stat = (text(root, f"{folder.relative_to(root)}/stat") or "").rpartition(")")[2].split()
            status = fields(text(root, f"{folder.relative_to(root)}/status"))
            if len(stat) > 36:
                threads.append((int(stat[11]) + int(stat[12]), int(stat[36])))
                allowed.update(cpu_list(status.get("Cpus_allowed_list")))
    if not threads:
        return ()
    if not set(mine) <= allowed:
        return tuple(sorted(allowed))
    most = max(used for used, _ in threads)
    return tuple(sorted({core for used, core in threads if used >= _BUSY_SHARE * most}))


def _free(mine: Sequence[int], server: Sequence[int], root: Path) -> list[int]:
    """Our cores that share nothing with the server, hyper-threads included."""
    taken = {sibling for core in server for sibling in _siblings(core, root)}
    return [core for core in mine if core not in taken]


def _siblings(core: int, root: Path) -> list[int]:
    listed = text(root, f"sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")
    return cpu_list(listed) or [core]


def _nearest(free: Sequence[int], server: Sequence[int], root: Path) -> list[int]:
    """The server's memory node first, and one thread of each core before any second one."""
    nodes = [
        set(cpu_list(text(root, f"sys/devices/system/node/{folder.name}/cpulist")))
        for folder in sorted((root / "sys/devices/system/node").glob("node[0-9]*"))
    ]
    near = max(nodes, key=lambda node: len(node & set(server)), default=set())
    seen: set[int] = set()
    ranked = []
    for core in free:
        first = min(_siblings(core, root))
        ranked.append((first in seen, core not in near, core))
        seen.add(first)
    return [core for _, _, core in sorted(ranked)]
