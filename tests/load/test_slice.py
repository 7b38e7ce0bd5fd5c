from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from redline.load.slice import ask_for_short_slice

CODE = "import os; from redline.load.slice import *; print(ask_for_short_slice(), os.getpriority(os.PRIO_PROCESS, 0))"


def test_the_kernel_grants_it_and_nothing_else_changes() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    granted, nice = done.stdout.split()
    release = tuple(int(part) for part in platform.release().split("-")[0].split(".")[:2])
    if release >= (6, 12) and platform.machine() in ("x86_64", "aarch64"):
        assert granted == "True"
    assert nice == "0"


def test_an_unknown_machine_goes_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "s390x")
    assert ask_for_short_slice() is False
