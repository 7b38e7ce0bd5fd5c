"""One step of each engine and phase as a flame-like timeline, in one HTML file that needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from redline.analyse.profile.breakdown import Analysed
from redline.analyse.profile.classes import CLASSES, class_of, short_name
from redline.analyse.profile.record import Profile
from redline.analyse.profile.spans import ANNOTATION, COPY, KERNEL, LAUNCH, OP, Spans
from redline.analyse.profile.steps import Step
from redline.report.numbers import number
from redline.report.profile.tables import every, what

COLOURS = {
    "matrix product": "#0072b2",
    "attention": "#d55e00",
    "norm and elementwise": "#009e73",
    "quantisation": "#a8488a",
    "sampling": "#b7870b",
    "other": "#7d8894",
    "communication": "#3aa0d8",
    "copy": "#7a5c3e",
    "gaps": "#dfe3e8",
}
MOST = 5000
"""Boxes of one step; the shortest ones beyond it are left out, and the page says how many."""
_PAGE = Path(__file__).parents[1] / "page" / "timeline.html"
Drawn = tuple[str, Analysed]
"""(title, trace)"""


def timeline_html(title: str, drawn: Sequence[Drawn], profile: Profile | None = None) -> str:
    """`profile` adds the stacked bars above."""
    data = {
        "title": title,
        "classes": [*CLASSES],
        "colours": COLOURS,
        "bars": _bars(profile) if profile is not None else [],
        "panels": [panel for name, analysed in drawn if (panel := _panel(name, analysed)) is not None],
    }
    text = orjson.dumps(data, option=orjson.OPT_SERIALIZE_NUMPY).decode().replace("</", "<\\/")
    page = _PAGE.read_text(encoding="utf-8")
    return page.replace("__TITLE__", _escaped(title)).replace("__DATA__", text)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")


def _bars(profile: Profile) -> list[dict[str, Any]]:
    rows = []
    for engine, phase in every(profile):
        part = phase.breakdown
        if part is None:
            continue
        parts = {**part.by_class, "gaps": part.gap_us}
        rows.append(
            {"group": what(phase), "label": engine.label, "parts": parts, "text": f"{number(part.step_us / 1e3)} ms"}
        )
    return rows


def _panel(title: str, analysed: Analysed) -> dict[str, Any] | None:
    """The step of the usual length, of the phase that has most of the time."""
    chosen = _usual(analysed.found)
    if chosen is None:
        return None
    spans = analysed.spans.between(chosen.start, chosen.end)
    names: dict[str, int] = {}
    lanes = list(_lanes(spans, chosen, names))
    left_out = _thin(lanes)
    length = chosen.end - chosen.start
    shown = f"one {chosen.phase} step of {number(length / 1e3)} ms"
    kinds = [{"short": short_name(name), "full": name[:400], "kind": CLASSES.index(class_of(name))} for name in names]
    return {
        "title": title,
        "text": shown + (f"; {left_out:,} short boxes are left out" if left_out else ""),
        "length": round(length, 3),
        "lanes": lanes,
        "names": kinds,
    }


def _usual(found: Sequence[Step]) -> Step | None:
    if not found:
        return None
    phases = {step.phase for step in found}
    phase = max(phases, key=lambda name: sum(step.end - step.start for step in found if step.phase == name))
    mine = sorted((step for step in found if step.phase == phase), key=lambda step: step.end - step.start)
    return mine[len(mine) // 2]


def _lanes(spans: Spans, step: Step, names: dict[str, int]) -> Any:
    """A lane for each stream of the device, then for each thread of the host that did anything."""
    for kinds, what_it_is in (((KERNEL, COPY), "device"), ((OP, ANNOTATION, LAUNCH), "host")):
        mine = spans.of(*kinds)
        for track in np.unique(mine.track):
            one = mine.where(mine.track == track)
            process, thread = spans.tracks[int(track)]
            name = f"{process}, {thread}" if what_it_is == "device" else f"host thread {thread}"
            yield {"name": name, "boxes": _boxes(one, step, names)}


def _boxes(spans: Spans, step: Step, names: dict[str, int]) -> list[list[float]]:
    """[start, length, depth, name] of each."""
    boxes: list[list[float]] = []
    stack: list[float] = []
    for start, length, name in zip(spans.start, spans.length, spans.name, strict=True):
        while stack and stack[-1] <= start + 1e-6:
            stack.pop()
        place = names.setdefault(spans.names[int(name)], len(names))
        end = min(float(start + length), step.end)
        boxes.append([round(float(start) - step.start, 3), round(end - float(start), 3), len(stack), place])
        stack.append(float(start + length))
    return boxes


def _thin(lanes: list[dict[str, Any]]) -> int:
    """Leaves out the shortest where there are too many; how many."""
    lengths = np.array([box[1] for lane in lanes for box in lane["boxes"]])
    if len(lengths) <= MOST:
        return 0
    least = float(np.partition(lengths, len(lengths) - MOST)[len(lengths) - MOST])
    for lane in lanes:
        lane["boxes"] = [box for box in lane["boxes"] if box[1] >= least]
    return len(lengths) - sum(len(lane["boxes"]) for lane in lanes)
