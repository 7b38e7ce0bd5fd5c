"""What a start costs is decided by what is imported: a worker needs no numbers, and no schema of an experiment."""

from __future__ import annotations

import subprocess
import sys

import orjson

HEAVY = ("numpy", "pydantic", "yaml", "rich", "typer", "sqlite3", "psutil", "jinja2", "asyncio", "urllib.request")
BEFORE_A_REQUEST = ("numpy.random", "rich.markdown", "jinja2", "asyncio", "tokenizers", "torch", "transformers")


def imported(module: str, names: tuple[str, ...]) -> list[str]:
    code = f"import sys, orjson, {module}; print(orjson.dumps([m for m in {names!r} if m in sys.modules]).decode())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return list(orjson.loads(done.stdout))


def test_a_worker_imports_nothing_heavy() -> None:
    assert imported("redline.load.worker", HEAVY) == []


def test_a_run_imports_no_more_than_it_needs_to_begin() -> None:
    assert imported("redline.tune.bench", BEFORE_A_REQUEST) == []
