"""A card's own activity counters by NVML GPM: what SMs, tensor cores, DRAM and links did between two looks.

Hopper and later, without root and without a daemon. Each look is a sample; a metric is computed from two of them, so
the values are means over the tick.
"""

from __future__ import annotations

from typing import Any

from redline.clock import now_ns
from redline.observe.nvml_ask import FINAL, Asking
from redline.observe.reading import Reading

LEAST_NS = 90_000_000
"""Between two looks: the counters move in steps of some ten milliseconds."""
_PERCENT, _MIB = 0.01, float(1 << 20)
METRICS: tuple[tuple[int, str, float], ...] = (
    (1, "gpu.graphics_active_share", _PERCENT),
    (2, "gpu.sm_active_share", _PERCENT),
    (3, "gpu.sm_occupancy_share", _PERCENT),
    (5, "gpu.tensor_active_share", _PERCENT),
    (7, "gpu.tensor_half_active_share", _PERCENT),
    (9, "gpu.tensor_int_active_share", _PERCENT),
    (10, "gpu.dram_active_share", _PERCENT),
    (12, "gpu.fp32_active_share", _PERCENT),
    (13, "gpu.fp16_active_share", _PERCENT),
    (20, "gpu.pcie_tx_bytes_per_s", _MIB),
    (21, "gpu.pcie_rx_bytes_per_s", _MIB),
    (60, "gpu.nvlink_rx_bytes_per_s", _MIB),
    (61, "gpu.nvlink_tx_bytes_per_s", _MIB),
)
"""NVML's number, our name, its unit in ours."""


class Gpm:
    """Two samples of one device or MIG instance, used in turns."""

    has_pcie = False

    def __init__(self, library: Any, handle: Any, instance: int | None, ask: Asking, samples: list[Any]) -> None:
        self._library = library
        self._handle = handle
        self._instance = instance
        self._ask = ask
        self._old, self._new = samples
        self._old_ns = 0
        self._request = library.c_nvmlGpmMetricsGet_t()
        self._request.version = library.NVML_GPM_METRICS_GET_VERSION
        self._metrics = METRICS
        self._looked = self._look(self._old)
        self._old_ns = now_ns()

    @classmethod
    def open(cls, library: Any, handle: Any, instance: int | None, ask: Asking) -> Gpm | None:
        """None on a card before Hopper, and where it is not allowed; `ask` says so once."""
        support = ask("GpmQueryDeviceSupport", handle)
        if support is None or not support.isSupportedDevice:
            return None
        samples = [ask("GpmSampleAlloc") for _ in range(2)]
        if None in samples:
            return None
        found = cls(library, handle, instance, ask, samples)
        if found._looked:
            return found
        found.close()
        return None

    def close(self) -> None:
        for sample in (self._old, self._new):
            self._ask("GpmSampleFree", sample, quietly=True)

    def _look(self, sample: Any) -> bool:
        if self._instance is None:
            return self._ask("GpmSampleGet", self._handle, sample) is not None
        return self._ask("GpmMigSampleGet", self._handle, self._instance, sample) is not None

    def read(self, into: Reading, labels: dict[str, str]) -> None:
        """Nothing when the look before is too close, or the card did not answer."""
        t_ns = now_ns()
        if t_ns - self._old_ns < LEAST_NS or not self._look(self._new):
            return
        request = self._request
        request.numMetrics = len(self._metrics)
        request.sample1, request.sample2 = self._old, self._new
        for place, (number, _, _) in enumerate(self._metrics):
            request.metrics[place].metricId = number
        self._old, self._new, self._old_ns = self._new, self._old, t_ns
        if self._ask("GpmMetricsGet", request) is None:
            return
        answers = [(request.metrics[place], one) for place, one in enumerate(self._metrics)]
        for answer, (_, name, scale) in answers:
            if not answer.nvmlReturn:
                into.put(name, answer.value * scale, labels)
            elif answer.nvmlReturn in FINAL:  # NVLink of a card that has none
                self._metrics = tuple(one for one in self._metrics if one[1] != name)
            if name == "gpu.pcie_tx_bytes_per_s":
                self.has_pcie = not answer.nvmlReturn
