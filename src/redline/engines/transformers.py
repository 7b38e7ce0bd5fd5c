"""Hugging Face transformers, through the server in `hf_server/`: plain, static or continuous batching.

The server runs in the interpreter that `python` names and needs no redline there. `flags` are its command line:
`batching: continuous` is a second engine beside `batching: plain`. What redline adds, and records in
`Endpoint.added`: `--seed`, HF_HUB_OFFLINE=1 for a local folder, PYTHONUNBUFFERED and PYTHONFAULTHANDLER.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

from redline.engines import hf_server
from redline.engines.endpoint import Dialect
from redline.engines.engine import Progress, Start
from redline.engines.flags import FlagTable, normal
from redline.engines.hf_server import flags as server_flags
from redline.engines.launch import LaunchedServer, Plan, engine_env, interpreter, launch
from redline.engines.of_python import (
    FIELDS,
    PythonServer,
    log_variables,
    model_flags,
    ready_values,
    table_of,
    versions,
)
from redline.engines.ready import Phase, Ready
from redline.errors import Unsupported, UsageError
from redline.spec.engine import EngineSpec, FlagValue
from redline.spec.model import ModelSpec
from redline.spec.resolve import ResolvedModel, ensure_available

SERVER = Path(hf_server.__file__).parent
NEEDED = ("torch", "transformers", "starlette", "uvicorn")
DIALECT = Dialect(
    ignore_eos=True,
    min_tokens=True,
    token_id_prompts=True,
    tokenize=True,
    stream_usage=True,
    continuous_usage=True,
)
OURS = {
    **FIELDS,
    "random-weights": "the model's field `random_weights`",
}

PHASES = (
    Phase("import", "importing torch and transformers", re.compile("^redline-hf-phase importing")),
    Phase("tokenizer", "reading the tokenizer", re.compile("^redline-hf-phase reading")),
    Phase("load", "loading weights", re.compile("^redline-hf-phase (?:loading|initialising)")),
    Phase("prepare", "preparing the batching", re.compile("^redline-hf-phase preparing")),
    Phase("warm_up", "warming up", re.compile("^redline-hf-phase warming")),
)


class TransformersEngine(PythonServer):
    """Adapter for the server in `hf_server/`."""

    kind = "transformers"
    package = "transformers"
    needed = NEEDED
    ours = OURS

    def table(self) -> FlagTable:
        return flag_table()

    def check(self, spec: EngineSpec, model: ModelSpec) -> None:
        self.check_flags(spec, model)
        if spec.api_key_env:
            raise UsageError("the transformers server asks for no API key", fix="Leave api_key_env out.")
        self._check_batching(spec)
        ensure_available(model)

    def _check_batching(self, spec: EngineSpec) -> None:
        batching = {normal(name): value for name, value in spec.flags.items()}.get("batching")
        version = versions(spec, NEEDED)["transformers"]
        if batching == "continuous" and version and server_flags.version_tuple(version) < server_flags.CONTINUOUS_NEEDS:
            needed = ".".join(map(str, server_flags.CONTINUOUS_NEEDS))
            raise Unsupported(
                f"batching: continuous needs transformers {needed} or newer; {version} is installed",
                fix=f"pip install -U 'transformers>={needed}'",
            )

    def start(self, start: Start, progress: Progress) -> LaunchedServer:
        self.require(start.spec)
        spec = start.spec
        python = interpreter(spec.python)
        model = ensure_available(start.model)
        flags, added = _flags(start, model)
        variables = log_variables(spec, model)

        def command(port: int) -> list[str]:
            where: dict[str, FlagValue] = {"host": spec.host, "port": port}
            return [python, str(SERVER), *flag_table().arguments({**flags, **where, **spec.flags})]

        plan = Plan(
            engine=self.kind,
            version=versions(spec, NEEDED)["transformers"],
            model=start.model.served_name,
            argv=command,
            env=engine_env(spec, python, variables),
            phases=PHASES,
            dialect=DIALECT,
            flags=resolved,
            added={**added, **variables},
        )
        return launch(plan, start, progress)


def resolved(_ready: Ready, log: str) -> dict[str, str]:
    """What the server says that it runs with: flags, and the versions of what it runs on."""
    return ready_values("redline-hf", log)


def _flags(start: Start, model: ResolvedModel) -> tuple[dict[str, FlagValue], dict[str, str]]:
    return model_flags(start, model, {"random-weights": True})


@lru_cache
def flag_table() -> FlagTable:
    """The server's flags, from its own parser."""
    return table_of(server_flags.parser())
