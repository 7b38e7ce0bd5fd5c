"""What an engine counts, and the snapshot of it that `/metrics` shows."""

from __future__ import annotations

from dataclasses import dataclass, field

from redline.runtime.late import Late


@dataclass(kw_only=True)
class Counters:
    """Grow only. Written by the engine's thread; each is one number, so any thread may read it."""

    steps: int = 0
    scheduled_tokens: int = 0
    """Tokens that steps computed: prompts, recomputed ones, decodes and drafts."""
    preemptions: int = 0
    prefix_queries: int = 0
    """Prompt tokens that were looked up in the prefix cache; each request once."""
    prefix_hits: int = 0
    prompt_tokens: int = 0
    generation_tokens: int = 0
    wasted_tokens: int = 0
    """Tokens that were sampled for requests that had ended already: the price of running ahead."""
    spec_proposed: int = 0
    spec_accepted: list[int] = field(default_factory=list)
    """Accepted draft tokens by their place in the draft."""
    finished: int = 0
    """Requests that ended with stop or length."""
    aborted: int = 0
    failed: int = 0
    faults: int = 0
    """Requests that ended because the model's numbers were not finite."""
    out_of_memory: int = 0
    """Steps that the runner could not hold."""
    sink_errors: int = 0


@dataclass(kw_only=True)
class Stats(Counters, Late):
    """A snapshot: the counters as they were, and gauges. `kv_usage` is the share of pages that requests hold."""

    running: int
    waiting: int
    in_flight: int
    """Steps on their way."""
    kv_usage: float
    kv_pages: int
    kv_pages_kept: int
    """Free pages that a prefix may still hit."""
    page_size: int
    max_seqs: int
    max_batched_tokens: int
