"""Conversations turn by turn: later turns have longer prompts, of which a prefix cache may know most."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from redline.analyse.latency import latencies_of
from redline.analyse.percentile import percentile
from redline.store.requests import Requests

_LISTED = 10


@dataclass(frozen=True)
class TurnNumbers:
    """Turns `first` to `last` (from 1) over all sessions. `cached_share` is NaN when no prompt length is known."""

    first: int
    last: int
    requests: int
    failed: int
    prompt_tokens: float
    cached_share: float
    ttft_ms_p50: float
    ttft_ms_p99: float
    itl_ms_p50: float
    gaps: int = 0
    """Gaps that the median is of."""

    @property
    def label(self) -> str:
        return f"{self.first}" if self.first == self.last else f"{self.first}–{self.last}"


def by_turn(requests: Requests) -> list[TurnNumbers]:
    """The first ten turns one by one, later ones together; empty when there are no sessions."""
    own = requests.pick(~requests.warmup & (requests.turn >= 0))
    most = int(own.turn.max()) if len(own) else -1
    spans = [(turn, turn) for turn in range(min(most + 1, _LISTED))]
    if most >= _LISTED:
        spans.append((_LISTED, most))
    return [_numbers(own.pick((own.turn >= first) & (own.turn <= last)), first, last) for first, last in spans]


def _numbers(here: Requests, first: int, last: int) -> TurnNumbers:
    latencies = latencies_of(here)
    good = here.pick(latencies.row[~latencies.failed])
    prompts = int(good.prompt_tokens.sum())
    return TurnNumbers(
        first=first + 1,
        last=last + 1,
        requests=len(latencies),
        failed=int(latencies.failed.sum()),
        prompt_tokens=float(np.mean(good.prompt_tokens)) if len(good) else math.nan,
        cached_share=float(good.cached_tokens.sum()) / prompts if prompts else math.nan,
        ttft_ms_p50=percentile(latencies.headline("ttft_ms"), 0.5),
        ttft_ms_p99=percentile(latencies.headline("ttft_ms"), 0.99),
        itl_ms_p50=latencies.gaps.percentiles([0.5])[0],
        gaps=len(latencies.gaps),
    )
