"""The engine's `/metrics` as samples: what it means under our names (`engine.…`), everything as it is called there
(`server.…`).

Counters become rates and shares, histograms the mean, p50 and p90 of what was counted since the scrape before. A
counter that goes backwards belongs to an engine that was started anew: the interval is left out, and a note says so.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from redline.clock import now_ns
from redline.engines.http import try_fetch
from redline.errors import Skipped
from redline.observe.meanings import COUNTERS, TIMES
from redline.observe.metrics import first_of, gauge_of, quantile, samples
from redline.observe.prometheus import Page, Parser
from redline.observe.reading import Rates, Reading
from redline.observe.sample import Sample

TIMEOUT_S = 5.0
DOWN_AFTER = 3
_GAUGES = {
    "running": "engine.requests_running",
    "waiting": "engine.requests_waiting",
    "kv_usage": "engine.kv_usage_share",
}
_RATES = {
    "preemptions": "engine.preemptions_per_s",
    "prompt_tokens": "engine.prompt_tokens_per_s",
    "generation_tokens": "engine.generation_tokens_per_s",
    "requests": "engine.requests_per_s",
    "draft_tokens": "engine.draft_tokens_per_s",
}
_SHARES = {
    "engine.prefix_hit_share": ("prefix_hits", "prefix_queries"),
    "engine.draft_accepted_share": ("accepted_tokens", "draft_tokens"),
}
_STATS = {stat: {"stat": stat} for stat in ("mean", "p50", "p90")}


class MetricsSampler:
    """Call `read` at every tick. `headers` may carry the key that the server wants."""

    name = "metrics"

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self._url, self._headers = url, {**headers, "Accept": "text/plain"}
        self._rates = Rates()
        self._parser = Parser()
        self._before: Page | None = None
        self._failed = 0
        self._resets = 0
        self.notes: list[str] = []

    @classmethod
    def open(cls, url: str | None, headers: Mapping[str, str]) -> MetricsSampler | Skipped:
        if not url:
            return Skipped("the server has no /metrics", "for most engines a flag of the server")
        return cls(url, headers)

    def close(self) -> None:
        """Each scrape has a connection of its own: engines close idle ones."""

    def read(self) -> list[Sample]:
        began = time.monotonic()
        reply = try_fetch(self._url, headers=self._headers, timeout_s=TIMEOUT_S)
        t_ns, took_s = now_ns(), time.monotonic() - began
        if reply is None or not reply.ok:
            self._failed += 1
            if self._failed == DOWN_AFTER:
                said = "does not answer" if reply is None else f"answers HTTP {reply.status}"
                self.notes.append(f"metrics: {self._url} {said}: what the engine says of itself is missing meanwhile")
            return []
        self._failed = 0
        page = self._parser.parse(reply.text)
        into = Reading(t_ns)
        into.put("engine.scrape_ms", took_s * 1000)
        self._mapped(page, into)
        self._before = page
        return into.samples + samples(page, t_ns + 1)  # a tick of their own: they have names of their own

    def _mapped(self, page: Page, into: Reading) -> None:
        for meaning, name in _GAUGES.items():
            into.put(name, gauge_of(page, meaning))
        resets, now = self._rates.resets, {}
        for meaning, names in COUNTERS.items():
            now[meaning] = first_of(page, names)
        for meaning, name in _RATES.items():
            into.put(name, self._rates.per_s(meaning, into.t_ns, now[meaning]))
        if self._rates.resets > resets:
            self.notes.append("metrics: counters went backwards: the engine was started anew")
            return
        if self._before is None:
            return
        for name, (part, whole) in _SHARES.items():
            moved = [_moved(self._before, page, COUNTERS[meaning]) for meaning in (part, whole)]
            if moved[0] is not None and moved[1] is not None and moved[1] > 0:
                into.put(name, min(max(moved[0] / moved[1], 0.0), 1.0))
        for meaning, families in TIMES.items():
            self._histogram(self._before, page, meaning, families, into)

    def _histogram(self, before: Page, page: Page, meaning: str, families: tuple[str, ...], into: Reading) -> None:
        family = next((one for one in families if page.total(f"{one}_count") is not None), None)
        if family is None:
            return
        count, total = (_moved(before, page, (f"{family}_{part}",)) or 0.0 for part in ("count", "sum"))
        if count <= 0:
            return
        old = before.buckets(family)
        cumulative = [(bound, value - old.get(bound, 0.0)) for bound, value in page.buckets(family).items()]
        told: dict[str, Any] = {"mean": total / count * 1000}
        for stat, level in (("p50", 0.5), ("p90", 0.9)):
            # the first bucket has no lower end to interpolate from: vLLM's for queueing reaches to 300 ms
            if cumulative and level * cumulative[-1][1] > cumulative[0][1]:
                told[stat] = quantile(cumulative, level)
        for stat, value in told.items():
            into.put(f"engine.{meaning}_ms", value, _STATS[stat])


def _moved(before: Page, after: Page, names: tuple[str, ...]) -> float | None:
    new = first_of(after, names)
    return None if new is None else new - (first_of(before, names) or 0.0)
