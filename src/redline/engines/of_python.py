"""What adapters share whose server is a Python program with an argparse command line: packages, flags, variables."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import ClassVar

from redline.engines.engine import Start
from redline.engines.flags import Flag, FlagTable, normal
from redline.engines.launch import interpreter
from redline.errors import EnvironmentFault, Skipped, Unsupported, UsageError
from redline.spec.engine import EngineSpec, FlagValue
from redline.spec.model import ModelSpec
from redline.spec.resolve import ResolvedModel

FIELDS = {
    "host": "the engine's field `host`",
    "port": "the engine's field `port`",
    "model": "the model's field `id`",
    "served-model-name": "the model's field `name`",
    "tokenizer": "the model's field `tokenizer`",
    "revision": "the model's field `revision`",
}
"""Flags that fields of the experiment set, with that field: a second source would let the record lie."""


class PythonServer(ABC):
    """The questions that an adapter answers before anything is started."""

    kind: ClassVar[str]
    package: ClassVar[str]
    """Whose version counts as the engine's."""
    needed: ClassVar[tuple[str, ...]]
    ours: ClassVar[Mapping[str, str]]
    """Flags that fields of the experiment set, with that field."""

    @abstractmethod
    def table(self) -> FlagTable: ...

    def available(self, spec: EngineSpec) -> Skipped | None:
        return missing_packages(spec, self.needed)

    def version(self, spec: EngineSpec) -> str:
        self.require(spec)
        return versions(spec, self.needed)[self.package]

    def known_flags(self, spec: EngineSpec) -> frozenset[str] | None:
        return self.table().names()

    def check_flags(self, spec: EngineSpec, model: ModelSpec) -> None:
        no_second_source(spec.flags, self.ours)
        self.table().check(spec.flags, f"the {self.kind} server")
        dtype_once(spec.flags, model.dtype)

    def require(self, spec: EngineSpec) -> None:
        if skipped := self.available(spec):
            raise Unsupported(skipped.reason, fix=skipped.how_to_get_it)


PROBE = """
import importlib.metadata, importlib.util, json, sys
def version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:  # perhaps a source tree on PYTHONPATH, which can be asked
        if not importlib.util.find_spec(name):
            return ""
        return getattr(importlib.import_module(name), "__version__", "unknown")
print(json.dumps({name: version(name) for name in sys.argv[1:]}))
"""


def versions(spec: EngineSpec, names: Sequence[str]) -> dict[str, str]:
    """Versions of packages in the engine's interpreter; '' for what is missing."""
    return _probe(interpreter(spec.python) if spec.python else sys.executable, tuple(names))


@lru_cache
def _probe(python: str, names: tuple[str, ...]) -> dict[str, str]:
    try:
        done = subprocess.run([python, "-c", PROBE, *names], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        output = getattr(error, "stderr", "") or str(error)
        raise EnvironmentFault(f"{python} cannot be run: {output.strip()[-300:]}") from error
    return {str(name): str(version) for name, version in json.loads(done.stdout).items()}


def missing_packages(spec: EngineSpec, names: Sequence[str]) -> Skipped | None:
    """Why the engine's interpreter cannot run a server that needs these, and how to get them."""
    missing = [name for name, version in versions(spec, names).items() if not version]
    if not missing:
        return None
    where = f"in {spec.python}" if spec.python else "in this environment"
    wanted = "'redline[engine]'" if "redline" in missing or not spec.python else " ".join(missing)
    return Skipped(
        f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed {where}",
        f"{spec.python} -m pip install {wanted}" if spec.python else f"pip install {wanted}",
    )


def no_second_source(flags: Mapping[str, FlagValue], ours: Mapping[str, str]) -> None:
    """UsageError for a flag that a field of the experiment sets: a second source would let the record lie."""
    for name in map(normal, flags):
        if name in ours:
            raise UsageError(f"--{name} is not a flag of the engine here", fix=f"Use {ours[name]}.")


def dtype_once(flags: Mapping[str, FlagValue], dtype: str) -> None:
    if dtype != "auto" and "dtype" in map(normal, flags):
        raise UsageError("dtype is given twice: by the model and by the engine's flags", fix="Keep one of the two.")


def table_of(parser: argparse.ArgumentParser) -> FlagTable:
    return FlagTable(_flag(action) for action in parser._actions if not isinstance(action, argparse._HelpAction))


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


def log_variables(spec: EngineSpec, model: ResolvedModel) -> dict[str, str]:
    """Environment variables that redline adds where neither the experiment nor the user's shell has a say."""
    wanted = {"PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}
    if model.path is not None and model.tokenizer_path is not None:
        wanted["HF_HUB_OFFLINE"] = "1"
    return {name: value for name, value in wanted.items() if name not in spec.env and name not in os.environ}


def model_flags(
    start: Start, model: ResolvedModel, at_random: Mapping[str, FlagValue]
) -> tuple[dict[str, FlagValue], dict[str, str]]:
    """(flags that say what the experiment says, flags that redline adds): the second are part of the first.

    `at_random` asks for random weights.
    """
    spec = start.model
    flags: dict[str, FlagValue] = {"model": model.location, "served-model-name": spec.served_name}
    if spec.dtype != "auto":
        flags["dtype"] = spec.dtype
    if model.tokenizer_location != model.location:
        flags["tokenizer"] = model.tokenizer_location
    if spec.revision and model.hub_id:
        flags["revision"] = spec.revision
    if model.random_weights:
        flags |= at_random
    if "seed" in map(normal, start.spec.flags):
        return flags, {}
    return {**flags, "seed": start.seed}, {"--seed": str(start.seed)}


def api_key(spec: EngineSpec) -> str:
    """The key that the server is to ask for; empty for an open server."""
    if not spec.api_key_env:
        return ""
    key = os.environ.get(spec.api_key_env, "")
    if not key:
        raise EnvironmentFault(
            f"the environment variable {spec.api_key_env} is not set", fix="It must hold the API key."
        )
    return key


def ready_values(prefix: str, log: str) -> dict[str, str]:
    """What the last `PREFIX-ready {json}` of a log says that the server runs with: flags, and versions."""
    found = re.findall(rf"^{prefix}-ready (\{{.*\}})$", log, re.MULTILINE)
    if not found:
        return {}
    said = json.loads(found[-1])
    values = {**said["flags"], **{f"{name}-version": text for name, text in said["versions"].items()}}
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in values.items()}
