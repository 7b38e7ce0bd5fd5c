"""YAML as plain values that remember where they were written.

Scalars are read by the YAML 1.2 core schema, so that `on`, `no`, `12:30` and `010` stay what they look like and `1e3`
is a number. Tags beyond the core schema are refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from redline.errors import SpecError


@dataclass(frozen=True)
class Mark:
    """Where a value was written: a file and a line (from 1), or a flag (`--concurrency`) and line 0."""

    source: str
    line: int = 0
    yes_no: bool = False
    """The value is a bare yes, no, on or off: text here, true or false to older YAML."""


class Table(dict[str, Any]):
    """A mapping; `marks` says where each key was written."""

    def __init__(self, mark: Mark) -> None:
        super().__init__()
        self.mark = mark
        self.marks: dict[str, Mark] = {}

    def put(self, key: str, value: Any, mark: Mark) -> None:
        self[key] = value
        self.marks[key] = mark

    def drop(self, key: str) -> None:
        self.pop(key, None)
        self.marks.pop(key, None)


class Row(list[Any]):
    """A list; `marks` says where each item was written."""

    def __init__(self, mark: Mark) -> None:
        super().__init__()
        self.mark = mark
        self.marks: list[Mark] = []

    def add(self, value: Any, mark: Mark) -> None:
        self.append(value)
        self.marks.append(mark)


def plant(value: Any, mark: Mark) -> Any:
    """A Python value as part of a tree, everything in it marked the same."""
    if isinstance(value, Table | Row):
        return value
    if isinstance(value, Mapping):
        table = Table(mark)
        for key, item in value.items():
            table.put(str(key), plant(item, mark), mark)
        return table
    if isinstance(value, list | tuple):
        row = Row(mark)
        for item in value:
            row.add(plant(item, mark), mark)
        return row
    return str(value) if isinstance(value, Path) else value


class CoreLoader(yaml.SafeLoader):
    """PyYAML's parser with the scalars of YAML 1.2's core schema."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own name


CORE_SCALARS: list[tuple[str, re.Pattern[str], list[str]]] = [
    ("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")),
    ("tag:yaml.org,2002:int", re.compile(r"^(?:[-+]?[0-9][0-9_]*|0o[0-7]+|0x[0-9a-fA-F]+)$"), list("-+0123456789")),
    (
        "tag:yaml.org,2002:float",
        re.compile(r"^(?:[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?)$"),
        list("-+.0123456789"),
    ),
    ("tag:yaml.org,2002:float", re.compile(r"^(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"), list("-+.")),
]

for _tag, _pattern, _first in CORE_SCALARS:
    CoreLoader.add_implicit_resolver(_tag, _pattern, _first)


def read_file(path: Path) -> Table:
    """The top-level mapping of an experiment file. Raises SpecError for everything that can be wrong with a file."""
    name = str(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        near = [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        raise SpecError(
            "there is no such file",
            file=name,
            fix=f"YAML files there: {', '.join(sorted(near)[:8])}" if near else f"looked in {path.parent.absolute()}",
        ) from None
    except IsADirectoryError:
        raise SpecError("this is a folder", file=name, fix="give the YAML file") from None
    except OSError as error:
        raise SpecError(f"cannot be read: {error.strerror or error}", file=name) from None
    except UnicodeDecodeError as error:
        raise SpecError(f"is not UTF-8 text: {error.reason} at byte {error.start}", file=name) from None
    return read_text(text, name)


def read_text(text: str, source: str) -> Table:
    """The top-level mapping of YAML text. Raises SpecError."""
    root = _parse(text, source)
    if not isinstance(root, Table):
        raise SpecError(
            f"an experiment is a mapping (field: value), found {describe(root)}",
            file=source,
            line=getattr(getattr(root, "mark", None), "line", 1),
            fix="start with  model: DIR_OR_HUB_ID",
        )
    return root


def read_scalar(text: str, source: str) -> Any:
    """The value of a flag such as `--set load.drain_s=3`, by the same rules as in a file."""
    try:
        return _parse(text, source) if text.strip() else ""
    except SpecError:
        raise SpecError(f"{text!r} cannot be read as YAML (from {source})", fix="put it in quotes") from None


def describe(value: Any) -> str:
    """What was found, in words."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, list | tuple):
        return "a list" if value else "an empty list"
    if isinstance(value, str):
        return f"the text {value!r}" if len(value) < 80 else f"the text {value[:77]!r}..."
    return str(value)


def _parse(text: str, source: str) -> Any:
    try:
        node = yaml.compose(text, Loader=CoreLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise SpecError(
            f"is not valid YAML: {', '.join(part for part in (error.context, error.problem) if part)}",
            file=source,
            line=mark.line + 1 if mark else 0,
            fix=_yaml_fix(f"{error.context} {error.problem}"),
        ) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise SpecError(f"is not valid YAML: {error.reason}", file=source, line=line) from None
    except RecursionError:
        raise SpecError("is nested too deeply to be an experiment", file=source) from None
    if node is None:
        raise SpecError("is empty", file=source, fix="start with  model: DIR_OR_HUB_ID")
    return _Builder(source).build(node)


def _yaml_fix(problem: str) -> str:
    if "'\\t'" in problem or "tab" in problem:
        return "indent with spaces; YAML takes no tabs"
    if "mapping values are not allowed" in problem:
        return "put text that holds ': ' in quotes, and check the indentation"
    if "single document" in problem:
        return "one experiment per file: remove the line ---"
    return ""


class _Builder:
    """Turns YAML nodes into Tables, Rows and scalars."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.open: set[int] = set()

    def mark(self, node: yaml.Node) -> Mark:
        return Mark(self.source, node.start_mark.line + 1)

    def build(self, node: yaml.Node) -> Any:
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node)
        if id(node) in self.open:
            raise self.error(node, "an alias (*name) refers to a value that contains it")
        self.open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self.table(node)
            assert isinstance(node, yaml.SequenceNode)
            return self.row(node)
        finally:
            self.open.discard(id(node))

    def table(self, node: yaml.MappingNode) -> Table:
        self.check_tag(node, "map")
        table, merged = Table(self.mark(node)), []
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise self.error(key_node, "a field's name is text", "quote { and [ where they begin a text")
            key = str(key_node.value)
            if key == "<<" and key_node.style is None:
                merged.append((key_node, self.build(value_node)))
                continue
            if key in table:
                raise self.error(
                    key_node, f"is given twice, first in line {table.marks[key].line}", "keep one", field=key
                )
            table.put(key, self.build(value_node), Mark(self.source, key_node.start_mark.line + 1, _yes_no(value_node)))
        for key_node, value in merged:
            self.merge(table, key_node, value)
        return table

    def merge(self, table: Table, node: yaml.Node, value: Any) -> None:
        """`<<: *name`: what the anchor has and this mapping has not."""
        for base in value if isinstance(value, Row) else [value]:
            if not isinstance(base, Table):
                raise self.error(node, f"<< merges mappings, found {describe(base)}")
            for key, item in base.items():
                if key not in table:
                    table.put(key, item, base.marks[key])

    def row(self, node: yaml.SequenceNode) -> Row:
        self.check_tag(node, "seq")
        row = Row(self.mark(node))
        for item in node.value:
            row.add(self.build(item), self.mark(item))
        return row

    def scalar(self, node: yaml.ScalarNode) -> Any:
        kind = self.check_tag(node, "str", "null", "bool", "int", "float")
        text = str(node.value)
        try:
            if kind == "null":
                return None
            if kind == "bool":
                return {"true": True, "false": False}[text.lower()]
            if kind == "int":
                return _whole(text.replace("_", ""))
            if kind == "float":
                return float(text.replace("_", "").replace(".inf", "inf").replace(".nan", "nan").lower())
        except (KeyError, ValueError):
            raise self.error(node, f"{text!r} is no {kind}") from None
        return text

    def check_tag(self, node: yaml.Node, *known: str) -> str:
        kind = str(node.tag).removeprefix("tag:yaml.org,2002:")
        if kind not in known:
            raise self.error(node, f"the tag {node.tag} means nothing here", "remove the tag (the word after !)")
        return kind

    def error(self, node: yaml.Node, what: str, fix: str = "", field: str = "") -> SpecError:
        return SpecError(what, file=self.source, line=node.start_mark.line + 1, field=field, fix=fix)


def _yes_no(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.style is None and node.value.lower() in ("yes", "no", "on", "off")


def _whole(text: str) -> int:
    if text.startswith(("0x", "0o")):
        return int(text, 0)
    return int(text)
