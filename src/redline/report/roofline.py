"""How far each load point is from what the card can do, and what holds it there."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from redline.analyse.architecture import Architecture, architecture
from redline.analyse.precision import cards_of, computed_in, precision
from redline.analyse.roofline import (
    Limits,
    Precision,
    Standing,
    decode,
    linear_flip,
    longest_flip,
    standing,
    whole_flip,
)
from redline.errors import RedlineError
from redline.report.model import EngineReport, Measured, ModelReport, RunInfo, load_label, whose
from redline.report.numbers import NONE, number
from redline.report.section import Section
from redline.spec.model import ModelSpec
from redline.spec.resolve import resolve_model
from redline.store.ceilings import Ceilings, card_of, ceilings_of, from_dict
from redline.store.read import Reader
from redline.store.rows import RunRow

NOT_MEASURED = "not measured: run `redline node ceilings`"
BUSY = 0.1
"""Distance of the median round from the best beyond which the box was not idle."""
HEADS = ("engine", "load", "batch", "context", "step ms", "floor ms", "of the ceiling", "what holds it")
_ABOUT = (
    "A step is the median TPOT, so what prefills of other requests take out of it counts; batch: sequences that decode"
    " at once, output tokens per second times TPOT; context: mean prompt and half of the answer. The floor is what"
    " reading the weights and the KV cache and the FLOPs take at the ceilings measured on this card."
)
_BELOW = (
    "below the ceiling: `redline profile` tells whether the host or the kernels lose the rest; unknown: more than the"
    " card can, so a ceiling, a length or the precision assumed is wrong."
)


@dataclass(frozen=True)
class Placed:
    """One load point on the roofline. `standing` None where the card's ceilings are not known."""

    engine: str
    load: str
    batch: float
    context: float
    step_s: float
    standing: Standing | None


@dataclass(frozen=True)
class Roof:
    """One model on one card, as one engine computes it."""

    shape: Architecture
    precision: Precision
    dtype: str
    ceilings: Ceilings | None
    cards: int = 1
    groups: int = 1
    """Of so many cards, each with its part of the batch."""

    @property
    def limits(self) -> Limits | None:
        """Of the cards that share a step."""
        found = self.ceilings.flops_of(self.dtype) if self.ceilings is not None else None
        if self.ceilings is None or found is None:
            return None
        return Limits(self.ceilings.read, found[0]).times(self.cards)


def roofline_section(reader: Reader, rows: Sequence[RunRow], models: Sequence[ModelReport]) -> Section | None:
    """None when nothing was generated, or no config.json of a model is here."""
    table, notes = [], [_ABOUT]
    for model in models:
        for engine in model.engines:
            roof = roof_of(model, engine, rows)
            if roof is None:
                continue
            who = whose(models, model.name, engine.label)
            table += [_row(who, one) for one in placed(engine, roof)]
            notes += [f"{who}: {text}" for text in flips(roof)]
            notes += [f"{who}: {text}" for text in _cards(roof, rows)]
            if roof.limits is None:
                notes.append(f"{who}: {_missing(roof)}")
    if not table:
        return None
    if any(row[-1] in ("below the ceiling", "unknown") for row in table):
        notes.append(_BELOW)
    return Section("roofline", "Roofline", HEADS, tuple(table), tuple(dict.fromkeys(notes)), brief=True)


def _missing(roof: Roof) -> str:
    if roof.ceilings is None:
        return f"the ceilings of this card are {NOT_MEASURED}"
    return f"there is no ceiling for {roof.dtype}: {roof.ceilings.skipped or NOT_MEASURED}"


def _cards(roof: Roof, rows: Sequence[RunRow]) -> Iterator[str]:
    """What is to be known where there is more than one card."""
    if roof.cards > 1:
        yield f"the ceilings of {roof.cards} cards together: what they have to tell each other is not in the floor"
    if roof.groups > 1:
        yield f"each of {roof.groups} groups of cards has its part of the batch"
    kinds = {str(one.get("name")) for row in rows for one in (row.provenance.get("gpu") or {}).get("devices") or ()}
    if len(kinds) > 1:
        yield f"the box has cards of several kinds ({', '.join(sorted(kinds))}); the ceilings are those of the first"


def _row(who: str, one: Placed) -> tuple[str, ...]:
    where = (who, one.load, number(one.batch), f"{one.context:,.0f}", number(one.step_s * 1e3))
    if one.standing is None:
        return (*where, NONE, NONE, NOT_MEASURED)
    share = NONE if math.isnan(one.standing.share) else f"{one.standing.share:.0%}"
    return (*where, number(one.standing.floor_s * 1e3), share, one.standing.regime)


def roof_of(model: ModelReport, engine: EngineReport, rows: Sequence[RunRow] | Sequence[RunInfo]) -> Roof | None:
    """None when the model's config is not here, or is no decoder that redline knows."""
    ids = {run for start in engine.starts for run in [start.run_id]}
    row = next((row for row in rows if row.id in ids), rows[0] if rows else None)
    if row is None:
        return None
    spec = _spec(row, model.name)
    config = _config(spec.model_dump_json()) if spec is not None else {}
    shape = architecture(config) if config else None
    if shape is None:
        return None
    assert spec is not None
    stored = str(config.get("dtype") or config.get("torch_dtype") or "bfloat16")
    dtype = spec.dtype if spec.dtype != "auto" else stored
    flags: dict[str, Any] = {**engine.asked, **engine.flags}
    cards, groups = cards_of(flags)
    stored_precision, product = precision(flags, dtype, config), computed_in(flags, dtype, config)
    return Roof(shape.over(cards), stored_precision, product, ceilings_for(row.provenance), cards, groups)


def ceilings_for(provenance: Mapping[str, Any]) -> Ceilings | None:
    """Those that were known when it ran, else those kept since for the same card."""
    told = provenance.get("ceilings")
    if isinstance(told, Mapping) and told.get("read"):
        return from_dict(told)
    card, driver = card_of(provenance)
    return ceilings_of(card, driver) if card else None


def _spec(row: RunRow | RunInfo, name: str) -> ModelSpec | None:
    for one in row.experiment.get("models") or []:
        try:
            spec = ModelSpec.model_validate(one)
        except ValueError:  # of another version of redline
            continue
        if spec.served_name == name:
            return spec
    return None


@lru_cache(maxsize=16)
def _config(spec: str) -> dict[str, Any]:
    try:
        return dict(resolve_model(ModelSpec.model_validate_json(spec)).config)
    except (RedlineError, OSError):
        return {}


def placed(engine: EngineReport, roof: Roof) -> Iterator[Placed]:
    """Every load point whose requests decode."""
    for load, measured in engine.points.items():
        for one in measured:
            found = _measured(one)
            if found is None:
                continue
            batch, context, step_s = found
            limits = roof.limits
            cost = decode(roof.shape, roof.precision, max(1.0, batch / roof.groups), context)
            stand = standing(cost, limits, step_s) if limits is not None else None
            yield Placed(engine.label, load_label(load), batch, context, step_s, stand)


def _measured(one: Measured) -> tuple[float, float, float] | None:
    """(batch, context, seconds per step); None where nothing was generated."""
    names = ("tpot_ms.ok.p50", "output_tokens_per_s", "prompt_tokens", "output_tokens")
    tpot, rate, prompt, answer = (one.summary.value(name) for name in names)
    if not (math.isfinite(tpot + rate + prompt + answer) and tpot > 0 and rate > 0):
        return None
    return max(1.0, rate * tpot / 1e3), prompt + answer / 2, tpot / 1e3


def flips(roof: Roof) -> Iterator[str]:
    """Where decoding turns from memory-bound to compute-bound."""
    limits = roof.limits
    if limits is None:
        return
    flip = linear_flip(roof.shape, roof.precision, limits)
    longest = longest_flip(roof.shape, roof.precision, limits)
    products = f"from batch {flip:,} on" if flip is not None else "at no batch"
    text = f"matrix products of a decode step are compute-bound {products}"
    if math.isfinite(longest):
        text += f"; beyond {longest:,.0f} tokens of context the whole step is memory-bound at any batch"
    whole = whole_flip(roof.shape, roof.precision, limits, min(128.0, longest / 2))
    at = f"at {min(128.0, longest / 2):,.0f} tokens from batch {whole:,} on" if whole is not None else ""
    yield text + (f" (compute-bound {at})" if at else "")


def ceilings_lines(found: Ceilings) -> list[str]:
    """A few lines of text."""
    lines = [f"{found.card}" + (f", driver {found.driver}" if found.driver else "") + f", torch {found.torch}"]
    rows = [("read", found.read / 1e9, "GB/s"), ("copy, both ways", found.copy / 1e9, "GB/s")]
    rows += [(f"matrix product {name}", rate / 1e12, "TFLOP/s") for name, rate in found.flops.items()]
    names = ["read", "copy", *found.flops]
    for (what, value, unit), name in zip(rows, names, strict=True):
        spread = found.spread.get(name, 0.0)
        lines.append(f"  {what:<22} {number(value):>8} {unit:<8} median round {spread:.1%} below the best")
    lines += [f"  {name:<22} skipped: {why}" for name, why in found.skipped.items()]
    if max(found.spread.values(), default=0.0) > BUSY:
        lines.append(
            "  the rounds are far apart: something else was running, so these are too low; measure again when idle"
        )
    for name, rate in found.flops.items():
        lines.append(f"  ridge {name:<16} {number(rate / found.read):>8} FLOPs per byte")
    return lines
