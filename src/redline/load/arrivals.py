"""When requests of an open loop are due: absolute offsets from the start, fixed in advance by a seed.

All kinds are one renewal process in a time in which the rate is 1 (its gaps: all 1, exponential, or gamma), carried
over to real time by the rate's integral. A level rate makes that a division, a ramp a square root: both are exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from redline.spec.load import LoadPoint
from redline.spec.stages import StageSpec
from redline.units import NS_PER_S

_CHUNK = 4096
Floats = NDArray[np.float64]


def schedule(
    point: LoadPoint, *, seed: int, duration_s: float, requests: int = 0, burstiness: float = 1.0
) -> list[int]:
    """Offsets in ns, rising, of every request due before `duration_s`; at most `requests` when that is not 0.

    constant: one every 1/rate seconds, the first at 0. poisson: exponential gaps, the first request one gap in.
    gamma: gaps of shape `burstiness` and mean 1/rate (vLLM's meaning of the word); the first one is what is left of a
    gap that began before, so that the rate is kept on average however bursty the arrivals.
    """
    end_ns = int(duration_s * NS_PER_S)
    if point.kind == "constant":
        count = int(np.ceil(point.value * duration_s - 1e-9))
        count = min(count, requests) if requests else count
        offsets = np.round(np.arange(count) * (NS_PER_S / point.value)).astype(np.int64)
        return [int(offset) for offset in offsets[offsets < end_ns]]
    gap_ns = NS_PER_S / point.value
    found: list[int] = []
    for units in _renewals(point.kind, _generator(seed), burstiness):
        steps = units * gap_ns
        found.extend(int(step) for step in steps[steps < end_ns])
        if steps[-1] >= end_ns or (requests and len(found) >= requests):
            break
    return found[:requests] if requests else found


def stage_schedule(stages: Sequence[StageSpec], *, seed: int, requests: int = 0, burstiness: float = 1.0) -> list[int]:
    """The same for open-loop stages. Neighbours with the same arrivals are one process, whatever their rates do."""
    generator = _generator(seed)
    found: list[int] = []
    at_s = 0.0
    for kind, group in groupby(stages, key=lambda stage: stage.arrivals):
        part = list(group)
        times = at_s + _rescaled(part, kind, generator, burstiness)
        found.extend(int(time) for time in times * NS_PER_S)
        at_s += sum(stage.duration_s for stage in part)
    return found[:requests] if requests else found


def _rescaled(stages: Sequence[StageSpec], kind: str, generator: np.random.Generator, burstiness: float) -> Floats:
    """Seconds from the start of these stages: the instants at which the rate's integral reaches each renewal."""
    areas = np.array([stage.mean * stage.duration_s for stage in stages])
    area_to = np.cumsum(areas)
    total = float(area_to[-1])
    units: list[Floats] = []
    for chunk in _renewals(kind, generator, burstiness):
        units.append(chunk[chunk < total])
        if chunk[-1] >= total:
            break
    area = np.concatenate(units)
    which = np.searchsorted(area_to, area, side="right")
    begin_s = np.concatenate(([0.0], np.cumsum([stage.duration_s for stage in stages])))
    first = np.array([stage.begin for stage in stages])[which]
    slope = np.array([(stage.end - stage.begin) / stage.duration_s for stage in stages])[which]
    inside = area - (area_to - areas)[which]
    # first·t + slope·t²/2 = inside, solved in the form that does not cancel
    root = np.sqrt(np.maximum(first**2 + 2 * slope * inside, 0.0))
    seconds: Floats = np.divide(2 * inside, first + root, out=np.zeros(len(inside)), where=first + root > 0)
    length = np.array([stage.duration_s for stage in stages])[which]
    times: Floats = begin_s[which] + np.minimum(seconds, np.nextafter(length, 0))
    return times


def _renewals(kind: str, generator: np.random.Generator, burstiness: float) -> Iterator[Floats]:
    """Instants of a renewal process of rate 1, in pieces, for ever."""
    if kind == "constant":
        count = 0
        while True:
            yield np.arange(count, count + _CHUNK, dtype=np.float64)
            count += _CHUNK
    at = 0.0
    first = True
    while True:
        if kind == "gamma":
            gaps = generator.gamma(burstiness, 1 / burstiness, _CHUNK)
            if first:  # what is left of a gap that is under way: a gap picked by its length, cut anywhere
                gaps[0] = generator.random() * generator.gamma(burstiness + 1, 1 / burstiness)
        else:
            gaps = generator.exponential(1.0, _CHUNK)
        first = False
        steps = at + np.cumsum(gaps)
        at = float(steps[-1])
        yield steps


def _generator(seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, 0x0A44])


def client_levels(stages: Sequence[StageSpec]) -> list[tuple[int, int]]:
    """Closed-loop stages as (offset in ns, clients from then on), rising in time; a ramp moves by one client a step."""
    levels: list[tuple[int, int]] = []
    at_s = 0.0
    for stage in stages:
        begin, end = int(stage.begin), int(stage.end)
        levels.append((int(at_s * NS_PER_S), begin))
        step = 1 if end > begin else -1
        for k in range(abs(end - begin)):
            when = at_s + stage.duration_s * (k + 0.5) / abs(end - begin)
            levels.append((int(when * NS_PER_S), begin + step * (k + 1)))
        at_s += stage.duration_s
    return levels


def total_s(stages: Sequence[StageSpec]) -> float:
    return sum(stage.duration_s for stage in stages)
