"""From what pydantic says to what a person needs: file, line, field, what was found, what to write instead."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ValidationError

from redline.errors import SpecError
from redline.spec.tree import Mark, Row, Table, describe

_WANTED = {
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "dict_type": "a mapping (name: value)",
    "model_type": "a mapping (field: value)",
    "model_attributes_type": "a mapping (field: value)",
}


_EXAMPLES = {
    "models": "model: DIR_OR_HUB_ID (--model DIR_OR_HUB_ID)",
    "engines": "engines: [transformers, vllm] (--engines transformers,vllm)",
}


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`did you mean 'x'?`, or '' when nothing is near."""
    choices = list(known)
    near = difflib.get_close_matches(word, choices, n=2, cutoff=0.6) or [
        c for c in choices if c.lower() == word.lower()
    ]
    return f"did you mean {' or '.join(repr(name) for name in near)}?" if near else ""


def locate(tree: Table, loc: tuple[str | int, ...]) -> tuple[Mark, tuple[str | int, ...], Any]:
    """(mark, the part of `loc` that was written, the value there): pydantic's locations can run past the values."""
    value: Any = tree
    mark = tree.mark
    for depth, step in enumerate(loc):
        if isinstance(value, Table) and step in value:
            mark, value = value.marks[str(step)], value[str(step)]
        elif isinstance(value, Row) and isinstance(step, int) and step < len(value):
            mark, value = value.marks[step], value[step]
        else:
            return mark, loc[:depth], value
    return mark, loc, value


def spec_errors(error: ValidationError, tree: Table, model: type[BaseModel]) -> list[SpecError]:
    """Every fault that pydantic found, one per field."""
    by_place: dict[tuple[Mark, tuple[str | int, ...]], list[dict[str, Any]]] = {}
    for item in error.errors(include_url=False):
        mark, written, _ = locate(tree, item["loc"])
        # a union reports once per member, all at one value
        loc = written if len(item["loc"]) - len(written) == 1 and _is_union(model, written) else item["loc"]
        by_place.setdefault((mark, loc), []).append(dict(item))
    return [_one(items, tree, model) for items in by_place.values()]


def combine(errors: list[SpecError]) -> SpecError:
    """The first fault leads, the others follow in its `why`."""
    first, *others = sorted(errors, key=lambda one: (one.line == 0, one.line))
    if not others:
        return first
    listed = [f"{len(others)} more:", *("  " + str(one).replace("\n", "; ") for one in others)]
    why = "\n".join([*([first.why] if first.why else []), *([first.fix] if first.fix else []), *listed])
    merged = SpecError(first.what, why=why)
    merged.file, merged.line, merged.field = first.file, first.line, first.field
    return merged


def _is_union(model: type[BaseModel], loc: tuple[str | int, ...]) -> bool:
    return typing.get_origin(type_at(model, loc)) in (typing.Union, types.UnionType)


def _one(items: list[dict[str, Any]], tree: Table, model: type[BaseModel]) -> SpecError:
    item = items[0]
    loc, kind, context = tuple(item["loc"]), str(item["type"]), item.get("ctx") or {}
    if kind == "redline" and context.get("field"):
        loc += tuple(int(part) if part.isdigit() else part for part in str(context["field"]).split("."))
    mark, written, found = locate(tree, loc)
    field = _path(loc if kind in ("missing", "redline") else written)
    if kind == "redline":
        return at(str(context["message"]), mark, field, fix=str(context["fix"]))
    if kind == "extra_forbidden":
        known = list(fields_at(model, loc[:-1]))
        near = did_you_mean(str(loc[-1]), known)
        return at("there is no such field", mark, field, fix=near or f"fields here: {', '.join(known)}")
    if kind == "missing":
        hint = _EXAMPLES.get(field, "")
        return at("is missing", mark, field, fix=hint)
    if kind == "literal_error":
        choices = literals_at(model, loc)
        fix = did_you_mean(str(found), choices)
        return at(f"wants one of {', '.join(choices)}; found {describe(found)}", mark, field, fix=fix)
    *some, last = dict.fromkeys(_wanted(each) for each in items)
    wanted = f"{', '.join(some)} or {last}" if some else last
    return at(f"wants {wanted}, found {describe(found)}", mark, field, fix=_fix(kind, found))


def _wanted(item: dict[str, Any]) -> str:
    kind, context = str(item["type"]), item.get("ctx") or {}
    limits = {
        "greater_than": "a number above {gt}",
        "greater_than_equal": "{ge} or more",
        "less_than": "a number below {lt}",
        "less_than_equal": "at most {le}",
        "too_short": "at least {min_length} of them",
        "string_too_short": "some text",
    }
    if kind in limits:
        shown = {key: f"{value:.15g}" if isinstance(value, float) else value for key, value in context.items()}
        return limits[kind].format(**shown)
    return _WANTED.get(kind, str(item["msg"]).removeprefix("Input should be ").removeprefix("a valid "))


def _fix(kind: str, found: Any) -> str:
    if kind == "string_type" and isinstance(found, int | float):
        return f"put it in quotes: '{describe(found)}'"
    if found is None:
        return "give it a value, or remove the line for the default"
    return ""


def at(what: str, mark: Mark, field: str, fix: str = "") -> SpecError:
    """The error for a value written at `mark`."""
    # a flag is no file: it is named beside the value
    if mark.line == 0:
        return SpecError(f"{what} (from {mark.source})" if mark.source else what, field=field, fix=fix)
    return SpecError(what, file=mark.source, line=mark.line, field=field, fix=fix)


def _path(loc: tuple[str | int, ...]) -> str:
    text = ""
    for step in loc:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text


def _unwrap(kind: Any) -> Any:
    """The type inside Annotated and Optional."""
    while typing.get_origin(kind) is typing.Annotated:
        kind = typing.get_args(kind)[0]
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        members = [member for member in typing.get_args(kind) if member is not type(None)]
        if len(members) == 1:
            return _unwrap(members[0])
    return kind


def type_at(model: type[BaseModel], loc: tuple[str | int, ...]) -> Any:
    """The declared type at a location; None when there is none. `*` stands for any list index."""
    kind: Any = model
    for step in loc:
        kind = _unwrap(kind)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            if step not in kind.model_fields:
                return None
            kind = kind.model_fields[str(step)].annotation
        elif typing.get_origin(kind) in (list, dict):
            kind = typing.get_args(kind)[-1]
        else:
            return None
    return _unwrap(kind)


def fields_at(model: type[BaseModel], loc: tuple[str | int, ...]) -> dict[str, Any]:
    """The fields of the record at a location, by name; empty when no record is there."""
    kind = type_at(model, loc)
    return dict(kind.model_fields) if isinstance(kind, type) and issubclass(kind, BaseModel) else {}


def literals_at(model: type[BaseModel], loc: tuple[str | int, ...]) -> list[str]:
    return [str(choice) for choice in typing.get_args(type_at(model, loc))]
