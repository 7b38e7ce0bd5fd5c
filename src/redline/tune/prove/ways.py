"""Ways to run an engine that can be proved like a setting: its files in the page cache, bound to one node, on so many
CPUs."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from redline.errors import EnvironmentFault, RedlineError, Skipped
from redline.node.load_time import make_cold, make_warm
from redline.node.mempolicy import bind_memory, usual_memory
from redline.node.pci import nodes_of
from redline.node.pin import Binding, binding
from redline.node.sys import Sys
from redline.node.tree import cpu_list


class WarmSwitch:
    """Before each start the model's files are read into the page cache, or dropped from it. Other files are left."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = tuple(files)

    def to(self, wanted: bool) -> None:
        missing = make_warm(self._files) if wanted else make_cold(self._files)
        if isinstance(missing, Skipped):
            raise EnvironmentFault(missing.reason, fix=missing.how_to_get_it)

    def check(self) -> None: ...

    def started(self) -> None: ...

    def close(self) -> None: ...


class PinSwitch:
    """The thread that starts the engine is bound until the engine is up; what it starts stays bound."""

    def __init__(self, to: Binding) -> None:
        self._binding = to
        self._before: set[int] | None = None

    def to(self, wanted: bool) -> None:
        self.started()
        if wanted:
            before = os.sched_getaffinity(0)
            bind_memory(self._binding.nodes)
            os.sched_setaffinity(0, self._binding.cpus)
            self._before = before

    def check(self) -> None: ...

    def started(self) -> None:
        if self._before is not None:
            os.sched_setaffinity(0, self._before)
            usual_memory()
            self._before = None

    def close(self) -> None:
        self.started()


class CpusSwitch:
    """The engine has these CPUs alone: every thread of the one that runs (`pids`), or, without `pids`, the thread that
    starts it until it is up. Nothing of it outlives the engine."""

    def __init__(self, cpus: Sequence[int]) -> None:
        self._cpus = set(cpus)
        self.pids: tuple[int, ...] = ()
        self._before: dict[int, set[int]] = {}
        self._own: set[int] | None = None

    def to(self, wanted: bool) -> None:
        self.started()
        if not self.pids:
            if wanted:
                self._own = os.sched_getaffinity(0)
                os.sched_setaffinity(0, self._cpus)
            return
        # a thread that came since has what its parent had by then: too little
        usual = set().union(*self._before.values())
        for thread in _threads(self.pids):
            with suppress(ProcessLookupError):
                if wanted:
                    self._before.setdefault(thread, usual or os.sched_getaffinity(thread))
                    os.sched_setaffinity(thread, self._cpus)
                elif usual:
                    os.sched_setaffinity(thread, self._before.get(thread, usual))
        if not wanted:
            self._before.clear()

    def check(self) -> None: ...

    def started(self) -> None:
        if self._own is not None:
            os.sched_setaffinity(0, self._own)
            self._own = None

    def close(self) -> None:
        self.to(False)


def _threads(pids: Sequence[int]) -> list[int]:
    found = []
    for pid in pids:
        with suppress(OSError):
            found += [int(name.name) for name in Path(f"/proc/{pid}/task").iterdir()]
    return found


def cpus_for(wanted: str) -> list[int] | str:
    """`4`: so many of those that this process may use; `0-3,8`: these. Text says why not."""
    mine = sorted(os.sched_getaffinity(0))
    if not re.fullmatch(r"\d+(?:[-,]\d+)*", wanted):
        return f"{wanted!r} is neither a number of CPUs nor a list of them"
    cpus = mine[: int(wanted)] if wanted.isdigit() else cpu_list(wanted)
    if not cpus or not set(cpus) <= set(mine):
        return f"there are no CPUs {wanted} here: {len(mine)} may be used"
    if len(cpus) == len(mine):
        return f"the engine may use {len(mine)} CPUs already"
    return cpus


def binding_for(sys: Sys, wanted: str) -> Binding | str:
    """What `node 1` binds to; text says why nothing can be shown on this box."""
    if sys.kind != "live":
        return "only on this machine"
    if len(nodes_of(sys)) < 2:
        return "one NUMA node: everything is local"
    try:
        return binding(sys, nodes=[int(wanted.split()[-1])])
    except ValueError:
        return f"{wanted!r} is no number of a node"
    except RedlineError as error:
        return error.what
