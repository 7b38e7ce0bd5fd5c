"""Engines of one run that were measured in rounds: each against the first one, paired by round."""

from __future__ import annotations

from collections.abc import Sequence

from redline.report.model import ModelReport
from redline.report.proof import is_proof
from redline.report.section import Section
from redline.report.versus import set_against
from redline.report.versus_text import HEADS, effect_rows, footnotes
from redline.store.read import Reader
from redline.store.rows import RunRow


def rounds_section(reader: Reader, rows: Sequence[RunRow], models: Sequence[ModelReport]) -> Section | None:
    """None unless one run with rounds is shown, since pairing across runs has no meaning; a proof of settings has pairs
    of its own."""
    if len(rows) != 1 or int(rows[0].experiment.get("rounds") or 1) < 2 or is_proof(rows[0]):
        return None
    found = [
        (model.name, model.comparison.reference, engine.label)
        for model in models
        for engine in model.engines
        if engine.label != model.comparison.reference and engine.points
    ]
    versus = set_against(reader, rows[0], found)
    named = [
        (f"{label} on {name}" if len(models) > 1 else label, pair)
        for (name, _, label), pair in zip(found, versus.pairs, strict=True)
    ]
    lines = [(who, *row) for who, pair in named for point in pair.points for row in effect_rows(point)]
    if not lines:
        return None
    bases = dict.fromkeys((base, name) for name, base, _ in found)
    first = " and ".join(f"{base} on {name}" if len(models) > 1 else base for base, name in bases)
    barred = [f"{who} at {p.label}: not compared, {p.barred}" for who, pair in named for p in pair.points if p.barred]
    notes = (f"A is {first}, B the engine named", *barred, *footnotes(versus))
    return Section("rounds", "Paired by rounds", ("engine", *HEADS), tuple(lines), notes, brief=True)
