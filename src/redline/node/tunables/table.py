"""All rows, in the order in which they are shown."""

from __future__ import annotations

from redline.node.tunables.cpu import CPU
from redline.node.tunables.driver import DRIVER
from redline.node.tunables.gpu import GPU
from redline.node.tunables.irq import IRQ
from redline.node.tunables.limits import BOOT, LIMITS
from redline.node.tunables.memory import MEMORY
from redline.node.tunables.network import NETWORK
from redline.node.tunables.numa import NUMA
from redline.node.tunables.pcie import PCIE
from redline.node.tunables.storage import STORAGE
from redline.node.tunables.tunable import Tunable

TUNABLES: tuple[Tunable, ...] = (
    *CPU,
    *NUMA,
    *MEMORY,
    *STORAGE,
    *GPU,
    *DRIVER,
    *PCIE,
    *NETWORK,
    *IRQ,
    *LIMITS,
    *BOOT,
)
BY_ID: dict[str, Tunable] = {tunable.id: tunable for tunable in TUNABLES}
