"""Spans made by hand, in µs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from redline.analyse.profile.spans import Spans

Event = tuple[int, str, float, float, int, int]
"""kind, name, start, length, track, correlation"""


def spans(events: Sequence[Event]) -> Spans:
    ordered = sorted(events, key=lambda event: event[2])
    names = list(dict.fromkeys(event[1] for event in ordered))
    tracks = tuple(("p", str(track)) for track in range(max((event[4] for event in ordered), default=0) + 1))
    return Spans(
        tuple(names),
        tracks,
        np.array([event[0] for event in ordered], np.int8),
        np.array([names.index(event[1]) for event in ordered], np.int32),
        np.array([event[2] for event in ordered], float),
        np.array([event[3] for event in ordered], float),
        np.array([event[4] for event in ordered], np.int32),
        np.array([event[5] for event in ordered], np.int64),
    )
