"""Prompts out of a data set of the Hugging Face hub, read by its own `datasets` package where that is installed.

Nothing is fetched from a box that is offline, or is told to be: then only what the package's cache holds is used.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

from redline.errors import EnvironmentFault, SpecError, Unsupported
from redline.load.datasets import Item, first_exchange, item_of
from redline.spec.hub import hub_answer, offline_reason

_CHATS = ("messages", "conversations", "conversation")
_TEXTS = ("prompt", "question", "instruction", "query", "text", "input")
_SWITCHES = ("HF_DATASETS_OFFLINE", "HF_HUB_OFFLINE")
_EXPORT = 'or write it out as JSON lines ({"prompt": …} each) and use kind: jsonl'


def hub_items(path: str, split: str, column: str, rows: int, notes: list[str]) -> list[Item]:
    """Up to `rows` prompts of a data set (its id, or a folder). Unsupported without the package; EnvironmentFault when
    the data set cannot be had; SpecError when it has no such column."""
    local = Path(path).is_dir()
    why_offline = "" if local else _offline(path)
    try:
        with _cache_only() if why_offline else nullcontext():
            found = _package().load_dataset(path, split=split, streaming=not (local or why_offline))
            taken = [dict(row) for row in islice(found, rows)]
    except Unsupported:
        raise
    except Exception as error:  # the package raises whatever its parts raise
        raise EnvironmentFault(
            f"the data set {path} cannot be read: {_first_line(error)}",
            why=f"only the cache was looked at: {why_offline}" if why_offline else "",
            fix=f"load it once where there is a network (datasets.load_dataset({path!r})), {_EXPORT}",
        ) from error
    items = _items(path, taken, column)
    notes.append(f"{len(items)} prompts of {path}, split {split}" + (" (from the cache)" if why_offline else ""))
    return items


def _package() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise Unsupported(
            "workload kind hub needs the datasets package", fix=f"pip install 'redline[datasets]', {_EXPORT}"
        ) from error
    if hasattr(datasets, "disable_progress_bars"):
        datasets.disable_progress_bars()
    return datasets


@contextmanager
def _cache_only() -> Iterator[None]:
    """The package asks nobody, which it would else try again and again. Engines started later are told nothing."""
    before = {name: os.environ.get(name) for name in _SWITCHES}
    os.environ.update(dict.fromkeys(_SWITCHES, "1"))
    try:
        _package()
        for name in ("datasets.config", "huggingface_hub.constants"):  # read when they were imported, maybe long ago
            if name in sys.modules:
                vars(sys.modules[name])["HF_HUB_OFFLINE"] = True
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _offline(path: str) -> str:
    """Why the hub is not asked; '' when it can be."""
    if reason := offline_reason():
        return reason
    if os.environ.get("HF_DATASETS_OFFLINE", "").strip().lower() in ("1", "true", "yes", "on"):
        return f"HF_DATASETS_OFFLINE={os.environ['HF_DATASETS_OFFLINE']}"
    answer = hub_answer(f"datasets/{path}")
    return "" if answer == 200 else f"the hub answers {answer}"


def _items(path: str, rows: list[dict[str, Any]], column: str) -> list[Item]:
    names = list(rows[0]) if rows else []
    chosen = column or next((name for name in (*_CHATS, *_TEXTS) if name in names), "")
    if not rows or chosen not in names:
        what = "holds no row" if not rows else f"has no column {column!r}" if column else "has no column of prompts"
        fix = f"hub_column: one of {', '.join(names)}" if names else "another split: hub_split"
        raise SpecError(f"{path} {what}", field="workload.hub_column", fix=fix)
    items = [_item(path, number, row, chosen) for number, row in enumerate(rows, 1)]
    return [item for item in items if item is not None]


def _item(path: str, number: int, row: dict[str, Any], column: str) -> Item | None:
    """One row; None for one that asks nothing."""
    value, output = row[column], row.get("output_tokens") or 0
    if isinstance(value, str):
        return item_of(path, number, {"prompt": value, "output_tokens": output}) if value.strip() else None
    if isinstance(value, list) and value and isinstance(value[0], dict):
        if "role" in value[0] and column == "messages":
            asked = value[:-1] if value[-1].get("role") == "assistant" else value
            return item_of(path, number, {"messages": asked, "output_tokens": output}) if asked else None
        return first_exchange(value, number)
    raise SpecError(
        f"column {column} holds neither text nor messages",
        file=path,
        line=number,
        field=column,
        fix="another hub_column",
    )


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:300]
