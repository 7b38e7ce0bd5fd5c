"""Ways to start an engine that can be proved like a setting: with its files in the page cache, bound to one node."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from redline.errors import EnvironmentFault, RedlineError, Skipped
from redline.node.load_time import make_cold, make_warm
from redline.node.mempolicy import bind_memory, usual_memory
from redline.node.pci import nodes_of
from redline.node.pin import Binding, binding
from redline.node.sys import Sys


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
