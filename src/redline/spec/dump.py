"""Writes an experiment as the YAML that reads back as the same experiment."""

from __future__ import annotations

from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from redline.spec.experiment import Experiment
from redline.spec.tree import CORE_SCALARS

_COMMENT_COLUMN = 34


class _Dumper(yaml.SafeDumper):
    """Quotes whatever any YAML reader, of version 1.1 or 1.2, would take for something else than text."""


for _tag, _pattern, _first in CORE_SCALARS:
    _Dumper.add_implicit_resolver(_tag, _pattern, _first)


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = None if value.isprintable() else '"'  # one line each, whatever is in it
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def dump_experiment(experiment: Experiment) -> str:
    """YAML with each field's description; in `models` and `engines`, fields at their defaults are left out."""
    lines = ["# An experiment of redline: redline compare -f THIS_FILE", ""]
    for name, info in Experiment.model_fields.items():
        value = getattr(experiment, name)
        if isinstance(value, BaseModel):
            lines += ["", f"{name}:  # {info.description}", *_record(value, "  ")]
        elif value and isinstance(value[0] if isinstance(value, list) else None, BaseModel):
            lines += ["", f"{name}:  # {info.description}"]
            explained: set[str] = set()
            for item in value:
                lines += _item(item, explained)
        else:
            lines += ["", _line(name, value, info, "")] if lines[-1].startswith(" ") else [_line(name, value, info, "")]
    return "\n".join(lines) + "\n"


def _record(record: BaseModel, indent: str) -> list[str]:
    lines = []
    for name, info in type(record).model_fields.items():
        value = getattr(record, name)
        if name == "concurrency" and getattr(record, "rate", None):
            continue  # a file that has both is refused
        lines.append(_line(name, _plain(value), info, indent))
    return lines


def _plain(value: Any) -> Any:
    """Records as mappings; those of a list without what is at its default."""
    if isinstance(value, list):
        return [item.model_dump(exclude_defaults=True) if isinstance(item, BaseModel) else item for item in value]
    return value.model_dump() if isinstance(value, BaseModel) else value


def _item(record: BaseModel, explained: set[str]) -> list[str]:
    lines = []
    for name, info in type(record).model_fields.items():
        value = getattr(record, name)
        if info.is_required() or value != info.get_default(call_default_factory=True):
            lines.append(_line(name, value, None if name in explained else info, "    "))
            explained.add(name)  # once is enough
    lines[0] = "  - " + lines[0].lstrip()
    return lines


def _line(name: str, value: Any, info: FieldInfo | None, indent: str) -> str:
    text = f"{indent}{name}: {inline(value)}"
    return f"{text:<{_COMMENT_COLUMN}}  # {info.description}" if info and info.description else text


def inline(value: Any) -> str:
    """A value as YAML on one line."""
    listed = yaml.dump(
        [value], Dumper=_Dumper, default_flow_style=True, width=float("inf"), allow_unicode=True, sort_keys=False
    )
    return listed.rstrip("\n")[1:-1]
