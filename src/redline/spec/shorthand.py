"""What may be written short in a file or a flag, written out: one form reaches the records.

model: X                       models: [{id: X}]
engines: transformers,vllm     engines: [{kind: transformers, name: transformers-plain, ...}, ..., {kind: vllm}]
prompt_tokens: 128             prompt_tokens: {mean: 128}
concurrency: 1,10,50           concurrency: [1, 10, 50]
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from redline import hooks
from redline.errors import SpecError
from redline.spec.faults import at, did_you_mean
from redline.spec.tree import Mark, Row, Table, read_scalar

ENGINE_ALIASES: dict[str, tuple[str, dict[str, str]]] = {
    "transformers-plain": ("transformers", {"batching": "plain"}),
    "transformers-continuous": ("transformers", {"batching": "continuous"}),
    "transformers-static": ("transformers", {"batching": "static"}),
}
"""One word for one configuration: (kind, flags)."""

ENGINE_GROUPS: dict[str, tuple[str, ...]] = {
    # the baseline is only fair when both ways to run it are shown
    "transformers": ("transformers-plain", "transformers-continuous"),
}
"""One word for several configurations."""


def expand(tree: Table) -> tuple[Table, list[SpecError]]:
    """The tree in its long form (a new one), and what was wrong with the short one."""
    errors: list[SpecError] = []
    out = Table(tree.mark)
    for key, value in tree.items():
        out.put(key, value, tree.marks[key])
    _each_of(out, "model", "models", _model, errors)
    _each_of(out, "engine", "engines", _engine, errors)
    for section, field, change in (
        ("workload", "prompt_tokens", _length),
        ("workload", "output_tokens", _length),
        ("load", "concurrency", _numbers),
        ("load", "rate", _numbers),
    ):
        _change(out, section, field, change)
    _classes(out)
    _name_as_served(out)
    return out, errors


def check(tree: Table) -> list[SpecError]:
    """What is wrong in a tree in its long form and no record can see."""
    errors: list[SpecError] = []
    engines = tree.get("engines")
    for index, engine in enumerate(engines if isinstance(engines, Row) else []):
        if isinstance(engine, Table):
            _check_engine(engine, f"engines[{index}]", errors)
    load = tree.get("load")
    if isinstance(load, Table) and load.get("rate") and load.get("concurrency"):
        what = "rate (open loop) and concurrency (closed loop) cannot be had together"
        errors.append(at(what, load.marks["rate"], "load.rate", "keep one of them, or make two experiments"))
    return errors


def engine_words() -> list[str]:
    """Every word that names an engine."""
    return [*hooks.engine_kinds(), *ENGINE_ALIASES]


def split(value: Any, mark: Mark) -> Row:
    """A list from a list, from `a,b,c`, or from one value."""
    if isinstance(value, Row):
        return value
    row = Row(mark)
    for part in [part.strip() for part in value.split(",")] if isinstance(value, str) else [value]:
        if part != "":
            row.add(part, mark)
    return row


def _each_of(tree: Table, one: str, many: str, expand_item: Callable[..., Row], errors: list[SpecError]) -> None:
    """`one:` and `many:` become the list `many`, each item in its long form."""
    if one in tree and many in tree:
        errors.append(at(f"{one} and {many} say the same thing twice", tree.marks[one], one, f"keep {many}"))
    key = many if many in tree else one
    if key not in tree:
        return
    value, mark = tree[key], tree.marks[key]
    tree.drop(one)
    if not isinstance(value, str | Table | Row):
        tree.put(many, value, mark)
        return
    # a folder's name may hold a comma
    items = _row(value, mark) if isinstance(value, str) and many == "models" else split(value, mark)
    result = Row(mark)
    for index, (item, item_mark) in enumerate(zip(items, items.marks, strict=True)):
        for long, long_mark in _pairs(expand_item(item, item_mark, f"{many}[{index}]", errors)):
            result.add(long, long_mark)
    tree.put(many, result, mark)


def _pairs(row: Row) -> list[tuple[Any, Mark]]:
    return list(zip(row, row.marks, strict=True))


def _model(item: Any, mark: Mark, field: str, errors: list[SpecError]) -> Row:
    return _row(_record(mark, id=item) if isinstance(item, str) else item, mark)


def _engine(item: Any, mark: Mark, field: str, errors: list[SpecError]) -> Row:
    if isinstance(item, str):
        return _engine_word(item, mark, field, errors)
    if not isinstance(item, Table) or not isinstance(item.get("kind"), str):
        return _row(item, mark)
    return _row(_alias(item, item["kind"], item.marks["kind"]) if item["kind"] in ENGINE_ALIASES else item, mark)


def _alias(item: Table, word: str, mark: Mark) -> Table:
    """`{kind: transformers-plain, ...}`: what is written beside the kind wins."""
    kind, flags = ENGINE_ALIASES[word]
    out = Table(item.mark)
    for key, value in item.items():
        out.put(key, kind if key == "kind" else value, item.marks[key])
    if not out.get("name"):
        out.put("name", word, mark)
    written = out.get("flags", Table(mark))
    if isinstance(written, Table):
        merged = _record(mark, **flags)
        for key, value in written.items():
            merged.put(key, value, written.marks[key])
        out.put("flags", merged, out.marks.get("flags", mark))
    return out


def _engine_word(text: str, mark: Mark, field: str, errors: list[SpecError]) -> Row:
    """`vllm`, `transformers`, `http://host:8000/v1`, and each with a label in front: `mine=vllm`."""
    name, word = "", text
    if "=" in text and "://" not in text.partition("=")[0]:
        name, _, word = (part.strip() for part in text.partition("="))
        if not name or not word:
            errors.append(at(f"{text!r} is not NAME=ENGINE", mark, field, "such as  mine=vllm"))
            return _row(_record(mark, kind=word or name), mark)
    if word.startswith(("http://", "https://")):
        return _row(_record(mark, kind="url", name=name or urlsplit(word).netloc, url=word), mark)
    row = Row(mark)
    for member in ENGINE_GROUPS.get(word, (word,)):
        suffix = member.removeprefix(word)  # 'transformers-plain' under the label 'hf' is 'hf-plain'
        if member in ENGINE_ALIASES:
            kind, flags = ENGINE_ALIASES[member]
            row.add(
                _record(mark, kind=kind, name=name + suffix if name else member, flags=_record(mark, **flags)), mark
            )
        else:
            row.add(_record(mark, kind=word, **({"name": name} if name else {})), mark)
    return row


def _check_engine(engine: Table, field: str, errors: list[SpecError]) -> None:
    kind, known = engine.get("kind"), engine_words()
    if isinstance(kind, str) and kind and kind not in known:
        fix = did_you_mean(kind, known) or f"engines: {', '.join(known)}, or http://host:port/v1"
        errors.append(at(f"there is no engine {kind!r}", engine.marks["kind"], f"{field}.kind", fix))
    flags = engine.get("flags")
    for name, mark in flags.marks.items() if isinstance(flags, Table) else ():
        if mark.yes_no:
            what = "yes, no, on and off could mean a word or true/false"
            errors.append(at(what, mark, f"{field}.flags.{name}", "write true or false, or quote the word"))


def _change(tree: Table, section: str, field: str, change: Callable[[Any, Mark], Any]) -> None:
    inner = tree.get(section)
    if not isinstance(inner, Table) or field not in inner:
        return
    copy = Table(inner.mark)
    for key, value in inner.items():
        copy.put(key, change(value, inner.marks[key]) if key == field else value, inner.marks[key])
    tree.put(section, copy, tree.marks[section])


def _classes(tree: Table) -> None:
    """The lengths of each class of the workload."""
    inner = tree.get("workload")
    written = inner.get("classes") if isinstance(inner, Table) else None
    if not isinstance(written, Row) or not isinstance(inner, Table):
        return
    row = Row(written.mark)
    for item, mark in _pairs(written):
        if isinstance(item, Table):
            copy = Table(item.mark)
            for key, value in item.items():
                long = _length(value, item.marks[key]) if key in ("prompt_tokens", "output_tokens") else value
                copy.put(key, long, item.marks[key])
            item = copy
        row.add(item, mark)
    changed = Table(inner.mark)
    for key, value in inner.items():
        changed.put(key, row if key == "classes" else value, inner.marks[key])
    tree.put("workload", changed, tree.marks["workload"])


def _length(value: Any, mark: Mark) -> Any:
    return value if isinstance(value, dict) else _record(mark, mean=value)


def _numbers(value: Any, mark: Mark) -> Any:
    if value is None or isinstance(value, Table):
        return value
    row, parts = Row(mark), split(value, mark)
    for part, part_mark in _pairs(parts):
        row.add(read_scalar(part, mark.source) if isinstance(part, str) else part, part_mark)
    return row


def _name_as_served(tree: Table) -> None:
    """A server that somebody else runs knows its model by the id as given, not by the last part of it."""
    engines, models = tree.get("engines"), tree.get("models")
    if not isinstance(engines, Row) or not isinstance(models, Row) or not engines:
        return
    if not all(isinstance(engine, Table) and engine.get("kind") == "url" for engine in engines):
        return
    for model in models:
        if not isinstance(model, Table) or model.get("name") or not isinstance(model.get("id"), str):
            continue
        if not model["id"].startswith(("bundled:", "shape:")):
            model.put("name", model["id"], model.marks["id"])


def _record(mark: Mark, **values: Any) -> Table:
    table = Table(mark)
    for key, value in values.items():
        table.put(key, value, mark)
    return table


def _row(item: Any, mark: Mark) -> Row:
    row = Row(mark)
    row.add(item, mark)
    return row
