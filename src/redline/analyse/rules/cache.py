"""Did the prefix cache do what was declared? And did the server produce the tokens that we received, no more?

Two witnesses: `usage.prompt_tokens_details.cached_tokens` of each request, and the server's own counters over the
point. Whichever says more counts: a cache that one of them saw was there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from redline.analyse.case import Case, Rule, Said

BLOCK_TOKENS = 16
SLACK = 0.02
"""Of all prompt tokens, beyond what blocks explain."""
TOKENS_OFF = 0.01
UNFINISHED_TOKENS = 32
"""What a server may have made for a request that was cut off before it heard of it."""


@dataclass(frozen=True)
class CacheShare:
    """The share of prompt tokens that came from the cache; `low` and `high` are what the declaration allows."""

    declared: str
    share: float
    low: float
    high: float
    witness: str


def cache_share(case: Case) -> CacheShare | None:
    """None when nothing was declared, or nobody can tell."""
    told = case.outcome.get("cache") or {}
    declared = str(told.get("declared", ""))
    witnesses = [found for found in (_by_usage(case, told), _by_counters(case)) if found is not None]
    if not declared or not witnesses:
        return None
    share, witness = max(witnesses)
    low, high = _allowed(case, told, declared)
    return CacheShare(declared, share, low, high, witness)


def not_as_declared(case: Case) -> Said:
    """Cached prompt tokens beyond what was declared, or too few of them: another server than the one that was meant."""
    found = cache_share(case)
    if found is None or found.low - SLACK <= found.share <= found.high + SLACK:
        return None
    expected = f"{found.high:.0%} at most" if found.share > found.high else f"{found.low:.0%} at least"
    return "invalid", (
        f"cache declared {found.declared}, and {found.share:.0%} of the prompt tokens came from the cache by "
        f"{found.witness} ({expected} was to be expected)"
    )


def unproven_warmth(case: Case) -> Said:
    """A warm cache was declared, and the server says nothing of its cache."""
    declared = str((case.outcome.get("cache") or {}).get("declared", ""))
    if not declared.startswith("warm") or len(case.good) == 0 or cache_share(case) is not None:
        return None
    return "degraded", (
        f"cache declared {declared}, and nothing proves it: no cached_tokens in usage, no prefix-cache counters"
    )


def other_tokens(case: Case) -> Said:
    """Everything that the server made during the point should have come to us."""
    made = _counter(case, "generation_tokens")
    ours = case.requests.pick(~case.requests.warmup)
    guessed = len(ours) and float((ours.token_source == "chunks").mean()) > 0.01
    if made is None or guessed or len(case.good) == 0:
        return None
    got = int(ours.output_tokens.sum())
    unfinished = int((ours.status != "ok").sum())
    more, fewer = made - got, got - made
    allowed = TOKENS_OFF * max(got, 1) + 2
    if more > allowed + UNFINISHED_TOKENS * unfinished:
        why = "somebody else loads this server, or tokens were lost on the way"
    elif fewer > allowed:
        why = "its counters stand for a part of the server only, or lag behind"
    else:
        return None
    return "degraded", f"the server counts {made:,.0f} generated tokens over the point, we received {got:,}: {why}"


RULES: tuple[Rule, ...] = (not_as_declared, unproven_warmth, other_tokens)


def _by_usage(case: Case, told: dict[str, object]) -> tuple[float, str] | None:
    good = case.good
    prompts = int(good.prompt_tokens.sum())
    if not prompts or not told.get("told_by_usage"):
        return None
    return float(good.cached_tokens.sum()) / prompts, "usage"


def _by_counters(case: Case) -> tuple[float, str] | None:
    hits, queries = _counter(case, "prefix_hits"), _counter(case, "prefix_queries")
    if hits is None or queries is None:
        return None
    canaries = case.requests.pick((case.requests.canary >= 0) & ~case.requests.warmup)
    repeated = float(_blocks(canaries.prompt_tokens).sum())  # these are the same again on purpose
    rest = queries - float(canaries.prompt_tokens.sum())
    return (max(0.0, hits - repeated) / rest if rest > 0 else 0.0), "the server's counters"


def _allowed(case: Case, told: dict[str, object], declared: str) -> tuple[float, float]:
    prompts = case.good.prompt_tokens.astype(np.float64)
    total = float(prompts.sum())
    if declared == "natural" or total <= 0:
        return 0.0, 1.0
    common = _number(told, "common_tokens")
    if declared == "cold":
        return 0.0, float(_blocks(np.minimum(prompts, common)).sum()) / total
    wanted = _number(told, "warm_share") * prompts
    return (
        float(_blocks(np.maximum(wanted - BLOCK_TOKENS, 0)).sum()) / total,
        float(_blocks(wanted + BLOCK_TOKENS).sum()) / total,
    )


def _blocks(tokens: Any) -> Any:
    return tokens // BLOCK_TOKENS * BLOCK_TOKENS


def _number(told: dict[str, object], key: str) -> float:
    value = told.get(key)
    return float(value) if isinstance(value, (int, float)) else 0.0


def _counter(case: Case, name: str) -> float | None:
    server = case.outcome.get("server")
    counters = server.get("counters") if isinstance(server, dict) else None
    value = counters.get(name) if isinstance(counters, dict) else None
    return float(value) if isinstance(value, (int, float)) else None
