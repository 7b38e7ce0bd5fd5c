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
    notes = dict.fromkeys(note for row in table if (note := _note(row)))
    return Section("tokens", "What was counted", _HEADS, table, tuple(notes)) if table else None


def _cells(one: Measured) -> tuple[str, ...]:
    summary = one.summary
    overhead = one.outcome.get("prompt_overhead") or {}
    return (
        f"{number(summary.value('prompt_tokens'))} tokens",
        overhead_text(overhead),
        f"{number(summary.value('output_tokens'))} tokens",
        histogram_text(summary.tokens_per_chunk) if summary.tokens_per_chunk else "–",
        _sources(summary),
    )


def overhead_text(overhead: Mapping[str, int]) -> str:
    """`13 tokens`, or by class `chat 13, rag 13 tokens`."""
    if not overhead:
        return "not known"
    if len(set(overhead.values())) == 1:
        return f"{next(iter(overhead.values()))} tokens"
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


def _note(row: tuple[str, ...]) -> str:
    """What a reader of ITL must know where chunks carry several tokens."""
    sizes = [part.partition(":")[0] for part in row[6].split(", ")]
    if any(size.isdigit() and int(size) > 1 for size in sizes):
        return "tokens of one chunk arrive together: all gaps of a chunk but its first are 0 in ITL, none in TPOT"
    return ""
