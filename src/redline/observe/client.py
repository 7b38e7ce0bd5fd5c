"""What the load generator tells while a load point runs, as samples."""

from __future__ import annotations

from redline.load.progress import LoadProgress
from redline.observe.reading import Reading
from redline.observe.sample import Sample


def client_samples(now: LoadProgress) -> list[Sample]:
    """Four times a second. Latencies are those of the newest requests, from the intended start."""
    into = Reading()
    into.put("client.in_flight", now.in_flight)
    into.put("client.finished", now.finished)
    into.put("client.failed", now.failed)
    into.put("client.output_tokens_per_s", now.tokens_per_s)
    if now.ttft_ms is not None:
        into.put("client.ttft_p50_ms", now.ttft_ms[0])
        into.put("client.ttft_p99_ms", now.ttft_ms[1])
    if now.tpot_ms is not None:
        into.put("client.tpot_p50_ms", now.tpot_ms[0])
    into.put("client.send_lag_ms", now.send_lag_ms)
    into.put("client.busy_share", now.client_busy)
    return into.samples
