"""Triton kernels against plain torch, and compiled for Hopper; each in an interpreter of its own.

Whether Triton interprets or compiles is settled when it is first imported, so the cases run in child processes.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("triton") is None, reason="Triton is not installed: pip install triton"
    ),
    pytest.mark.timeout(240),
    pytest.mark.slow,
]


@pytest.mark.parametrize("cases", ["cases_kernels.py", "cases_draw.py", "cases_runner.py"])
def test_interpreted_on_the_cpu(cases: str) -> None:
    run(cases, {"TRITON_INTERPRET": "1"})


def test_compiled_for_hopper(tmp_path: Path) -> None:
    run("cases_compile.py", {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)})


def test_nothing_is_compiled_while_serving(tmp_path: Path) -> None:
    run("cases_variants.py", {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)})


def run(cases: str, environment: dict[str, str]) -> None:
    # the interpreter's numpy warns of every inf - inf, which are what some cases are about
    options = [
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "-W",
        "ignore",
        "-o",
        "timeout=200",
    ]
    command = [sys.executable, *options, str(HERE / cases)]
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    child = subprocess.run(
        command, env=os.environ | one_thread | environment, capture_output=True, text=True, check=False
    )
    assert child.returncode == 0, child.stdout[-4000:] + child.stderr[-1000:]
