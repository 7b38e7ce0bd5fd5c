"""Steps of the engine in a trace: what vLLM, redline's runtime and our transformers server write around each."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from redline.analyse.profile.spans import ANNOTATION, COPY, GPU_ANNOTATION, KERNEL, LAUNCH, OP, Spans

_STEP = re.compile(
    r"^execute_(?:(?P<all>\d+)_)?context_(?P<n>\d+)\((?:sq)?(?P<nt>\d+)(?:sk(?P<nk>\d+)[^)]*)?\)"
    r"_generation_(?P<m>\d+)\((?:sq)?(?P<mt>\d+)(?:sk(?P<mk>\d+)[^)]*)?\)"
)
PHASES = ("prefill", "decode", "mixed")
IDLE_FACTOR = 20.0
"""A gap so many times the usual one is the engine waiting for work, not for itself."""

TAIL_US, TAIL_SHARE = 2000.0, 0.1


@dataclass(frozen=True)
class Step:
    """One forward pass. Times in µs: the next step's start, or the end of the last work before it, is `end`."""

    phase: str
    start: float
    end: float
    prompt_tokens: int
    generated: int
    requests: int
    kv_tokens: int
    """Length of the sequences that were read, together; 0 where the annotation does not say."""


def parse(name: str) -> tuple[str, int, int, int, int] | None:
    """(phase, prompt tokens, tokens generated, requests, tokens in the KV cache) of an annotation; None of others."""
    found = _STEP.match(name)
    if found is None:
        return None
    number = {key: int(text or 0) for key, text in found.groupdict().items()}
    if not number["n"] and not number["m"]:
        return None
    phase = "mixed" if number["n"] and number["m"] else "prefill" if number["n"] else "decode"
    requests = number["n"] + number["m"]
    return phase, number["nt"], number["mt"], requests, number["nk"] + number["mk"]


def steps(spans: Spans) -> list[Step]:
    """Every annotated step by start; empty where the trace has no such annotation.

    On the device a step begins with its first kernel. A decode step lasts until the next one begins, so that what the
    host does in between counts; a prefill until its last work before that.
    """
    told = {place: one for place, name in enumerate(spans.names) if (one := parse(name)) is not None}
    if not told:
        return []
    marks = _marks(spans, told)
    work = spans.of(KERNEL, COPY) if spans.on_device else _busiest(spans, marks)
    starts = np.array([start for start, _, _ in marks])
    found = []
    for place, (start, own_end, name) in enumerate(marks):
        phase, prompt, generated, requests, held = told[name]
        until = float(starts[place + 1]) if place + 1 < len(starts) else np.inf
        inside = work.between(start, until if phase == "decode" else min(until, own_end + _tail(own_end - start)))
        last = float(inside.end.max()) if len(inside) else own_end
        end = min(until, max(last, own_end))
        if phase == "decode" and np.isfinite(until):
            end = until
        if end > start:
            found.append(Step(phase, start, end, prompt, generated, requests, held))
    return _without_waiting(found, work)


def _tail(length: float) -> float:
    """µs after a prefill's annotation in which what starts still belongs to it: sampling, the answer's first token."""
    return max(TAIL_US, TAIL_SHARE * length)


def _marks(spans: Spans, told: dict[int, Any]) -> list[tuple[float, float, int]]:
    """(start, end, name) of each annotation, on the device where it has kernels."""
    known = np.isin(spans.name, list(told))
    seen = spans.where(known & (spans.kind == GPU_ANNOTATION))
    host = spans.where(known & (spans.kind == ANNOTATION))
    if not spans.on_device:
        return [(float(s), float(e), int(n)) for s, e, n in zip(host.start, host.end, host.name, strict=True)]
    if len(seen):
        seen = _main_stream(seen)
        return [(float(s), float(e), int(n)) for s, e, n in zip(seen.start, seen.end, seen.name, strict=True)]
    return _projected(spans, host)


def _main_stream(seen: Spans) -> Spans:
    """An annotation is shown once for each stream that it launched to: the stream with most of the time counts."""
    sums = np.bincount(seen.track, weights=seen.length)
    return seen.where(seen.track == int(np.argmax(sums)))


def _projected(spans: Spans, host: Spans) -> list[tuple[float, float, int]]:
    """The host's annotations, as the kernels that were launched inside them, by correlation."""
    launches, kernels = spans.of(LAUNCH), spans.of(KERNEL)
    order = np.argsort(kernels.correlation, kind="stable")
    linked = kernels.correlation[order]
    marks = []
    for start, end, name, track in zip(host.start, host.end, host.name, host.track, strict=True):
        inside = launches.between(start, end)
        mine = inside.correlation[inside.track == track]
        low, high = np.searchsorted(linked, mine), np.searchsorted(linked, mine, side="right")
        hit = [order[a:b] for a, b in zip(low, high, strict=True) if b > a]
        if hit:
            chosen = np.concatenate(hit)
            marks.append((float(kernels.start[chosen].min()), float(kernels.end[chosen].max()), int(name)))
    return sorted(marks)


def _busiest(spans: Spans, marks: list[tuple[float, float, int]]) -> Spans:
    """The operators of the threads that steps ran on."""
    names = {name for _, _, name in marks}
    tracks = np.unique(spans.track[np.isin(spans.name, list(names)) & (spans.kind == ANNOTATION)])
    return spans.where((spans.kind == OP) & np.isin(spans.track, tracks))


def _without_waiting(found: list[Step], work: Spans) -> list[Step]:
    """A decode step after which the engine had nothing to do ends with its last work."""
    lengths = [step.end - step.start for step in found if step.phase == "decode"]
    usual = float(np.median(lengths)) if lengths else 0.0
    kept = []
    for step in found:
        if step.phase == "decode" and step.end - step.start > IDLE_FACTOR * usual:
            inside = work.between(step.start, step.end)
            end = float(inside.end.max()) if len(inside) else step.end
            step = Step(step.phase, step.start, end, step.prompt_tokens, step.generated, step.requests, step.kv_tokens)
        kept.append(step)
    return kept
