"""What crosses from `observe` to `store` and `analyse`: one measured value at one instant, or one tick of a sampler."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType
from typing import NamedTuple

import orjson

NO_LABELS: Mapping[str, str] = MappingProxyType({})


class Sample(NamedTuple):
    """`t_ns` is monotonic. `name` is dotted and ends in its unit, e.g. `engine.rss_bytes`, `gpu.memory_used_bytes`."""

    t_ns: int
    name: str
    value: float
    unit: str
    labels: Mapping[str, str] = NO_LABELS


Column = tuple[str, str, str]
"""Name, unit, and labels as JSON with sorted keys."""


@dataclass(frozen=True, eq=False)
class Layout:
    """What the values of a tick are, in their order. Two ticks with the same columns share one object."""

    columns: tuple[Column, ...]


@dataclass(frozen=True)
class Tick:
    """Values of one instant. `values` is a JSON array, one number (or null) for each column of the layout."""

    t_ns: int
    layout: Layout
    values: str


class Layouts:
    """Ticks out of samples: the samples of one instant become one tick, whose layout is made once."""

    def __init__(self) -> None:
        self._known: dict[tuple[Column, ...], Layout] = {}
        self._labels: dict[tuple[tuple[str, str], ...], str] = {}

    def ticks(self, samples: Iterable[Sample]) -> list[Tick]:
        return [self._tick(t_ns, list(same)) for t_ns, same in groupby(samples, lambda sample: sample.t_ns)]

    def _tick(self, t_ns: int, samples: Sequence[Sample]) -> Tick:
        columns = tuple((one.name, one.unit, self._text(one.labels)) for one in samples)
        layout = self._known.get(columns)
        if layout is None:
            layout = self._known[columns] = Layout(columns)
        return Tick(t_ns, layout, orjson.dumps([one.value for one in samples]).decode())  # NaN and infinity: null

    def _text(self, labels: Mapping[str, str]) -> str:
        key = tuple(labels.items())
        text = self._labels.get(key)
        if text is None:
            text = self._labels[key] = orjson.dumps(dict(labels), option=orjson.OPT_SORT_KEYS).decode()
        return text
