"""A peer's table: figures under its own names, each with the id of its definition."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from redline.analyse.percentile import Floats


@dataclass(frozen=True)
class PeerDefinition:
    """`id` carries the version of the tool whose source says so, e.g. `vllm/ttft_ms@0.30`; `differs` is what a reader
    of redline's own number of that kind must know."""

    id: str
    unit: str
    text: str
    differs: str


@dataclass(frozen=True)
class PeerFigure:
    """`key` is the path in the tool's own result file, with dots; `label` the words of its own table."""

    key: str
    label: str
    value: float
    unit: str
    definition: str = ""


@dataclass(frozen=True)
class PeerReport:
    """`limits` says what the raw log cannot give exactly, or not at all."""

    tool: str
    version: str
    title: str
    figures: tuple[PeerFigure, ...]
    limits: tuple[str, ...] = ()

    def value(self, key: str) -> float:
        """NaN when there is no such figure."""
        return next((figure.value for figure in self.figures if figure.key == key), math.nan)

    def as_dict(self) -> dict[str, Any]:
        """Nested as in the tool's own result file; what cannot be had is null."""
        whole: dict[str, Any] = {}
        for figure in self.figures:
            *path, last = figure.key.split(".")
            inner = whole
            for step in path:
                inner = inner.setdefault(step, {})
            inner[last] = None if math.isnan(figure.value) else figure.value
        return whole


Statistic = Callable[[Floats], float]


def linear(level: float) -> Statistic:
    """numpy's percentile: between two measured values, a mixture of both."""
    return lambda values: float(np.percentile(values, level))


def mean(values: Floats) -> float:
    return float(values.mean())


def std(values: Floats) -> float:
    """Of the population: divided by n."""
    return float(values.std())


def nearest(values: Floats, weights: Floats, level: float) -> float:
    """The smallest value with at least that share of the weight at or below it."""
    order = np.argsort(values)
    share = np.cumsum(weights[order]) / weights.sum()
    return float(values[order][min(int(np.searchsorted(share, level, side="left")), len(values) - 1)])


def apply(statistic: Statistic, values: Floats, empty: float = math.nan) -> float:
    return statistic(values) if len(values) else empty


def table(
    values: Mapping[str, tuple[str, Floats, str, str]],
    statistics: Sequence[tuple[str, str, Statistic]],
    empty: float = math.nan,
) -> list[PeerFigure]:
    """Every statistic of every metric. `values`: key pattern with `{}` → (label pattern, values, unit, definition)."""
    return [
        PeerFigure(key.format(name), label.format(words), apply(statistic, found, empty), unit, definition)
        for key, (label, found, unit, definition) in values.items()
        for name, words, statistic in statistics
    ]
