"""What was counted as a token: lengths asked for and had, the template's part, tokens per chunk, and who counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from redline.analyse.summary import PointSummary
from redline.report.model import Measured, ModelReport, load_label
from redline.report.numbers import number
from redline.report.section import Section
from redline.store.read import Reader
from redline.store.rows import RunRow

_HEADS = ("model", "engine", "load", "prompt", "of which template", "answer", "tokens per chunk", "counted by")
_SHOWN = 8


def tokens_section(reader: Reader, rows: Sequence[RunRow], models: Sequence[ModelReport]) -> Section | None:
    """None when nothing was measured."""
    table = tuple(
        (model.name, engine.label, load_label(load), *_cells(found[0]))
        for model in models
        for engine in model.engines
        for load, found in engine.points.items()
    )
    notes = dict.fromkeys(note for row in table for note in _notes(row))
    return Section("tokens", "What was counted", _HEADS, table, tuple(notes)) if table else None


def _cells(one: Measured) -> tuple[str, ...]:
    summary = one.summary
    overhead = one.outcome.get("prompt_overhead") or {}
    return (
        f"{number(summary.value('prompt_tokens'))} tokens",
        overhead_text(overhead),
        f"{number(summary.value('output_tokens'))} tokens",
        _chunks(one),
        _sources(summary),
    )


def _chunks(one: Measured) -> str:
    if not one.summary.tokens_per_chunk:
        return "–"
    return ("about " if one.outcome.get("spread") else "") + histogram_text(one.summary.tokens_per_chunk)


def overhead_text(overhead: Mapping[str, int]) -> str:
    """`13 tokens`, or by class `chat 13, rag 13 tokens`."""
    if not overhead:
        return "not known"
    if len(set(overhead.values())) == 1:
        tokens = next(iter(overhead.values()))
        return f"{tokens} token{'' if tokens == 1 else 's'}"
    return ", ".join(f"{name} {tokens}" for name, tokens in overhead.items()) + " tokens"


def histogram_text(chunks: Mapping[int, int]) -> str:
    """`1: 90 %, 2: 10 %`: the share of chunks that carried so many tokens."""
    total = sum(chunks.values())
    often = sorted(chunks, key=lambda size: -chunks[size])[:_SHOWN]
    shown = [f"{size}: {chunks[size] / total:.0%}" for size in sorted(often)]
    return ", ".join([*shown, *([f"{len(chunks) - _SHOWN} more sizes"] if len(chunks) > _SHOWN else [])])


def _sources(summary: PointSummary) -> str:
    total = sum(summary.token_sources.values())
    return ", ".join(f"{name} {count / total:.0%}" for name, count in summary.token_sources.items()) or "–"


def _notes(row: tuple[str, ...]) -> list[str]:
    """What a reader of ITL must know where chunks carry several tokens."""
    notes, text = [], row[6].removeprefix("about ")
    if text != row[6]:
        notes.append("about: the server gave totals only; how they lie in chunks is estimated from the texts' lengths")
    if any(size.isdigit() and int(size) > 1 for size in (part.partition(":")[0] for part in text.split(", "))):
        notes.append("tokens of one chunk arrive together: all its gaps but the first are 0 in ITL, none in TPOT")
    return notes
