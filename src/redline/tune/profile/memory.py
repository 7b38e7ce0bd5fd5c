"""KV cache while a batch decodes: what the engine holds, beside the formula."""

from __future__ import annotations

import math
from collections.abc import Mapping

from redline.analyse.architecture import Architecture
from redline.analyse.precision import cards_of
from redline.analyse.profile.record import KvMemory
from redline.analyse.roofline import Precision, kv_bytes
from redline.engines.endpoint import Endpoint
from redline.engines.http import try_fetch
from redline.observe.prometheus import Page, parse

USAGE = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc", "redline_hf:kv_cache_usage_perc")
ALLOCATED = "redline_hf:torch_allocated_bytes"


class Memory:
    """`idle` before a batch, `busy` while it runs, `told` afterwards."""

    def __init__(
        self,
        endpoint: Endpoint,
        headers: Mapping[str, str],
        architecture: Architecture | None,
        precision: Precision,
    ) -> None:
        self._endpoint, self._headers = endpoint, headers
        self._architecture, self._precision = architecture, precision
        self._before = self._during = Page()

    def idle(self) -> None:
        self._before = self._page()

    def busy(self) -> None:
        self._during = self._page()

    def told(self, sequences: int, tokens: float) -> KvMemory:
        def formula(length: float) -> float:
            if self._architecture is None:
                return float("nan")
            return sequences * kv_bytes(self._architecture, self._precision, length)

        measured, source = self._measured()
        return KvMemory(sequences, tokens, formula(tokens), formula(self._in_blocks(tokens)), measured, source)

    def _in_blocks(self, tokens: float) -> float:
        """Rounded up to the blocks in which the engine says that it keeps them."""
        flags = {name.replace("_", "-"): value for name, value in self._endpoint.flags.items()}
        found = next((flags[name] for name in ("page-size", "block-size") if flags.get(name, "").isdigit()), "1")
        size = max(1, int(found))
        return math.ceil(tokens / size) * size

    def _measured(self) -> tuple[float | None, str]:
        before, during = self._before.total(ALLOCATED), self._during.total(ALLOCATED)
        if before is not None and during is not None:
            return during - before, "torch's allocator: while the batch runs, less idle (activations included)"
        usage = next((share for name in USAGE if (share := self._during.total(name)) is not None), None)
        if usage is None:
            return None, "this engine tells neither its KV usage nor its memory"
        size = self._cache_bytes()
        if size is None:
            return None, f"{usage:.1%} of the KV cache is in use, of a size that the engine does not tell"
        return usage * size, f"the engine's usage gauge, {usage:.2%} of {size / 1e9:.3g} GB"

    def _cache_bytes(self) -> float | None:
        flags = {name.replace("_", "-"): value for name, value in self._endpoint.flags.items()}
        cards, _ = cards_of(flags)  # each has a cache of this size
        for name, factor in (("kv-bytes", 1.0), ("kv-cache-memory-bytes", 1.0), ("kv-cache-gib", 2.0**30)):
            try:
                return float(flags[name]) * factor * cards
            except (KeyError, ValueError):
                continue
        space = self._endpoint.added.get("VLLM_CPU_KVCACHE_SPACE")
        return float(space) * 2.0**30 if space else None

    def _page(self) -> Page:
        url = self._endpoint.metrics_url
        reply = try_fetch(url, headers=self._headers, timeout_s=10.0) if url else None
        return parse(reply.text) if reply is not None and reply.ok else Page()
