"""Where a decode step and a prefill step go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from redline.analyse.profile.classes import CLASSES, backend_of, class_of, short_name
from redline.analyse.profile.nesting import flat
from redline.analyse.profile.spans import ANNOTATION, COPY, KERNEL, LAUNCH, OP, Covered, Spans, covered, gaps, in_turn
from redline.analyse.profile.steps import PHASES, Step, steps

TOP = 20
UNSEEN = "kernels were launched, but the profiler recorded none: nothing can be said of the device; record it once more"
OWN_RANGES = "redline::"
"""Ranges of the runtime that stand for work which torch does not see: its pass compiled for the CPU."""


@dataclass(frozen=True)
class Kernel:
    """One kernel or operator: µs and calls per step. The time is its own: without the operators inside it on a CPU,
    without waiting for the kernel before it on a GPU."""

    name: str
    full: str
    kind: str
    us: float
    calls: float


@dataclass(frozen=True)
class Breakdown:
    """Means over the steps of one phase, in µs per step; a prefill that takes several steps is `added_up`.

    `busy_us` is time in which at least one kernel ran (CPU: in which the engine's thread was inside an operator);
    `by_class` adds up to it. `gap_us` is the rest of the step. `hidden_us` ran under something else and is in neither,
    and a kernel that waits for the one before it in its stream does not run.
    """

    phase: str
    device: bool
    steps: int
    step_us: float
    step_us_p50: float
    busy_us: float
    gap_us: float
    hidden_us: float
    by_class: dict[str, float]
    kernels: float
    """Kernels and copies (CPU: operators, those inside others too) per step."""
    launches: float
    """What the host had to launch per step: a CUDA graph counts as one (CPU: operators that no other contains)."""
    gap_us_p50: float
    gap_us_max: float
    prompt_tokens: float
    generated: float
    requests: float
    kv_tokens: float
    top: tuple[Kernel, ...] = ()
    attention: dict[str, float] = field(default_factory=dict)
    """µs per step by attention backend, as the kernels' names tell."""

    def added_up(self, steps: float) -> Breakdown:
        """Of `steps` steps together, such as the pieces in which a long prompt is computed. The gaps between kernels
        (`gap_us_p50`, `gap_us_max`) and what a step found stay those of one."""
        sums = ("step_us", "step_us_p50", "busy_us", "gap_us", "hidden_us", "kernels", "launches")
        kinds = {kind: us * steps for kind, us in self.by_class.items()}
        backends = {name: us * steps for name, us in self.attention.items()}
        top = tuple(replace(one, us=one.us * steps, calls=one.calls * steps) for one in self.top)
        tokens = {"prompt_tokens": self.prompt_tokens * steps, "generated": self.generated * steps}
        whole: dict[str, float] = {name: getattr(self, name) * steps for name in sums} | tokens
        return replace(self, **whole, by_class=kinds, attention=backends, top=top)  # type: ignore[arg-type]

    @property
    def gap_share(self) -> float:
        return self.gap_us / self.step_us if self.step_us else 0.0

    @property
    def tokens(self) -> float:
        """What the step was for: tokens generated, or prompt tokens of a prefill."""
        return self.prompt_tokens if self.phase == "prefill" else self.generated

    @property
    def us_per_token(self) -> float:
        return self.step_us / self.tokens if self.tokens else float("nan")


@dataclass(frozen=True)
class Analysed:
    """A trace, analysed. `notes` say what could not be told. `spans` and `found` are for drawing."""

    phases: tuple[Breakdown, ...]
    notes: tuple[str, ...]
    spans: Spans
    found: tuple[Step, ...]

    def phase(self, name: str) -> Breakdown | None:
        return next((one for one in self.phases if one.phase == name), None)


def analyse_trace(spans: Spans, *, skip_first: int = 1) -> Analysed:
    """Every phase that occurs. The first `skip_first` decode steps are left out where there are more than three times
    as many: the profiler is still starting. Without annotated steps, all of the work counts as one step of phase
    `whole`. A trace with launches and no kernel has no phases: what its operators took is the host's time alone."""
    if (spans.kind == LAUNCH).any() and not spans.on_device:
        return Analysed((), (UNSEEN,), spans, ())
    found, notes = steps(spans), []
    if not found:
        whole = _whole(spans)
        notes.append("no step is annotated in this trace: all of it counts as one step")
        found = [whole] if whole else []
    work = _Work(spans, found)
    phases = []
    for name in (*PHASES, "whole"):
        mine = [step for step in found if step.phase == name]
        if name == "decode":
            mine = _settled(mine, skip_first)
        if mine:
            phases.append(_breakdown(name, mine, work))
    return Analysed(tuple(phases), tuple(notes), spans, tuple(found))


def _settled(found: Sequence[Step], skip: int) -> list[Step]:
    """Decode steps of the usual number of requests; the last one's end is not known."""
    if not found:
        return []
    sizes, counts = np.unique([step.requests for step in found], return_counts=True)
    usual = int(sizes[int(np.argmax(counts))])
    mine = [step for step in found if step.requests == usual]
    mine = mine[:-1] if len(mine) > 1 else mine
    return mine[skip:] if len(mine) > 3 * skip else mine


def _whole(spans: Spans) -> Step | None:
    work = spans.of(KERNEL, COPY) if spans.on_device else spans.of(OP)
    return Step("whole", float(work.start[0]), float(work.end.max()), 0, 0, 0, 0) if len(work) else None


class _Work:
    """What counts as work: kernels and copies, or the operators of the threads that computed, as flat pieces."""

    def __init__(self, spans: Spans, found: Sequence[Step]) -> None:
        self.device = spans.on_device
        self.events = spans.of(KERNEL, COPY) if self.device else _operators(spans, found)
        self.outermost = np.ones(len(self.events), bool)
        self.own = self.events.length
        """µs of each event that are its own: on a device, not those in which it waits for the one before it."""
        if self.device:
            start, self.own = in_turn(self.events.start, self.events.length, self.events.track)
            order = np.argsort(start, kind="stable")
            self.start, self.length, self.kind = start[order], self.own[order], self.events.classes()[order]
            return
        parts = []
        own = self.events.classes()
        for track in np.unique(self.events.track):
            mine = np.flatnonzero(self.events.track == track)
            start, length, kind, outer = flat(self.events.where(mine), own[mine])
            self.outermost[mine] = outer
            parts.append((start, length, kind))
        joined = [np.concatenate([part[place] for part in parts]) if parts else np.empty(0) for place in range(3)]
        order = np.argsort(joined[0], kind="stable")
        self.start, self.length, self.kind = (column[order] for column in joined)

    def pieces(self, step: Step) -> Covered:
        """Work of the step; what reaches over its end counts up to there."""
        first, last = np.searchsorted(self.start, (step.start, step.end))
        start, length = self.start[first:last], self.length[first:last]
        return covered(start, np.minimum(length, step.end - start), self.kind[first:last])

    def inside(self, step: Step) -> Any:
        first, last = np.searchsorted(self.events.start, (step.start, step.end))
        return np.arange(int(first), int(last))


def _operators(spans: Spans, found: Sequence[Step]) -> Spans:
    """Operators on the threads of the steps; the thread with the most time in operators where there are no steps."""
    named = np.array([name.startswith(OWN_RANGES) for name in spans.names] or [False])
    mine = (spans.kind == OP) | ((spans.kind == ANNOTATION) & named[spans.name])
    operators = spans.where(mine)
    if not len(operators):
        return operators
    starts = np.array([step.start for step in found if step.phase != "whole"])
    marks = spans.where((spans.kind == ANNOTATION) & np.isin(spans.start, starts))
    tracks = np.unique(marks.track)
    if not len(tracks):
        sums = np.bincount(operators.track, weights=operators.length)
        tracks = np.array([int(np.argmax(sums))])
    return operators.where(np.isin(operators.track, tracks))


def _breakdown(name: str, mine: Sequence[Step], work: _Work) -> Breakdown:
    parts = [work.pieces(step) for step in mine]
    lengths = np.array([step.end - step.start for step in mine])
    inside = [work.inside(step) for step in mine]
    busy = float(np.mean([part.busy for part in parts]))
    by_class = np.mean([part.by_class for part in parts], axis=0)
    between = [_gaps(work, step) for step in mine]
    every = np.concatenate(between) if between else np.empty(0)
    step_us = float(lengths.mean())
    return Breakdown(
        phase=name,
        device=work.device,
        steps=len(mine),
        step_us=step_us,
        step_us_p50=float(np.median(lengths)),
        busy_us=busy,
        gap_us=max(0.0, step_us - busy),
        hidden_us=float(np.mean([part.hidden for part in parts])),
        by_class={kind: float(us) for kind, us in zip(CLASSES, by_class, strict=True) if us > 0},
        kernels=float(np.mean([len(places) for places in inside])),
        launches=float(np.mean([_launches(work, places) for places in inside])),
        gap_us_p50=float(np.median(every)) if len(every) else 0.0,
        gap_us_max=float(every.max()) if len(every) else 0.0,
        prompt_tokens=float(np.mean([step.prompt_tokens for step in mine])),
        generated=float(np.mean([step.generated for step in mine])),
        requests=float(np.mean([step.requests for step in mine])),
        kv_tokens=float(np.mean([step.kv_tokens for step in mine])),
        top=_top(work, np.concatenate(inside), len(mine)),
        attention=_attention(work, np.concatenate(inside), len(mine)),
    )


def _gaps(work: _Work, step: Step) -> Any:
    first, last = np.searchsorted(work.start, (step.start, step.end))
    return gaps(work.start[first:last], work.length[first:last])


def _launches(work: _Work, places: Any) -> int:
    if not work.device:
        return int(work.outermost[places].sum())
    linked = work.events.correlation[places]
    return len(np.unique(linked[linked != 0])) + int((linked == 0).sum())


def _top(work: _Work, places: Any, count: int) -> tuple[Kernel, ...]:
    events = work.events
    own = _own_time(work, places)
    sums = np.bincount(events.name[places], weights=own, minlength=len(events.names))
    calls = np.bincount(events.name[places], minlength=len(events.names))
    order = [int(place) for place in np.argsort(-sums)[:TOP] if calls[place]]
    return tuple(
        Kernel(
            short_name(events.names[place]),
            events.names[place],
            class_of(events.names[place]),
            float(sums[place]) / count,
            float(calls[place]) / count,
        )
        for place in order
    )


def _own_time(work: _Work, places: Any) -> Any:
    """Of each event: on a device without its waiting, on a CPU less that of the operators directly inside it."""
    events = work.events
    own = work.own[places].astype(float)
    if work.device:
        return own
    stacks: dict[int, list[tuple[float, int]]] = {}
    for index, place in enumerate(places):
        start, length = float(events.start[place]), float(events.length[place])
        stack = stacks.setdefault(int(events.track[place]), [])
        while stack and stack[-1][0] <= start:
            stack.pop()
        if stack:
            own[stack[-1][1]] -= length
        stack.append((start + length, index))
    return np.maximum(own, 0.0)


def _attention(work: _Work, places: Any, count: int) -> dict[str, float]:
    """By backend, from names. On a CPU an operator counts with all that it calls, once."""
    events = work.events
    found: dict[str, float] = {}
    until: dict[int, float] = {}
    for place in places:
        backend = backend_of(events.names[events.name[place]])
        start, track = float(events.start[place]), int(events.track[place])
        if not backend or (not work.device and start < until.get(track, -np.inf)):
            continue
        until[track] = start + float(events.length[place])
        found[backend] = found.get(backend, 0.0) + float(work.own[place]) / count
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))
