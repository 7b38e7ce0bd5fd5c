"""Sets fields of an experiment from outside its file: `load.drain_s`, `engines.vllm.flags.max-num-seqs`, ..."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from redline.errors import SpecError
from redline.spec.experiment import Experiment
from redline.spec.faults import combine, did_you_mean, fields_at, spec_errors, type_at
from redline.spec.load import KINDS_OF_LOAD
from redline.spec.shorthand import check, expand, split
from redline.spec.tree import Mark, Row, Table, plant

_LISTS = ("models", "engines")
_EITHER = {f"load.{name}": [other for other in KINDS_OF_LOAD if other != name] for name in KINDS_OF_LOAD}


@dataclass(frozen=True)
class Assignment:
    """`field` is dotted; in `models` and `engines`, `*` is every entry, else a label, a kind or an index."""

    field: str
    value: Any
    source: str
    """The flag, for errors."""
    inside: str = ""
    """`flags` or `env`: what follows the label is a name in there, dots and all."""


def build(tree: Table, assignments: list[Assignment]) -> Experiment:
    """Writes out shorthands, sets the assigned fields, validates. Raises SpecError with every fault."""
    long, errors = expand(tree)
    errors = [error for error in errors if not _replaced(error.field, assignments)]
    for assignment in assignments:
        try:
            assign(long, assignment)
        except SpecError as error:
            errors.append(error)
        if assignment.field in _LISTS:  # labels exist once the list is in its long form
            long, more = expand(long)
            errors += more
    long, _ = expand(long)
    errors += check(long)
    try:
        experiment = Experiment.model_validate(long)
    except ValidationError as error:
        said = {(one.line, one.field) for one in errors}
        errors += [one for one in spec_errors(error, long, Experiment) if (one.line, one.field) not in said]
        raise combine(errors) from None
    if errors:
        raise combine(errors)
    return experiment


def assign(tree: Table, assignment: Assignment) -> None:
    """Sets one field in a tree in its long form. Raises SpecError for a field that does not exist."""
    mark = Mark(assignment.source)
    field, value = assignment.field, plant(assignment.value, mark)
    if field in _LISTS:
        words = plant([value], mark) if field == "models" and isinstance(value, str) else split(value, mark)
        tree.put(field, _pick(tree.get(field), words), mark)
        return
    if field in _EITHER and isinstance(tree.get("load"), Table):
        for other in _EITHER[field]:
            tree["load"].drop(other)
    head, _, rest = field.partition(".")
    if head in _LISTS and rest:
        steps, entries = _entries(tree, head, rest, assignment)
        _check(field, (head, 0, *steps), assignment)
        for entry in entries:
            _put(entry, (head, 0), steps, value, mark)
        return
    steps = tuple(field.split("."))
    _check(field, steps, assignment)
    _put(tree, (), steps, value, mark)


def labels(entry: Any) -> list[str]:
    """What an entry of `models` or `engines` answers to, the most particular name first."""
    if not isinstance(entry, Table):
        return []
    named = [entry.get("name") or entry.get("kind") or "", entry.get("id") or ""]
    if entry.get("id"):
        named.append(str(entry["id"]).rstrip("/").replace(":", "/").rsplit("/", 1)[-1])
    return [name for name in named if name]


def field_paths(model: type[BaseModel] = Experiment, prefix: str = "") -> dict[str, FieldInfo]:
    """Every scalar field by its dotted path; `*` stands for the entries of `models` and `engines`."""
    found: dict[str, FieldInfo] = {}
    for name, info in model.model_fields.items():
        path = f"{prefix}{name}"
        below = path + (".*." if name in _LISTS else ".")
        kind = type_at(model, (name, 0) if name in _LISTS else (name,))
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found |= field_paths(kind, below)
        else:
            found[path] = info
    return found


def _replaced(field: str, assignments: list[Assignment]) -> bool:
    return any(field.startswith(f"{one.field}[") for one in assignments)


def _pick(written: Any, wanted: Row) -> Row:
    """Each wanted word: the entries of the file that answer to it, else the word itself."""
    picked = Row(wanted.mark)
    for word, mark in zip(wanted, wanted.marks, strict=True):
        entries = _matching(written, word) if isinstance(word, str) else []
        for entry in entries:
            picked.add(entry, mark)
        if not entries:
            picked.add(word, mark)
    return picked


def _matching(written: Any, word: str) -> list[Any]:
    entries = written if isinstance(written, Row) else []
    exact = [entry for entry in entries if word in labels(entry)]
    return exact or [entry for entry in entries if isinstance(entry, Table) and entry.get("kind") == word]


def _entries(tree: Table, head: str, rest: str, assignment: Assignment) -> tuple[tuple[str, ...], list[Any]]:
    """(steps below the entry, the entries): `rest` begins with `*`, a label (it may hold dots), a kind or an index."""
    written = tree.get(head)
    entries = [entry for entry in written if isinstance(entry, Table)] if isinstance(written, Row) else []
    if not entries:
        raise _error(
            f"there are no {head} to set this for", assignment, f"give --{'model' if head == 'models' else head}"
        )
    known = {label for entry in entries for label in [*labels(entry), str(entry.get("kind") or "")] if label}
    known |= {"*", *(str(index) for index in range(len(entries)))}
    for label in sorted(known, key=len, reverse=True):
        if rest.startswith(f"{label}."):
            below = rest[len(label) + 1 :]
            first, _, name = (assignment.inside, "", below) if assignment.inside else below.partition(".")
            steps = (first, name) if first in ("flags", "env") and name else tuple(below.split("."))
            if label == "*":
                return steps, entries
            return steps, _matching(written, label) or [entries[int(label)]]
    word = rest.partition(".")[0]
    fix = did_you_mean(word, known) or f"{head} here: {', '.join(sorted(known - {'*'}))}"
    if assignment.inside and rest in known:
        raise _error(f"{rest!r} is followed by nothing", assignment, "name what to set: LABEL.NAME=VALUE")
    raise _error(f"no entry of {head} is called {word!r}", assignment, fix)


def _check(field: str, steps: tuple[str | int, ...], assignment: Assignment) -> None:
    kind = type_at(Experiment, steps)
    if kind is None:
        known = list(field_paths())
        inner = [str(name) for name in fields_at(Experiment, steps[:-1])]
        fix = did_you_mean(field, known) or did_you_mean(str(steps[-1]), inner)
        if not fix:  # `drain_s` for `load.drain_s`
            last = [path for path in known if path.rsplit(".", 1)[-1] == steps[-1]]
            fix = f"did you mean {' or '.join(repr(path) for path in last)}?" if last else ""
        raise _error("there is no such field", assignment, fix or f"fields: {', '.join(known)}")


def _put(entry: Table, above: tuple[str | int, ...], steps: tuple[str, ...], value: Any, mark: Mark) -> None:
    table = entry
    for depth, step in enumerate(steps[:-1]):
        if not isinstance(table.get(step), Table):
            table.put(step, _blank((*above, *steps[: depth + 1]), mark), mark)
        table = table[step]
    table.put(steps[-1], value, mark)


def _blank(loc: tuple[str | int, ...], mark: Mark) -> Table:
    """A record with what its default has and its class demands, so that one part of it can be set alone."""
    table, info = Table(mark), fields_at(Experiment, loc[:-1]).get(str(loc[-1]))
    default = info.get_default(call_default_factory=True) if isinstance(info, FieldInfo) else None
    if isinstance(default, BaseModel):
        for name, inner in type(default).model_fields.items():
            if inner.is_required():
                table.put(name, getattr(default, name), mark)
    return table


def _error(what: str, assignment: Assignment, fix: str) -> SpecError:
    source = f" (from {assignment.source})" if assignment.source != assignment.field else ""
    return SpecError(what + source, field=assignment.field, fix=fix)
