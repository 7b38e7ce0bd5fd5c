"""One BLAS thread in redline's own processes; what it starts for others is left alone.

numpy's OpenBLAS starts a thread per core and lets them spin between products. redline multiplies small matrices only:
on 16 cores, reporting a million requests took 54 s of CPU with those threads and 21 s without, and was not slower
(docs/scale.md). Spinning threads beside a measurement would be worse than slow.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

NAME = "OPENBLAS_NUM_THREADS"
_ours = False


def one_thread() -> None:
    """Before numpy is imported, and only where the user has not decided."""
    global _ours
    if NAME not in os.environ:
        os.environ[NAME] = "1"
        _ours = True


def leave_alone(environment: MutableMapping[str, str]) -> None:
    """Takes our choice out of an environment that is meant for an engine."""
    if _ours and environment.get(NAME) == "1":
        del environment[NAME]
