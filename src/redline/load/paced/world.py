"""What makes one answer of the paced server differ from the next: prefix cache, cold start, damage.

Everything is off unless the pace asks for it, and then follows from the requests alone.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from redline.load.paced.cache import PrefixCache
from redline.load.paced.metrics import Account, Done
from redline.load.paced.pace import Asked, Pace, ToyTokenizer


class World:
    """State of the server beyond the requests in flight."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._answers = self._newest_ns = 0
        self._cold = pace.cold_requests
        self._plain = pace.cached_usage and not (
            pace.prefix_cache or pace.by_prompt or pace.damage or pace.cold_requests or pace.speed_file
        )
        self.cache = PrefixCache(pace.block_tokens, pace.cache_blocks) if pace.prefix_cache else None
        self.account = Account()

    def shape(self, asked: Asked, tokenizer: ToyTokenizer, now_ns: int, live: Callable[[], int]) -> tuple[Asked, Pace]:
        """The request and the pace at which it is answered. `live` counts the others in flight."""
        pace, prompt = self._pace, asked.prompt
        self._answers += 1
        if self._plain:
            return asked, pace
        ttft, itl, cached = pace.ttft_ms, pace.itl_ms, 0
        if pace.idle_cold_s and now_ns - self._newest_ns > pace.idle_cold_s * 1e9:
            self._cold = pace.cold_requests
        self._newest_ns = now_ns
        if self._cold:
            left, self._cold = self._cold / pace.cold_requests, self._cold - 1
            ttft, itl = ttft * (1 + (pace.cold_factor - 1) * left), itl * (1 + (pace.cold_factor - 1) * left)
        if pace.speed_file:
            factor = float(Path(pace.speed_file).read_text().strip() or 1)
            ttft, itl = ttft * factor, itl * factor
        if self.cache is not None:
            ids = tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
            cached = self.cache.look_up(ids, now_ns)
            ttft *= 1 - pace.prefill_share * cached / max(len(ids), 1)
            self.cache.keep(ids, now_ns + int(ttft * 1e6))
        damaged = pace.damage and self._answers > pace.damage_after and live() >= pace.damage_above
        asked = replace(
            asked,
            cached=cached if pace.cached_usage else -1,
            first_word=zlib.crc32(repr(prompt).encode()) % 1_000 if pace.by_prompt else 0,
            damage=pace.damage if damaged else "",
        )
        return asked, replace(pace, ttft_ms=ttft, itl_ms=itl)

    def forget(self, requests: Sequence[Done]) -> None:
        """These leave the log; the counters keep them."""
        self.account.add(requests)

    def page(self, requests: Sequence[Done], live: int) -> str:
        foreign = self._pace.foreign_tokens * self._answers
        return self.account.page(requests, live, self.cache, self._pace.slots, foreign)
