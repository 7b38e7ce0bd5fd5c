"""The items of a workload that reads a file or a data set: which of them are used, and how long their answers are."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING

from redline.errors import SpecError, UsageError
from redline.load.datasets import Item, read_items
from redline.load.hub_data import hub_items

if TYPE_CHECKING:
    from redline.load.prompts import PromptSource

_WORDS_TO_TOKENS = 4 / 3
_SALT_TOKENS = 8


def items_of(source: PromptSource, seed: int, needed: int) -> list[Item]:
    """Items of the workload's file that fit the model, in file order; ShareGPT shuffled, and no more than needed."""
    workload = source.workload
    if workload.kind == "hub":
        rows = max(4 * needed, 1000)
        items = hub_items(workload.path, workload.hub_split, workload.hub_column, rows, source.notes)
    else:
        items = read_items(workload.kind, Path(workload.path))
    if workload.kind == "sharegpt":
        random.Random(f"{seed}/items").shuffle(items)
        items = _with_answers(source, items[: max(2 * needed, 1000)])
    if not workload.chat:
        several = next((item for item in items if len(item.messages) > 1 or item.messages[0]["role"] != "user"), None)
        if several is not None:
            raise SpecError(
                f"a conversation cannot go to the {workload.api} endpoint",
                file=workload.path,
                line=several.line,
                field="messages",
                fix="api: chat",
            )
    items = _fitting(source, items)
    if needed > len(items):
        same = "with a new start each" if workload.salted else "and a prefix cache may answer them"
        source.notes.append(f"{workload.path} holds {len(items)} prompts; they are used again, {same}")
    return items


def _with_answers(source: PromptSource, items: list[Item]) -> list[Item]:
    """Output lengths from the recorded answers."""
    count = source.count_texts
    if count is not None:
        lengths = count([item.answer for item in items])
    else:
        lengths = [round(len(item.answer.split()) * _WORDS_TO_TOKENS) for item in items]
        source.notes.append("no tokenizer: output lengths of ShareGPT are 4/3 of the words of its answers")
    return [Item(item.messages, length, line=item.line) for item, length in zip(items, lengths, strict=True) if length]


def _fitting(source: PromptSource, items: list[Item]) -> list[Item]:
    """Those whose lengths lie within the limits of the workload and of the model."""
    workload, limit = source.workload, source.endpoint.max_model_len
    answers = workload.api != "embeddings"
    output = workload.output_tokens
    if answers:
        within = [item for item in items if not item.output_tokens or output.min <= item.output_tokens <= output.max]
        _left_out(source, len(items) - len(within), f"have answers outside of {output.min} to {output.max} tokens")
        items = _some(source, within, f"an answer of {output.min} to {output.max} tokens")
    if not source.verified:
        return items
    prompt = workload.prompt_tokens
    sizes = dict(enumerate(source.count_items([item.messages for item in items])))
    kept = [place for place, size in sizes.items() if prompt.min <= size <= prompt.max]
    _left_out(source, len(items) - len(kept), f"are not {prompt.min} to {prompt.max} tokens long")
    if limit:
        wanted = output.mean if answers else 0
        room = [p for p in kept if sizes[p] + _SALT_TOKENS + ((answers and items[p].output_tokens) or wanted) <= limit]
        _left_out(source, len(kept) - len(room), f"do not fit into {limit} tokens")
        if kept and not room:
            raise UsageError(f"no prompt of {workload.path} fits into the model's {limit} tokens")
        kept = room
    return _some(source, [items[place] for place in kept], f"{prompt.min} to {prompt.max} tokens")


def _left_out(source: PromptSource, count: int, why: str) -> None:
    if count:
        source.notes.append(f"{count} prompts {why} and are left out")


def _some(source: PromptSource, items: list[Item], what: str) -> list[Item]:
    if not items:
        raise UsageError(f"no prompt of {source.workload.path} has {what}", fix="wider limits: prompt_tokens.min, .max")
    return items
