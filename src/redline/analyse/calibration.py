"""The load generator's own error: what it reports of a server that knows what it really did."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from redline.analyse.percentile import Floats, percentile


@dataclass(frozen=True)
class Truthful:
    """One request of a calibration, in ms: what the client reports beside what the server did. Gaps in order."""

    ttft_ms: float
    true_ttft_ms: float
    gaps_ms: Floats
    true_gaps_ms: Floats


@dataclass(frozen=True)
class ClientError:
    """Of n requests. `bias` is the mean of reported − true; `error_p50` and `error_p99` are percentiles of its size, in
    ms. `p99_off` is how far the reported 99th percentile lies from the true one, as a share of the true one.
    Definition `client_error@1`.
    """

    requests: int
    gaps: int
    ttft_bias_ms: float
    ttft_error_p50_ms: float
    ttft_error_p99_ms: float
    ttft_p99_off: float
    itl_bias_ms: float
    itl_error_p50_ms: float
    itl_error_p99_ms: float
    itl_p99_off: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def client_error(rows: list[Truthful]) -> ClientError:
    """NaN where nothing was measured."""
    ttft = np.array([row.ttft_ms for row in rows])
    true_ttft = np.array([row.true_ttft_ms for row in rows])
    gaps = np.concatenate([row.gaps_ms for row in rows]) if rows else np.empty(0)
    true_gaps = np.concatenate([row.true_gaps_ms for row in rows]) if rows else np.empty(0)
    return ClientError(len(rows), len(gaps), *_error(ttft, true_ttft), *_error(gaps, true_gaps))


def _error(reported: Floats, true: Floats) -> tuple[float, float, float, float]:
    if len(reported) == 0:
        return math.nan, math.nan, math.nan, math.nan
    off = reported - true
    size = np.abs(off)
    exact = percentile(true, 0.99)
    share = (percentile(reported, 0.99) - exact) / exact if exact > 0 else math.nan
    return float(off.mean()), percentile(size, 0.5), percentile(size, 0.99), share
