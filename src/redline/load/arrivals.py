"""When requests of an open loop are due: absolute offsets from the start, fixed in advance by a seed."""

from __future__ import annotations

import numpy as np

from redline.spec.load import LoadPoint
from redline.units import NS_PER_S

_CHUNK = 4096


def schedule(point: LoadPoint, *, seed: int, duration_s: float, requests: int = 0) -> list[int]:
    """Offsets in ns, rising, of every request due before `duration_s`; at most `requests` when that is not 0.

    constant: one every 1/rate seconds, the first at 0. poisson: exponential gaps, the first request one gap in.
    """
    end_ns = int(duration_s * NS_PER_S)
    if point.kind == "constant":
        count = int(np.ceil(point.value * duration_s - 1e-9))
        count = min(count, requests) if requests else count
        offsets = np.round(np.arange(count) * (NS_PER_S / point.value)).astype(np.int64)
        return [int(offset) for offset in offsets[offsets < end_ns]]
    generator = np.random.default_rng([seed, 0x0A44])
    gap_ns = NS_PER_S / point.value
    offsets_so_far: list[int] = []
    at = 0.0
    while at < end_ns and not (requests and len(offsets_so_far) >= requests):
        steps = at + np.cumsum(generator.exponential(gap_ns, _CHUNK))
        at = float(steps[-1])
        offsets_so_far.extend(int(step) for step in steps[steps < end_ns])
    return offsets_so_far[:requests] if requests else offsets_so_far
