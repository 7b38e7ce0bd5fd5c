"""Nsight Systems around an engine: the words in front of its command, and the reports that it leaves."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from redline.errors import EnvironmentFault, Skipped

EXPORT_S = 300.0
NAME = "nsys"


def nsys_missing() -> Skipped | None:
    if shutil.which("nsys"):
        return None
    return Skipped(
        "nsys (Nsight Systems) is not installed",
        "NVIDIA's package nsight-systems-cli; without it the engine's own torch profiler is used",
    )


def nsys_wrap(folder: Path) -> tuple[str, ...]:
    """What stands in front of the engine's command. Each /start_profile … /stop_profile becomes a report of its own."""
    program = shutil.which("nsys")
    if program is None:
        skipped = nsys_missing()
        raise EnvironmentFault(skipped.reason if skipped else "nsys is gone", fix="leave --with nsys out")
    return (
        program,
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


def exported(folder: Path) -> list[Path]:
    """Every report of the folder as SQLite, in the order of the ranges."""
    made = []
    for report in sorted(folder.glob(f"{NAME}*.nsys-rep"), key=_number):
        target = report.with_suffix(".sqlite")
        command = ["nsys", "export", "--type", "sqlite", "--force-overwrite=true", "--output", str(target), str(report)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=EXPORT_S, check=False)
        if done.returncode:
            raise EnvironmentFault(f"nsys cannot export {report.name}", why=done.stderr.strip()[-400:])
        made.append(target)
    return made


def _number(path: Path) -> int:
    """`nsys.12.nsys-rep` is the twelfth."""
    found = re.search(r"\.(\d+)\.nsys-rep$", path.name)
    return int(found[1]) if found else 0
