"""Operators call operators: an instant of a thread belongs to the innermost one, its class to the one that means it."""

from __future__ import annotations

from typing import Any

import numpy as np

from redline.analyse.profile.classes import CLASSES
from redline.analyse.profile.spans import Spans

_HOLDS = {CLASSES.index(name) for name in ("attention", "sampling", "matrix product", "quantisation", "communication")}
"""What is called from inside one of these is part of it: the copy that a matrix product makes, the softmax of
attention."""


def flat(spans: Spans, own: Any) -> tuple[Any, Any, Any, Any]:
    """(start, length, class, outermost): the pieces of time of one thread's nested operators, none over another.

    `own` is each event's class. `outermost` marks the events that no other contains.
    """
    starts, lengths, classes = [], [], []
    outermost = np.zeros(len(spans), bool)
    stack: list[tuple[float, int]] = []  # (end, class)
    at = 0.0

    def close(until: float) -> None:
        nonlocal at
        while stack and stack[-1][0] <= until:
            end, kind = stack.pop()
            if end > at:
                starts.append(at)
                lengths.append(end - at)
                classes.append(kind)
                at = end

    for place, (start, length, kind) in enumerate(zip(spans.start, spans.length, own, strict=True)):
        close(start)
        if stack:
            if start > at:
                starts.append(at)
                lengths.append(start - at)
                classes.append(stack[-1][1])
            outer = stack[-1][1]
            kind = outer if outer in _HOLDS else kind
            end = min(start + length, stack[-1][0])  # clocks of two events may disagree by a nanosecond
        else:
            outermost[place] = True
            end = start + length
        at = max(at, start)
        stack.append((end, int(kind)))
    close(np.inf)
    return np.array(starts), np.array(lengths), np.array(classes, np.int8), outermost
