"""When is a server warm? When batch after batch of the same requests takes the same time.

Two numbers of each batch are looked at: its median TTFT and its token rate. Caches fill, kernels compile, clocks rise:
for each of these the first batches differ from the last, and the point that is measured should not hold them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from redline.load.record import RequestRecord, Status

WITHIN = 0.10
TTFT_SLACK_MS = 1.0
ALIKE = 3
"""So many batches in a row must agree,"""
AGAIN_ALIKE = 2
"""and so many where another load point has warmed the server up before."""
STABLE_BATCH = 4
"""Requests in a batch at least: the median of fewer is no number to compare."""


@dataclass(frozen=True)
class Batch:
    """One batch of warm-up requests that ended. NaN-free: a batch without a good answer is not made."""

    requests: int
    ttft_ms: float
    tokens_per_s: float


def batch_of(records: Sequence[RequestRecord]) -> Batch | None:
    """None when no request of it succeeded."""
    good = [record for record in records if record.status is Status.OK and record.chunk_ns and record.sent_ns]
    if not good:
        return None
    seconds = (max(record.finished_ns for record in good) - min(record.sent_ns for record in good)) / 1e9
    return Batch(
        len(records),
        median((record.chunk_ns[0] - record.sent_ns) / 1e6 for record in good),
        sum(record.output_tokens for record in good) / max(seconds, 1e-9),
    )


def alike(one: Batch, other: Batch, within: float = WITHIN) -> bool:
    """TTFT within twice `within` (it is the noisier), or a millisecond; the rate within it."""
    ttft = abs(one.ttft_ms - other.ttft_ms)
    rate = abs(one.tokens_per_s - other.tokens_per_s)
    return (
        ttft <= max(2 * within * min(one.ttft_ms, other.ttft_ms), TTFT_SLACK_MS)
        and rate <= within * max(one.tokens_per_s, other.tokens_per_s)
    )  # fmt: skip


def settled(batches: Sequence[Batch], within: float = WITHIN, *, in_a_row: int = ALIKE) -> bool:
    """The last batches are alike, each with each."""
    last = batches[-in_a_row:]
    return len(last) == in_a_row and all(alike(one, other, within) for one in last for other in last)


def settled_after(batches: Sequence[Batch], within: float = WITHIN) -> int:
    """Requests before the first batch from which on every batch is like the settled ones."""
    usual = _usual(batches)
    count = sum(batch.requests for batch in batches)
    for batch in reversed(batches):
        if not alike(batch, usual, 1.5 * within):
            break
        count -= batch.requests
    return count


def token_seconds(records: Sequence[RequestRecord]) -> float:
    """What a token took, prompt and waiting included; 0 when nothing succeeded."""
    good = [record for record in records if record.status is Status.OK and record.output_tokens]
    return median((one.finished_ns - one.sent_ns) / 1e9 / one.output_tokens for one in good) if good else 0.0


def _usual(batches: Sequence[Batch]) -> Batch:
    last = batches[-ALIKE:]
    return Batch(0, median(batch.ttft_ms for batch in last), median(batch.tokens_per_s for batch in last))


def decay(
    batches: Sequence[Batch], first: RequestRecord | None, *, mode: str, seconds: float, is_settled: bool
) -> dict[str, Any]:
    """For the outcome of the point: the first answer against the settled ones, and what it took to get there."""
    told: dict[str, Any] = {
        "mode": mode,
        "seconds": seconds,
        "requests": sum(batch.requests for batch in batches),
        "batches": [[batch.requests, batch.ttft_ms, batch.tokens_per_s] for batch in batches],
        "settled": is_settled,
    }
    if not batches:
        return told
    usual = _usual(batches)
    told |= {"settled_ttft_ms": usual.ttft_ms, "settled_tokens_per_s": usual.tokens_per_s}
    told["settled_after"] = settled_after(batches) if is_settled else None
    told["first_tokens_per_s"] = batches[0].tokens_per_s
    if first is not None and first.chunk_ns and first.sent_ns:
        told["first_ttft_ms"] = (first.chunk_ns[0] - first.sent_ns) / 1e6
        told["cold_factor"] = told["first_ttft_ms"] / max(usual.ttft_ms, 1e-9)
    return told
