"""Nsight Systems around an engine: the words in front of its command, and the reports that it leaves."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from redline.errors import EnvironmentFault

EXPORT_S = 300.0
NAME = "nsys"


def require_nsys() -> None:
    """EnvironmentFault without it."""
    if shutil.which("nsys") is None:
        raise EnvironmentFault(
            "nsys (Nsight Systems) is not installed",
            fix="install NVIDIA's package nsight-systems-cli, or leave --with nsys out: the engine's own torch profiler"
            " is used then",
        )


def nsys_wrap(folder: Path) -> tuple[str, ...]:
    """What stands in front of the command of an engine that is profiled into `folder`, which one server has for itself.
    Each /start_profile … /stop_profile becomes a report of its own."""
    return (
        "nsys",
        "profile",
        "--output",
        str(folder.absolute() / NAME),
        "--force-overwrite=true",
        "--trace=cuda,nvtx",
        "--sample=none",
        "--cpuctxsw=none",
        "--trace-fork-before-exec=true",
        "--cuda-graph-trace=node",
        "--capture-range=cudaProfilerApi",
        "--capture-range-end=repeat",
        "--kill=none",
    )


def exported(folder: Path) -> list[Path | None]:
    """Every report of the folder as SQLite, in the order of the ranges; None for one that nsys does not export."""
    return [_exported(report) for report in sorted(folder.glob(f"{NAME}*.nsys-rep"), key=_number)]


def _exported(report: Path) -> Path | None:
    target = report.with_suffix(".sqlite")
    command = ["nsys", "export", "--type", "sqlite", "--force-overwrite=true", "--output", str(target), str(report)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=EXPORT_S, check=False)
    except (subprocess.TimeoutExpired, OSError):
        return None
    return target if done.returncode == 0 else None


def _number(path: Path) -> int:
    """`nsys.12.nsys-rep` is the twelfth."""
    found = re.search(r"\.(\d+)\.nsys-rep$", path.name)
    return int(found[1]) if found else 0
