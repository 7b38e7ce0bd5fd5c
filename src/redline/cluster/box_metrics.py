"""The box beside the run: every GPU by NVML, and the Xids of the kernel log. What cannot be read is a 0."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from redline.clock import now_ns
from redline.cluster.gauges import gauge, gauges
from redline.errors import Skipped
from redline.node.nvml import REASONS
from redline.observe.gpu import GpuSampler
from redline.observe.kernel_log import KMSG, KernelLog, Xid
from redline.observe.sample import Sample

STALE_NS = 5 * 10**9
AGAIN_NS = 30 * 10**9
"""After so long a driver that was not there is asked for again: it may be loaded later than the exporter starts."""


class GpuCollector:
    """A collector of prometheus_client: the samples of `observe.gpu` under the same names, `redline_` in front."""

    def __init__(self, library: Any = None) -> None:
        self._library = library
        self._sampler: GpuSampler | Skipped | None = None
        self._again_ns = 0
        self._last: dict[tuple[str, tuple[str, ...]], Sample] = {}

    @property
    def skipped(self) -> Skipped | None:
        if not isinstance(self._sampler, GpuSampler) and now_ns() >= self._again_ns:
            self._sampler = GpuSampler.open((), self._library)
            self._again_ns = now_ns() + AGAIN_NS
        return self._sampler if isinstance(self._sampler, Skipped) else None

    def collect(self) -> Iterator[Metric]:
        readable = self.skipped is None
        yield gauge("redline_gpu_readable", "Whether NVML answers", float(readable))
        if isinstance(self._sampler, GpuSampler):
            samples = self._read(self._sampler)
            yield _reasons(samples)
            yield from gauges(((sample, {}) for sample in samples), "redline")

    def _read(self, sampler: GpuSampler) -> list[Sample]:
        """What a sampler leaves out of a read that comes soon after another is still what it was."""
        for sample in sampler.read():
            self._last[sample.name, tuple(sample.labels.values())] = sample
        self._last = {key: one for key, one in self._last.items() if now_ns() - one.t_ns < STALE_NS}
        return list(self._last.values())

    def close(self) -> None:
        if isinstance(self._sampler, GpuSampler):
            self._sampler.close()
        self._sampler = None


def _reasons(samples: list[Sample]) -> Metric:
    family = GaugeMetricFamily(
        "redline_gpu_clock_event", "1 while this is why the clock is where it is", labels=("gpu", "reason")
    )
    for sample in samples:
        if sample.name == "gpu.clock_event_bits":
            for bit, reason in REASONS.items():
                family.add_metric((sample.labels.get("gpu", ""), reason), float(bool(int(sample.value) & bit)))
    return family


class XidCollector:
    """A collector of prometheus_client. Counts begin with the oldest line that the kernel still has."""

    def __init__(self, path: Path = KMSG) -> None:
        self._log = KernelLog.open(path)
        self._counts: Counter[tuple[str, ...]] = Counter()
        self._last: dict[tuple[str, ...], float] = {}

    @property
    def skipped(self) -> Skipped | None:
        return self._log if isinstance(self._log, Skipped) else None

    def collect(self) -> Iterator[Metric]:
        self._read()
        readable = float(not isinstance(self._log, Skipped))
        yield gauge("redline_kernel_log_readable", "Whether Xids can be seen", readable)
        labels = ("xid", "pci", "kind", "meaning", "simulated")
        count = CounterMetricFamily("redline_gpu_xid", "Xids in the kernel log", labels=labels)
        last = GaugeMetricFamily(
            "redline_gpu_xid_last_timestamp_seconds", "Unix time of the last of them", labels=labels
        )
        for key, times in self._counts.items():
            count.add_metric(key, times)
            last.add_metric(key, self._last[key])
        yield from (count, last)

    def _read(self) -> None:
        if isinstance(self._log, Skipped):
            return
        try:
            found = self._log.read()
        except OSError as error:
            self._log.close()
            self._log = Skipped(f"the kernel log cannot be read any more: {error.strerror}", "start the exporter again")
            return
        for xid in found:
            key = _key(xid)
            self._counts[key] += 1
            self._last[key] = max(self._last.get(key, 0.0), xid.at_wall_s)

    def close(self) -> None:
        if isinstance(self._log, KernelLog):
            self._log.close()
            self._log = Skipped("closed")


def _key(xid: Xid) -> tuple[str, ...]:
    return (str(xid.number), xid.pci, xid.kind, xid.meaning, str(xid.simulated).lower())
