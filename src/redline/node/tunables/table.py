"""All rows, in the order in which they are shown."""

from __future__ import annotations

from redline.node.tunables.memory import MEMORY
from redline.node.tunables.tunable import Tunable

TUNABLES: tuple[Tunable, ...] = MEMORY
BY_ID: dict[str, Tunable] = {tunable.id: tunable for tunable in TUNABLES}
