"""What this box is: everything that may explain a number, read without changing or loading anything.

Every fact is there or says why not: `{"skipped": reason, "how": how to get it}`. Nothing identifies the box or a
person: the host's name and GPU ids are hashed.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from redline.clock import wall_time
from redline.node.cpu import cpu_facts
from redline.node.gpu import gpu_facts
from redline.node.kernel import box_hash, kernel_facts, limit_facts, load_facts, virtualisation
from redline.node.memory import memory_facts
from redline.node.packages import package_versions, python_facts, redline_facts, torch_build, wheel_versions
from redline.node.tree import Fact, skipped


def facts(root: Path = Path("/"), nvml_library: Any = None) -> Fact:
    """All facts as JSON-like data. `root` holds proc/, sys/ and etc/; another one than / is a recorded box."""
    return {"taken_wall": wall_time(), **asked(root, nvml_library), **read_from(root)}


def asked(root: Path = Path("/"), nvml_library: Any = None) -> Fact:
    """What the driver, this process and its Python tell: nothing that a copy of the box's files could."""
    return guarded(
        {
            "box_hash": lambda: box_hash(root),
            "architecture": platform.machine,
            "gpu": lambda: gpu_facts(nvml_library),
            "limits": limit_facts,
            "python": python_facts,
            "packages": package_versions,
            "wheels": wheel_versions,
            "torch_build": lambda: torch_build() or skipped("torch is not installed", "pip install 'redline[engine]'"),
            "redline": redline_facts,
        }
    )


def read_from(root: Path, architecture: str = "") -> Fact:
    """What files tell, of this box or of a copy. `architecture` of a box that is not this one."""
    return guarded(
        {
            "cpu": lambda: cpu_facts(root, architecture),
            "memory": lambda: memory_facts(root),
            "kernel": lambda: kernel_facts(root),
            "virtualisation": lambda: virtualisation(root),
            "load": lambda: load_facts(root),
        }
    )


def guarded(probes: Mapping[str, Callable[[], Any]]) -> Fact:
    """Answer of every probe; one that breaks is on record and stops nothing: odd boxes are measured, too."""
    found: Fact = {}
    for name, probe in probes.items():
        try:
            found[name] = probe()
        except Exception as error:
            found[name] = skipped(f"the probe failed: {type(error).__name__}: {error}")
    return found
