"""Runs redline as its users do: as a program, in a folder of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from redline.store.read import Reader
from redline.store.rows import RunRow

COMMAND = [sys.executable, "-m", "redline"]
SHORT = ["--prompt-tokens", "16", "--output-tokens", "8", "--duration", "3", "--drain", "3", "--warmup-requests", "1"]


def run(folder: Path, *arguments: str, code: int = 0, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*COMMAND, *arguments], cwd=folder, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL
    )
    assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """In the background, with stdout and stderr in files of `folder`."""
    with (folder / "stdout").open("w") as out, (folder / "stderr").open("w") as err:
        return subprocess.Popen(
            [*COMMAND, *arguments], cwd=folder, stdout=out, stderr=err, text=True, stdin=subprocess.DEVNULL
        )


def wait_for(what: Callable[[], Any], timeout_s: float = 90, every_s: float = 0.2) -> Any:
    """The first true value of `what`; AssertionError when the time is over."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        value = what()
        if value:
            return value
        time.sleep(every_s)
    raise AssertionError("it never came")


def stored(folder: Path) -> RunRow | None:
    """The last run of the folder's results file, once there is one."""
    path = folder / "redline-results" / "redline.db"
    if not path.exists():
        return None
    with Reader.open(path) as reader:
        return reader.run("last") if reader.runs(1) else None


def answered(folder: Path) -> int:
    """Good requests of the last run."""
    done = subprocess.run(
        [*COMMAND, "sql", "select count(*) n from request where status = 'ok' and warmup = 0 and canary < 0", "--json"],
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    return int(json.loads(done.stdout)[0]["n"]) if done.returncode == 0 else 0


def engine_pids(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Everything that redline started and everything that those started."""
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def all_gone(processes: list[psutil.Process]) -> bool:
    return not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)
