"""What this box is: everything that may explain a number, read without changing or loading anything.

Every fact is there or says why not: `{"skipped": reason, "how": how to get it}`. Nothing identifies the box or a
person: the host's name and GPU ids are hashed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from redline.clock import wall_time
from redline.node.cpu import cpu_facts
from redline.node.gpu import gpu_facts
from redline.node.kernel import box_hash, kernel_facts, limit_facts, load_facts, virtualisation
from redline.node.memory import memory_facts
from redline.node.packages import package_versions, python_facts, redline_facts, torch_build
from redline.node.tree import Fact, skipped


def facts(root: Path = Path("/"), nvml_library: Any = None) -> Fact:
    """All facts as JSON-like data. `root` holds proc/, sys/ and etc/; another one than / is a recorded box."""
    probes: dict[str, Callable[[], Any]] = {
        "box_hash": lambda: box_hash(root),
        "cpu": lambda: cpu_facts(root),
        "memory": lambda: memory_facts(root),
        "gpu": lambda: gpu_facts(nvml_library),
        "kernel": lambda: kernel_facts(root),
        "virtualisation": lambda: virtualisation(root),
        "load": lambda: load_facts(root),
        "limits": limit_facts,
        "python": python_facts,
        "packages": package_versions,
        "torch_build": lambda: torch_build() or skipped("torch is not installed", "pip install 'redline[engine]'"),
        "redline": redline_facts,
    }
    found: Fact = {"taken_wall": wall_time()}
    for name, probe in probes.items():
        try:
            found[name] = probe()
        except Exception as error:  # an odd box must not stop a measurement; what is odd about it is on record
            found[name] = skipped(f"the probe failed: {type(error).__name__}: {error}")
    return found
