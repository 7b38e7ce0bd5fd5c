"""What every peer's formulas start from: the answers that succeeded, in seconds, and what the log does not say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from redline.analyse.latency import first_chunk_ns, last_chunk_ns
from redline.analyse.percentile import Floats
from redline.store.requests import Ints, Requests, Whole
from redline.units import NS_PER_S


@dataclass(frozen=True)
class Beside:
    """What stands beside the columns. Times in monotonic ns, 0 where they are not known: then the requests themselves
    say when the load point began and ended. `opening_events` and `closing_events` are events of one answer that carry
    a choice without text before its first and after its last token (the role, the finish reason)."""

    began_ns: int = 0
    ended_ns: int = 0
    slo: Mapping[str, float] = field(default_factory=dict)
    opening_events: int = 0
    closing_events: int = 0


@dataclass(frozen=True)
class Answers:
    """n answers that succeeded; times in seconds since the load point began.

    `gaps_s` holds the time between consecutive content chunks, all answers end to end, `owner` whose each of them is.
    """

    start_s: Floats
    intended_s: Floats
    first_s: Floats
    answer_first_s: Floats
    last_s: Floats
    end_s: Floats
    prompt_tokens: Ints
    output_tokens: Ints
    first_chunk_tokens: Ints
    chunks: Ints
    chunk_s: Floats
    chunk_tokens: Whole
    owner: Ints
    failed: int
    whole_s: float
    """From the first request (or the beginning of the load point) to the last byte of the last answer."""

    def __len__(self) -> int:
        return len(self.start_s)

    @property
    def gaps_s(self) -> Floats:
        gaps: Floats = np.diff(self.chunk_s)[self.owner[1:] == self.owner[:-1]]
        return gaps

    @property
    def span_s(self) -> float:
        """From the first request sent to the end of the last answer, successes only."""
        return float(self.end_s.max() - self.start_s.min()) if len(self) else 0.0


def answers_of(requests: Requests, beside: Beside) -> Answers:
    """The measured requests: no warm-up, no canaries, none that redline itself cut off."""
    counted = ~requests.warmup & (requests.canary < 0)
    counted &= (requests.status != "cancelled") & (requests.status != "abandoned")
    kept = requests.pick(counted & (requests.status == "ok") & (requests.chunks > 0))
    origin = beside.began_ns or int(kept.sent_ns.min(initial=2**62))
    ended = max(beside.ended_ns if beside.began_ns else 0, int(kept.finished_ns.max(initial=origin)))

    def since(column: Ints) -> Floats:
        return (column - origin) / NS_PER_S

    return Answers(
        start_s=since(kept.sent_ns),
        intended_s=since(kept.intended_ns),
        first_s=since(first_chunk_ns(kept)),
        answer_first_s=since(np.where(kept.answer_first_ns > 0, kept.answer_first_ns, first_chunk_ns(kept))),
        last_s=since(last_chunk_ns(kept)),
        end_s=since(kept.finished_ns),
        prompt_tokens=kept.prompt_tokens,
        output_tokens=kept.output_tokens,
        first_chunk_tokens=kept.chunk_tokens[kept.chunk_start[:-1]].astype(np.int64)
        if len(kept)
        else np.zeros(0, np.int64),
        chunks=kept.chunks,
        chunk_s=since(kept.chunk_ns),
        chunk_tokens=kept.chunk_tokens,
        owner=np.repeat(np.arange(len(kept)), kept.chunks),
        failed=int((counted & (requests.status != "ok")).sum()),
        whole_s=(ended - origin) / NS_PER_S if len(kept) else 0.0,
    )
