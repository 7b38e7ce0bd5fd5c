"""Hugging Face transformers, through the server in `hf_server/`: plain, static or continuous batching.

The server runs in the interpreter that `python` names and needs no redline there. `flags` are its command line:
`batching: continuous` is a second engine beside `batching: plain`. What redline adds, and records in
`Endpoint.added`: `--seed`, HF_HUB_OFFLINE=1 for a local folder, PYTHONUNBUFFERED and PYTHONFAULTHANDLER.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

from redline.engines import hf_server
from redline.engines.endpoint import Dialect
from redline.engines.engine import Progress, Start
from redline.engines.flags import Flag, FlagTable, normal
from redline.engines.hf_server import flags as server_flags
from redline.engines.launch import LaunchedServer, Plan, engine_env, interpreter, launch
from redline.engines.ready import Phase, Ready
from redline.errors import EnvironmentFault, Skipped, Unsupported, UsageError
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
    "host": "the engine's field `host`",
    "port": "the engine's field `port`",
    "model": "the model's field `id`",
    "served-model-name": "the model's field `name`",
    "tokenizer": "the model's field `tokenizer`",
    "revision": "the model's field `revision`",
    "random-weights": "the model's field `random_weights`",
}
"""Flags that fields of the experiment set; a second source would let the record lie."""

READY = re.compile(r"^redline-hf-ready (\{.*\})$", re.MULTILINE)
PHASES = (
    Phase("import", "importing torch and transformers", re.compile("^redline-hf-phase importing")),
    Phase("tokenizer", "reading the tokenizer", re.compile("^redline-hf-phase reading")),
    Phase("load", "loading weights", re.compile("^redline-hf-phase (?:loading|initialising)")),
    Phase("prepare", "preparing the batching", re.compile("^redline-hf-phase preparing")),
    Phase("warm_up", "warming up", re.compile("^redline-hf-phase warming")),
)
PROBE = """
import importlib.metadata, importlib.util, json, sys
def version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "unknown" if importlib.util.find_spec(name) else ""
print(json.dumps({name: version(name) for name in sys.argv[1:]}))
"""


class TransformersEngine:
    """Adapter for the server in `hf_server/`."""

    kind = "transformers"

    def available(self, spec: EngineSpec) -> Skipped | None:
        missing = [name for name, version in _versions(spec).items() if not version]
        if not missing:
            return None
        where = f"in {spec.python}" if spec.python else "in this environment"
        install = f"{spec.python} -m pip install {' '.join(missing)}"
        return Skipped(
            f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed {where}",
            install if spec.python else "pip install 'redline[engine]'",
        )

    def version(self, spec: EngineSpec) -> str:
        self._require(spec)
        return _versions(spec)["transformers"]

    def known_flags(self, spec: EngineSpec) -> frozenset[str] | None:
        return flag_table().names()

    def check(self, spec: EngineSpec, model: ModelSpec) -> None:
        for name in map(normal, spec.flags):
            if name in OURS:
                raise UsageError(f"--{name} is not a flag of the engine here", fix=f"Use {OURS[name]}.")
        flag_table().check(spec.flags, "the transformers server")
        if model.dtype != "auto" and "dtype" in map(normal, spec.flags):
            raise UsageError("dtype is given twice: by the model and by the engine's flags", fix="Keep one of the two.")
        if spec.api_key_env:
            raise UsageError("the transformers server asks for no API key", fix="Leave api_key_env out.")
        self._check_batching(spec)
        ensure_available(model)

    def _check_batching(self, spec: EngineSpec) -> None:
        batching = {normal(name): value for name, value in spec.flags.items()}.get("batching")
        version = _versions(spec)["transformers"]
        if batching == "continuous" and version and server_flags.version_tuple(version) < server_flags.CONTINUOUS_NEEDS:
            needed = ".".join(map(str, server_flags.CONTINUOUS_NEEDS))
            raise Unsupported(
                f"batching: continuous needs transformers {needed} or newer; {version} is installed",
                fix=f"pip install -U 'transformers>={needed}'",
            )

    def start(self, start: Start, progress: Progress) -> LaunchedServer:
        self._require(start.spec)
        spec = start.spec
        python = interpreter(spec.python)
        model = ensure_available(start.model)
        flags, added = _flags(start, model)
        variables = _variables(spec, model)

        def command(port: int) -> list[str]:
            where: dict[str, FlagValue] = {"host": spec.host, "port": port}
            return [python, str(SERVER), *flag_table().arguments({**flags, **where, **spec.flags})]

        plan = Plan(
            engine=self.kind,
            version=_versions(spec)["transformers"],
            model=start.model.served_name,
            argv=command,
            env=engine_env(spec, python, variables),
            phases=PHASES,
            dialect=DIALECT,
            flags=resolved,
            added={**added, **variables},
        )
        return launch(plan, start, progress)

    def _require(self, spec: EngineSpec) -> None:
        if skipped := self.available(spec):
            raise Unsupported(skipped.reason, fix=skipped.how_to_get_it)


def resolved(_ready: Ready, log: str) -> dict[str, str]:
    """What the server says that it runs with: flags, and the versions of what it runs on."""
    found = READY.findall(log)
    if not found:
        return {}
    said = json.loads(found[-1])
    values = {**said["flags"], **{f"{name}-version": text for name, text in said["versions"].items()}}
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in values.items()}


def _flags(start: Start, model: ResolvedModel) -> tuple[dict[str, FlagValue], dict[str, str]]:
    """(flags that say what the experiment says, flags that redline adds): the second are part of the first."""
    spec = start.model
    flags: dict[str, FlagValue] = {"model": model.location, "served-model-name": spec.served_name}
    if spec.dtype != "auto":
        flags["dtype"] = spec.dtype
    if model.tokenizer_location != model.location:
        flags["tokenizer"] = model.tokenizer_location
    if spec.revision and model.hub_id:
        flags["revision"] = spec.revision
    if model.random_weights:
        flags["random-weights"] = True
    if "seed" in map(normal, start.spec.flags):
        return flags, {}
    return {**flags, "seed": start.seed}, {"--seed": str(start.seed)}


def _variables(spec: EngineSpec, model: ResolvedModel) -> dict[str, str]:
    """Environment variables that redline adds where neither the experiment nor the user's shell has a say."""
    wanted = {"PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}
    if model.path is not None and model.tokenizer_path is not None:
        wanted["HF_HUB_OFFLINE"] = "1"
    return {name: value for name, value in wanted.items() if name not in spec.env and name not in os.environ}


@lru_cache
def flag_table() -> FlagTable:
    """The server's flags, from its own parser."""
    return FlagTable(
        _flag(action) for action in server_flags.parser()._actions if not isinstance(action, argparse._HelpAction)
    )


def _flag(action: argparse.Action) -> Flag:
    names = [name.removeprefix("--") for name in action.option_strings]
    return Flag(
        name=names[0],
        aliases=tuple(names[1:]),
        kind="toggle" if isinstance(action, argparse.BooleanOptionalAction) else "value",
        type=action.type.__name__ if isinstance(action.type, type) else "",
        choices=tuple(map(str, action.choices or ())),
        default=str(action.default),
    )


def _versions(spec: EngineSpec) -> dict[str, str]:
    """Versions of what the server needs in that interpreter; '' for what is missing."""
    return _probe(interpreter(spec.python) if spec.python else sys.executable)


@lru_cache
def _probe(python: str) -> dict[str, str]:
    try:
        done = subprocess.run([python, "-c", PROBE, *NEEDED], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        output = getattr(error, "stderr", "") or str(error)
        raise EnvironmentFault(f"{python} cannot be run: {output.strip()[-300:]}") from error
    return {str(name): str(version) for name, version in json.loads(done.stdout).items()}
