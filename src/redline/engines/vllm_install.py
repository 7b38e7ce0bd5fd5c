"""Which vLLM: where it is, which version and build, and which flags it knows."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from redline.engines.flags import Flag, FlagTable
from redline.engines.launch import interpreter
from redline.errors import EnvironmentFault
from redline.spec.engine import EngineSpec
from redline.spec.shapes import default_cache

PROBE = Path(__file__).with_name("vllm_probe.py")
LOCAL_VENV = ".venv-vllm"
LOOK_TIMEOUT_S = 60.0
FLAGS_TIMEOUT_S = 300.0
CACHE_VERSION = 1
SPAN_PACKAGES = (
    *("opentelemetry-sdk", "opentelemetry-api", "opentelemetry-exporter-otlp", "opentelemetry-semantic-conventions-ai"),
)
_MISSING = """
import importlib.util, sys
for name in sys.argv[1:]:
    try:
        found = importlib.util.find_spec(name)
    except ImportError:
        found = None
    if found is None:
        print(name)
        break
"""
_SPAN_MODULES = (
    *("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http", "opentelemetry.exporter.otlp.proto.grpc"),
    "opentelemetry.semconv_ai",
)
"""It imports both ways of sending, whichever it is told to use."""


@dataclass(frozen=True)
class Install:
    """One installed vLLM. `build` is cpu, cuda, rocm or unknown; `module` is what `python -m` starts."""

    python: str
    version: str
    build: str
    module: str
    folder: str
    stamp: int
    distribution: str

    @property
    def label(self) -> str:
        """`0.30.0+cpu`: the CPU build is another engine in all but name."""
        return f"{self.version}+cpu" if self.build == "cpu" and "cpu" not in self.version else self.version


def find(spec: EngineSpec) -> Install | None:
    """The vLLM of `spec.python`; without one, ours, else the one in ./.venv-vllm. None when there is none.

    EnvironmentFault when `spec.python` is no interpreter.
    """
    candidates = [spec.python] if spec.python else ["", *([LOCAL_VENV] if Path(LOCAL_VENV).is_dir() else [])]
    for candidate in candidates:
        python = interpreter(candidate)
        found = _look(python, _path_variables(spec))
        if found["found"]:
            return Install(
                python, found["version"], found["build"], found["module"], found["folder"], found["stamp"],
                found["distribution"],
            )  # fmt: skip
    return None


def flag_table(install: Install, spec: EngineSpec) -> FlagTable:
    """All flags of this vLLM's server. Asking takes 5 to 30 s, so the answer is kept until the install changes."""
    known = f"{CACHE_VERSION}:{install.python}:{install.folder}:{install.version}:{install.stamp}"
    file = default_cache() / "flags" / f"vllm-{hashlib.sha256(known.encode()).hexdigest()[:16]}.json"
    with suppress(OSError, orjson.JSONDecodeError, KeyError):
        return FlagTable(Flag.from_json(row) for row in orjson.loads(file.read_bytes())["flags"])
    answer = _ask(install.python, "flags", _path_variables(spec), FLAGS_TIMEOUT_S)
    with suppress(OSError):  # a read-only home costs the wait again, nothing else
        _write(file, orjson.dumps(answer))
    return FlagTable(Flag.from_json(row) for row in answer["flags"])


def missing_for_spans(python: str) -> str:
    """The first module that vLLM's tracing needs and this interpreter lacks; '' when it has them all."""
    command = [python, "-c", _MISSING, *_SPAN_MODULES]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LOOK_TIMEOUT_S, check=False)
    return done.stdout.strip()


def _write(file: Path, data: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as part:
        part.write(data)
    Path(part.name).replace(file)


def _path_variables(spec: EngineSpec) -> tuple[tuple[str, str], ...]:
    """What of the engine's own environment decides which vLLM is found."""
    return tuple((name, spec.env[name]) for name in ("PYTHONPATH", "LD_LIBRARY_PATH") if name in spec.env)


@lru_cache(maxsize=32)
def _look(python: str, variables: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    return _ask(python, "look", variables, LOOK_TIMEOUT_S)


def _ask(python: str, question: str, variables: tuple[tuple[str, str], ...], timeout_s: float) -> dict[str, Any]:
    """The probe's answer. Its own output is the last line: vLLM may print before it."""
    quiet = {"HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "ERROR", "PYTHONSAFEPATH": "1"}
    env: Mapping[str, str] = {**os.environ, **dict(variables), **quiet}
    command = [python, "-c", PROBE.read_text(), question]
    trouble = ""
    try:
        # From a folder that holds no `vllm`: before Python 3.11 the current one comes first on sys.path with -c.
        done = subprocess.run(command, env=env, cwd="/", capture_output=True, text=True, timeout=timeout_s, check=False)
        trouble = done.stderr.strip()
        if done.returncode == 0 and (lines := done.stdout.strip().splitlines()):
            answer: dict[str, Any] = orjson.loads(lines[-1])
            return answer
    except subprocess.TimeoutExpired:
        trouble = f"no answer within {timeout_s:.0f} s"
    except (OSError, orjson.JSONDecodeError) as error:
        trouble = str(error)
    raise EnvironmentFault(
        f"the vLLM of {python} does not tell its {'flags' if question == 'flags' else 'version'}",
        why="\n".join(trouble.splitlines()[-5:]),
        fix=f"Try: {python} -c 'import vllm'",
    )


def gpu_present() -> bool:
    """True when an NVIDIA device file is there; asking the driver is `node`'s business."""
    return any(Path("/dev", name).exists() for name in ("nvidia0", "nvidiactl", "dxg"))
