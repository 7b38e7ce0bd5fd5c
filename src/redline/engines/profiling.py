"""An engine's flags for a profile: the profiler on, caches of prefixes off, room for exactly what will be asked.

An adapter that a plug-in brings may have a method `profiled(spec, wanted) -> EngineSpec` of its own; its server must
then answer POST /start_profile and /stop_profile and write Chrome traces into `wanted.folder`.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redline.engines.flags import normal
from redline.engines.vllm_install import Install, find
from redline.errors import Unsupported, UsageError
from redline.spec.engine import EngineSpec, FlagValue

COMPANY_WAIT_MS = 5000.0
"""The static server closes a batch when it is full; until then it waits so long for the others."""
VLLM_NEEDS = (0, 13)
"""Before it, the environment variable VLLM_TORCH_PROFILER_DIR turned the profiler on."""


@dataclass(frozen=True)
class Wanted:
    """What is going to be profiled. `outer`: a profiler around the process (nsys) records, the engine marks ranges."""

    folder: Path
    batch: int
    length: int
    """Longest prompt and its answer, in tokens."""
    outer: bool = False


def profiled(engine: Any, spec: EngineSpec, wanted: Wanted) -> EngineSpec:
    """`spec` with what a profile needs; flags that the user gave stay. Unsupported for an engine without a profiler."""
    own: Callable[[EngineSpec, Wanted], EngineSpec] | None = getattr(engine, "profiled", None)
    if own is not None:
        return own(spec, wanted)
    makers = {"vllm": _vllm, "redline": _redline, "transformers": _transformers, "url": lambda *_: {}}
    if spec.kind not in makers:
        raise Unsupported(
            f"redline does not know how to profile {spec.kind}", fix=f"known: {', '.join(makers)}, or a plug-in's own"
        )
    given = {normal(name) for name in spec.flags}
    more = {name: value for name, value in makers[spec.kind](spec, wanted).items() if normal(name) not in given}
    return spec.model_copy(update={"flags": {**more, **spec.flags}})


def _redline(_: EngineSpec, wanted: Wanted) -> Mapping[str, FlagValue]:
    return {
        "profile-dir": str(wanted.folder),
        "profiler": "cuda" if wanted.outer else "torch",
        "max-model-len": wanted.length,
        "max-num-seqs": wanted.batch,
        "enable-prefix-caching": False,
    }


def _transformers(spec: EngineSpec, wanted: Wanted) -> Mapping[str, FlagValue]:
    """`plain` computes one request at a time: a batch needs static batching, unless continuous is asked for."""
    asked = {normal(name): value for name, value in spec.flags.items()}.get("batching", "")
    if asked == "plain" and wanted.batch > 1:
        raise UsageError(
            f"batching: plain computes one request at a time, and the batch is {wanted.batch}",
            fix="leave it out (static is chosen), or profile transformers-continuous",
        )
    batching = str(asked or ("static" if wanted.batch > 1 else "plain"))
    flags: dict[str, FlagValue] = {
        "profile-dir": str(wanted.folder),
        "profiler": "cuda" if wanted.outer else "torch",
        "batching": batching,
        "max-model-len": wanted.length,
    }
    if batching == "static":
        flags |= {"max-batch-size": wanted.batch, "batch-wait-ms": COMPANY_WAIT_MS}
    if batching == "continuous":
        flags |= {"max-batch-size": wanted.batch, "prefix-caching": False}
    return flags


def _vllm(spec: EngineSpec, wanted: Wanted) -> Mapping[str, FlagValue]:
    install = find(spec)
    if install is None:
        return {}  # `available` says it better
    return {
        "profiler-config": json.dumps(vllm_profiler(install, wanted)),
        "max-model-len": wanted.length,
        "max-num-seqs": wanted.batch,
        "enable-prefix-caching": False,
    }


def vllm_profiler(install: Install, wanted: Wanted) -> dict[str, Any]:
    """vLLM's --profiler-config, with the fields that this version has.

    Stacks are off: they make a trace ten times as large and the flush as slow. The detailed annotation splits prefill
    from decode; versions without it annotate nothing else in its place.
    """
    known = profiler_fields(install)
    if not known:
        needed = ".".join(map(str, VLLM_NEEDS))
        raise Unsupported(
            f"vLLM {install.version} has no --profiler-config", fix=f"profile vLLM {needed} or newer, or use nsys"
        )
    if wanted.outer:
        return {"profiler": "cuda"}
    asked = {
        "profiler": "torch",
        "torch_profiler_dir": str(wanted.folder),
        "torch_profiler_with_stack": False,
        "torch_profiler_use_gzip": True,
        "torch_profiler_dump_cuda_time_total": False,
        "detailed_trace_annotation": True,
        "ignore_frontend": True,
    }
    return {name: value for name, value in asked.items() if name in known}


def profiler_fields(install: Install) -> frozenset[str]:
    """The fields of this vLLM's ProfilerConfig, read from its source: importing it takes ten seconds."""
    file = Path(install.folder) / "config" / "profiler.py"
    try:
        tree = ast.parse(file.read_text("utf-8", "replace"))
    except (OSError, SyntaxError):
        return frozenset()
    return frozenset(
        line.target.id
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name == "ProfilerConfig"
        for line in node.body
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
    )
