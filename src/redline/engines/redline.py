"""redline's own engine (`redline.runtime`): continuous batching over paged KV, on a CPU or a GPU.

The server runs as `python -m redline.runtime.serve` in the interpreter that `python` names; redline must be installed
there. `flags` are its command line. What redline adds, and records in `Endpoint.added`: `--seed`; HF_HUB_OFFLINE=1 for
a local folder; PYTHONUNBUFFERED and PYTHONFAULTHANDLER, so that the log holds the last words.
"""

from __future__ import annotations

import re
from functools import lru_cache

from redline.engines import redline_flags
from redline.engines.endpoint import Dialect
from redline.engines.engine import Progress, Start
from redline.engines.flags import FlagTable, normal
from redline.engines.launch import LaunchedServer, Plan, engine_env, interpreter, launch
from redline.engines.of_python import (
    FIELDS,
    PythonServer,
    api_key,
    log_variables,
    model_flags,
    ready_values,
    table_of,
    versions,
)
from redline.engines.ready import Phase, Ready
from redline.errors import UsageError
from redline.spec.engine import EngineSpec, FlagValue
from redline.spec.model import ModelSpec
from redline.spec.resolve import ResolvedModel, ensure_available

MODULE = "redline.runtime.serve"
NEEDED = ("redline", "torch", "tokenizers", "safetensors", "starlette", "uvicorn")
DIALECT = Dialect(
    ignore_eos=True,
    min_tokens=True,
    token_id_prompts=True,
    tokenize=True,
    stream_usage=True,
    logprobs=True,
    continuous_usage=True,
    priority=True,
)
TRACES = "otlp-traces-endpoint"
OURS = {
    **FIELDS,
    "load-format": "the model's field `random_weights`",
    "api-key-env": "the engine's field `api_key_env`",
}

PHASES = (
    Phase("import", "importing torch", re.compile("^redline-engine-phase importing")),
    Phase("load", "loading weights", re.compile("^redline-engine-phase (?:loading|kernels|weights)")),
    Phase("tokenizer", "reading the tokenizer", re.compile("^redline-engine-phase reading the tokenizer")),
    Phase("warm_up", "warming up", re.compile("^redline-engine-phase warming")),
)


class RedlineEngine(PythonServer):
    """Adapter for the server in `redline.runtime`."""

    kind = "redline"
    package = "redline"
    needed = NEEDED
    ours = OURS

    def table(self) -> FlagTable:
        return flag_table()

    def check(self, spec: EngineSpec, model: ModelSpec) -> None:
        self.check_flags(spec, model)
        for name, value in spec.flags.items():
            if normal(name) == "speculation":
                _check_speculation(str(value))
        ensure_available(model)

    def start(self, start: Start, progress: Progress) -> LaunchedServer:
        self.require(start.spec)
        spec, python = start.spec, interpreter(start.spec.python)
        model = ensure_available(start.model)
        flags, added = _flags(start, model)
        variables = log_variables(spec, model)
        key = api_key(spec)
        env = engine_env(spec, python, variables)
        if redline_flags.KEY_VARIABLE not in spec.env:
            env.pop(redline_flags.KEY_VARIABLE, None)  # of the user's shell: nobody here would send it
        env |= {redline_flags.KEY_VARIABLE: key} if key else {}

        def command(port: int) -> list[str]:
            where: dict[str, FlagValue] = {"host": spec.host, "port": port}
            return [python, "-m", MODULE, *flag_table().arguments({**flags, **where, **spec.flags})]

        plan = Plan(
            engine=self.kind,
            version=versions(spec, NEEDED)["redline"],
            model=start.model.served_name,
            argv=command,
            env=env,
            phases=PHASES,
            dialect=DIALECT,
            flags=resolved,
            added={**added, **variables, **({redline_flags.KEY_VARIABLE: f"from {spec.api_key_env}"} if key else {})},
            headers={"Authorization": f"Bearer {key}"} if key else {},
        )
        return launch(plan, start, progress)


def resolved(_ready: Ready, log: str) -> dict[str, str]:
    """What the server says that it runs with."""
    return ready_values("redline-engine", log)


def _check_speculation(text: str) -> None:
    try:
        redline_flags.speculation(text)
    except ValueError as error:
        raise UsageError(f"--speculation: {error}", fix="speculation: ngram, or an object with `method`.") from error


def _flags(start: Start, model: ResolvedModel) -> tuple[dict[str, FlagValue], dict[str, str]]:
    flags, added = model_flags(start, model, {"load-format": "random"})
    if start.traces_url and TRACES not in map(normal, start.spec.flags):
        flags, added = {**flags, TRACES: start.traces_url}, {**added, f"--{TRACES}": start.traces_url}
    return flags, added


@lru_cache
def flag_table() -> FlagTable:
    """The server's flags, from its own parser."""
    return table_of(redline_flags.parser())
