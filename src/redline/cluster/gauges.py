"""Samples as gauges: `gpu.power_w` becomes PREFIX_gpu_power_w, its labels stay."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client.core import GaugeMetricFamily, Metric

from redline.observe.sample import Sample


def gauge(name: str, text: str, value: float, labels: Mapping[str, str] | None = None) -> GaugeMetricFamily:
    """One of one value."""
    family = GaugeMetricFamily(name, text, labels=tuple(labels or {}))
    family.add_metric(tuple((labels or {}).values()), value)
    return family


def gauges(samples: Iterable[tuple[Sample, Mapping[str, str]]], prefix: str) -> Iterator[Metric]:
    """Each sample with labels of its own and further ones; a series that lacks a label of its family has it empty."""
    rows: dict[str, list[tuple[Sample, dict[str, str]]]] = {}
    for sample, more in samples:
        name = f"{prefix}_{re.sub(r'[^a-zA-Z0-9_]', '_', sample.name)}"
        rows.setdefault(name, []).append((sample, {**sample.labels, **more}))
    for name, found in rows.items():
        keys = tuple(dict.fromkeys(key for _, labels in found for key in labels))
        first = found[0][0]
        text = f"Last sample of {first.name}" + (f" ({first.unit})" if first.unit else "")
        family = GaugeMetricFamily(name, text, labels=keys)
        for sample, labels in found:
            family.add_metric(tuple(labels.get(key, "") for key in keys), sample.value)
        yield family
