"""What the requests that were cut off would change: an estimate that uses the time they had already waited.

Leaving out requests that were in flight when a load point ended favours slow servers: the slow answers are the ones
that are cut off. The Kaplan-Meier estimator counts a cut-off request as "longer than this" and is right as long as
the cut came at an instant that has nothing to do with the request itself, which the end of a load point is.
"""

from __future__ import annotations

import math

import numpy as np

from redline.analyse.latency import first_chunk_ns
from redline.analyse.percentile import Floats
from redline.spec.workload import SLOW_READER
from redline.store.requests import Bools, Requests
from redline.units import NS_PER_MS


def kaplan_meier(values: Floats, ended: Bools, level: float) -> float:
    """Percentile of durations of which those with `ended` false are only known to be longer than their value.

    +inf when the curve never reaches the level: all that is known then is that the percentile lies beyond the longest
    duration seen. NaN without values. Equals `percentile` when nothing was cut off.
    """
    if len(values) == 0:
        return math.nan
    # at equal times an end counts before a cut
    order = np.lexsort((~ended, values))
    values, ended = values[order], ended[order]
    at_risk = np.arange(len(values), 0, -1)
    surviving = np.cumprod(np.where(ended, 1 - 1 / at_risk, 1.0))
    reached = np.flatnonzero(surviving <= 1 - level + 1e-9)
    return float(values[reached[0]]) if len(reached) else math.inf


def with_cut_off(requests: Requests, metric: str, ended_ns: int) -> tuple[Floats, Bools]:
    """Durations in ms from the intended start of all measured requests but slow readers', cut-off ones too, and which
    of them ended.

    `metric` is ttft_ms or e2e_ms. A cut-off request whose first token came has a TTFT like any other.
    """
    ordinary = (requests.canary < 0) & (requests.request_class != SLOW_READER)  # as in the percentiles
    measured = requests.pick(~requests.warmup & ordinary)
    cut = (measured.status == "cancelled") | (measured.status == "abandoned")
    until = np.where(measured.finished_ns > 0, measured.finished_ns, ended_ns)
    first = first_chunk_ns(measured)
    if metric == "ttft_ms":
        ended = ~cut | (first > 0)
        instant = np.where(first > 0, first, until)
    else:
        ended, instant = ~cut, until
    waited = (instant - measured.intended_ns) / NS_PER_MS
    waited[~cut & (measured.status != "ok")] = np.inf
    # cut before it was due, or answered in one piece: says nothing about this latency
    known = (waited >= 0) & ((metric != "ttft_ms") | (first > 0) | (measured.status != "ok"))
    return waited[known], ended[known]
