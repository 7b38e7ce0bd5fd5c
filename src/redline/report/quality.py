"""What was answered, beside how fast: canaries, the look of ordinary answers, and the cold start."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from redline.analyse.slo import wilson
from redline.report.model import Measured, ModelReport, load_label
from redline.report.numbers import number
from redline.report.section import Section
from redline.store.read import Reader
from redline.store.rows import RunRow

COLD = 1.3
"""A first answer that is slower by less is no news."""


def quality_section(reader: Reader, rows: Sequence[RunRow], models: Sequence[ModelReport]) -> Section | None:
    """None when nobody looked at answers."""
    shown: list[tuple[str, ...]] = []
    notes: list[str] = []
    for label, load, one in points(models):
        canary, answers = one.outcome.get("canary") or {}, one.outcome.get("answers") or {}
        if not canary and not answers.get("measured", {}).get("answers"):
            continue
        shown.append((label, load, *_canary_cells(canary), *_answer_cells(answers)))
        notes += [f"{label} at {load}: {text}" for text in _remarks(canary)]
        if one.outcome.get("random_weights"):
            notes.append(f"{label}: a model with random weights, which loops and babbles in good health")
    if not shown:
        return None
    heads = ("engine", "load", "canaries", "answered as alone", "agree for", "log-prob. drift", "garbled", "looping")
    about = "Canaries are fixed prompts in the load; each is compared with the same server's answer to it alone."
    return Section("quality", "Quality of the answers", heads, tuple(shown), (about, *dict.fromkeys(notes)))


def warmup_section(reader: Reader, rows: Sequence[RunRow], models: Sequence[ModelReport]) -> Section | None:
    """None when no cold start is known."""
    shown: list[tuple[str, ...]] = []
    notes: list[str] = []
    for label, load, one in points(models):
        told = one.outcome.get("warmup") or {}
        if not told.get("batches"):
            continue
        after = told.get("settled_after")
        shown.append(
            (
                label, load, str(told["requests"]), f"{number(told['seconds'])} s", _ms(told, "first_ttft_ms"),
                _ms(told, "settled_ttft_ms"), "–" if after is None else f"after {after} requests",
            )
        )  # fmt: skip
        notes += [f"{label} at {load}: {text}" for text in _cold(told)]
    if not shown:
        return None
    heads = ("engine", "load", "warm-up requests", "took", "first TTFT ms", "TTFT ms at its end", "settled")
    return Section("warmup", "Cold start and warm-up", heads, tuple(shown), tuple(notes))


def points(models: Sequence[ModelReport]) -> Iterator[tuple[str, str, Measured]]:
    """(engine, load, point) of everything that was measured."""
    for model in models:
        for engine in model.engines:
            label = engine.label if len(models) == 1 else f"{model.name} {engine.label}"
            for load, measured in engine.points.items():
                yield from ((label, load_label(load), one) for one in measured)


def _canary_cells(told: dict[str, Any]) -> Iterator[str]:
    n = int(told.get("compared", 0))
    if not n:
        yield from ("0" if told else "off", "–", "–", "–")
        return
    same = n - int(told["mismatched"])
    band = wilson(same, n)
    yield str(n)
    yield f"{same / n:.0%}" + (f" [{band.low:.0%}–{band.high:.0%}]" if band else "")
    yield f"{told['agreed_share']:.0%} of the text" if told["mismatched"] else "all of it"
    drift = told.get("logprob_drift")
    yield "–" if drift is None else f"{drift:.3f} nats"


def _answer_cells(told: dict[str, Any]) -> Iterator[str]:
    measured = told.get("measured") or {}
    for name in ("garbled", "looping"):
        yield f"{measured.get(name, 0)} of {measured.get('answers', 0)}"


def _remarks(told: dict[str, Any]) -> Iterator[str]:
    if told and not told.get("alone"):
        yield "canaries could not be asked alone, so nothing was compared"
    if told.get("unlike_alone"):
        yield (
            f"{told['unlike_alone']} of {told['asked_twice']} canaries were answered in two ways even alone: "
            "this server is not deterministic, and differences under load prove nothing"
        )
    for index, want, got in told.get("examples") or ():
        yield f"canary {index} alone {want!r}, under load {got!r}"


def _cold(told: dict[str, Any]) -> Iterator[str]:
    factor, after = told.get("cold_factor", 1.0), told.get("settled_after")
    if factor >= COLD:
        end = f"settled after {after} requests" if after is not None else "and the warm-up ended before it settled"
        yield f"cold start: first answer {number(factor)}× slower, {end}"
    if told.get("mode") == "stable" and not told.get("settled"):
        yield f"batches still differed after {number(told['seconds'])} s of warm-up"


def _ms(told: dict[str, Any], key: str) -> str:
    value = told.get(key)
    return "–" if value is None else number(value)
