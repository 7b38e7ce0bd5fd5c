"""Checks of the software: Python, extras, torch, engines here and in other interpreters, results file, model hub."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sqlite3
import sys
import sysconfig
import threading
import urllib.error
import urllib.request
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import redline
from redline.node.check import Check
from redline.node.interpreter import Interpreter
from redline.node.tree import Fact, is_skipped

EXTRAS = {
    "charts": (("altair", "vl_convert"), "charts in reports"),
    "ui": (("starlette", "uvicorn"), "results in a browser"),
    "tokenizers": (("tokenizers",), "prompts of exact length for engines without /tokenize"),
    "engine": (("torch", "transformers", "accelerate", "starlette", "uvicorn"), "engines transformers and redline"),
}
OWN_ENGINE = ("torch", "tokenizers", "safetensors", "starlette", "uvicorn")
HUB = "https://huggingface.co"


def check_python() -> Check:
    version = sys.version_info
    found = f"{version.major}.{version.minor}.{version.micro}"
    if version < (3, 11):
        return Check("Python", "fail", found, "redline needs 3.11 or later", "a newer Python")
    return Check("Python", "ok", f"{found}, redline {redline.__version__}", "")


def check_extra(extra: str) -> Check:
    modules, purpose = EXTRAS[extra]
    absent = [module for module in modules if find_spec(module) is None]
    name = f"redline[{extra}]"
    if absent:
        return Check(name, "missing", f"no {', '.join(absent)}", f"without it: no {purpose}", f"pip install '{name}'")
    return Check(name, "ok", "installed", purpose)


def check_torch(build: dict[str, Any] | None, gpu: Fact) -> Check:
    """The build must fit the box: CUDA on a GPU box, CPU elsewhere."""
    has_gpu = not is_skipped(gpu)
    if build is None or "skipped" in build:
        return Check(
            "torch",
            "missing",
            "not installed",
            "without it: no engine of our own environment",
            "pip install 'redline[engine]'",
        )
    kind = f"CUDA {build['cuda']}" if build["cuda"] else f"ROCm {build['hip']}" if build["hip"] else "CPU"
    found = f"{build['version']} ({kind} build)"
    if kind == "CPU" and has_gpu:
        how = "pip install --force-reinstall torch -c constraints/gpu.txt, or make setup on this box"
        return Check("torch", "warn", found, "the GPU stays unused: this build cannot see it", how)
    if kind != "CPU" and not has_gpu:
        how = "pip install --force-reinstall torch -c constraints/cpu.txt"
        return Check("torch", "warn", found, "works on the CPU, but carries gigabytes that nothing here uses", how)
    return Check("torch", "ok", found, "fits this box")


def check_transformers() -> Check:
    try:
        return Check("engine transformers", "ok", metadata.version("transformers"), "can be served and compared")
    except metadata.PackageNotFoundError:
        return Check(
            "engine transformers", "missing", "not installed", "cannot be compared", "pip install 'redline[engine]'"
        )


def check_own_engine() -> Check:
    absent = [module for module in OWN_ENGINE if find_spec(module) is None]
    if absent:
        return Check(
            "engine redline", "missing", f"no {', '.join(absent)}", "cannot be served", "pip install 'redline[engine]'"
        )
    if find_spec("llguidance") is None:
        return Check("engine redline", "warn", "no llguidance", "no structured outputs", "pip install llguidance")
    return Check("engine redline", "ok", redline.__version__, "can be served and compared")


def check_vllm(pythons: list[Interpreter], gpu: Fact) -> Check:
    """The first interpreter that has vLLM; `pythons` begins with our own."""
    having = [python for python in pythons if python.vllm]
    if not having:
        build = "vllm" if not is_skipped(gpu) else "the CPU build"
        how = (
            "make vllm (CPU build, in .venv-vllm)"
            if is_skipped(gpu)
            else "python3 -m venv .venv-vllm && .venv-vllm/bin/pip install vllm"
        )
        return Check(
            "engine vllm",
            "missing",
            _unanswered(pythons) or "not installed",
            f"cannot be compared; {build} would run here",
            how,
        )
    first = having[0]
    found = f"{first.vllm} in {_where(first)}"
    cpu_build = "cpu" in first.vllm or "+cpu" in first.packages.get("torch", "")
    if not is_skipped(gpu) and cpu_build:
        return Check(
            "engine vllm",
            "warn",
            found,
            "the CPU build: the GPU stays unused",
            "pip install vllm in another environment",
        )
    if is_skipped(gpu) and not cpu_build:
        return Check("engine vllm", "warn", found, "a CUDA build, and no GPU here: it will not start", "make vllm")
    use = "" if first is pythons[0] else f"; name it with python: {first.path}"
    return Check("engine vllm", "ok", found, f"can be served and compared{use}")


def check_compiler() -> Check:
    """Engines compile kernels at their start (torch.compile, Triton)."""
    found = next(filter(None, map(shutil.which, ("g++", "c++", "clang++"))), None)
    if found is None:
        how = "apt install g++ (or dnf install gcc-c++)"
        return Check("C++ compiler", "missing", "none", "engines cannot compile kernels; vllm needs enforce-eager", how)
    headers = Path(sysconfig.get_paths()["include"], "Python.h").exists()
    beside = "" if headers else "; Python's headers are missing, which Triton needs on a GPU"
    return Check("C++ compiler", "ok", found, f"engines can compile kernels{beside}")


def _where(python: Interpreter) -> str:
    return "this environment" if python.path == Path(sys.executable) else str(python.path)


def _unanswered(pythons: list[Interpreter]) -> str:
    return "; ".join(f"{python.path}: {python.error}" for python in pythons if python.error)


def check_results(db: Path) -> Check:
    """Can results be written, and can this version read them? Opens the file read-only and creates nothing."""
    name = "results file"
    folder = next((parent for parent in db.absolute().parents if parent.exists()), Path("/"))
    if not db.exists():
        if not os.access(folder, os.W_OK):
            return Check(name, "fail", f"{db} cannot be made", f"{folder} is not writable", "--db FILE elsewhere")
        return Check(name, "ok", f"{db} (made at the first run)", "nothing measured yet")
    try:
        uri = db.resolve().as_uri() + "?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=1)) as connection:
            runs = connection.execute("SELECT count(*) FROM run").fetchone()[0]
            writer = connection.execute("SELECT redline_version FROM migration ORDER BY name DESC").fetchone()[0]
    except sqlite3.Error as error:
        return Check(name, "fail", str(db), f"not usable: {error}", "name another file with --db")
    if _newer(str(writer), redline.__version__):
        how = f"pip install -U 'redline>={writer}', or another file with --db"
        return Check(name, "fail", str(db), f"written by redline {writer}; this is {redline.__version__}", how)
    if not os.access(db, os.W_OK) or not os.access(db.absolute().parent, os.W_OK):
        return Check(
            name, "warn", f"{db}, {runs} runs", "can be read but not written", "fix its permissions, or --db FILE"
        )
    return Check(name, "ok", f"{db}, {runs} runs", "readable and writable")


def _newer(one: str, other: str) -> bool:
    def key(version: str) -> list[int]:
        return [int("".join(filter(str.isdigit, part)) or 0) for part in version.split("+")[0].split(".")]

    return key(one) > key(other)


def check_hub(timeout_s: float = 1.0) -> Check:
    """Is the model hub in reach? Asked once, shortly, in a thread: a name server that is silent would hold us up."""
    name = "model hub"
    cached = _cached_models()
    beside = f"{cached or 'no'} models in the local cache, {'a' if _has_token() else 'no'} token for gated ones"
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return Check(name, "ok", f"switched off by HF_HUB_OFFLINE; {beside}", "folders and bundled models work")
    answer: list[str] = []
    asked = threading.Thread(target=lambda: answer.append(_reach(timeout_s)), daemon=True)
    asked.start()
    asked.join(timeout_s + 0.2)
    problem = answer[0] if answer else f"no answer within {timeout_s:g} s"
    if not problem:
        return Check(name, "ok", f"in reach; {beside}", "models can be named by their hub id")
    how = "download the model elsewhere and name its folder; or set HTTPS_PROXY"
    return Check(name, "missing", f"{problem}; {beside}", "only folders, bundled and cached models work", how)


def _reach(timeout_s: float) -> str:
    """'' when the hub answers, else why not."""
    try:
        request = urllib.request.Request(f"{HUB}/api/models?limit=1", method="HEAD")
        with urllib.request.urlopen(request, timeout=timeout_s):
            return ""
    except urllib.error.HTTPError:
        return ""  # an answer, whatever it says
    except urllib.error.URLError as error:
        unknown = isinstance(error.reason, socket.gaierror)
        return "not in reach: its name cannot be resolved" if unknown else f"not in reach: {error.reason}"
    except (OSError, ValueError) as error:
        return f"not in reach: {error}"


def _hub_home() -> Path:
    return Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")


def _has_token() -> bool:
    return bool(os.environ.get("HF_TOKEN")) or (_hub_home() / "token").is_file()


def _cached_models() -> int:
    folder = Path(os.environ.get("HF_HUB_CACHE") or _hub_home() / "hub")
    return sum(1 for _ in folder.glob("models--*"))
