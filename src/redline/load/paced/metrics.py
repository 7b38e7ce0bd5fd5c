"""What the paced server says of itself at /metrics, under vLLM's names, from the log of what it really did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from redline.load.paced.cache import PrefixCache

_BOUNDS_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0, 30.0)


class Done(Protocol):
    """What it takes of a request."""

    arrived_ns: int
    prompt_tokens: int
    before_ns: list[int]
    tokens: list[int]
    finished_ns: int


class Account:
    """Adds up requests that were forgotten; the others are counted when somebody asks."""

    def __init__(self) -> None:
        self.prompt_tokens = self.generation_tokens = self.finished = 0
        self.ttft_s: list[float] = []

    def add(self, requests: Sequence[Done]) -> None:
        for one in requests:
            self.prompt_tokens += one.prompt_tokens
            self.generation_tokens += sum(one.tokens)
            self.finished += bool(one.finished_ns)
            if one.before_ns:
                self.ttft_s.append((one.before_ns[0] - one.arrived_ns) / 1e9)

    def page(
        self, requests: Sequence[Done], live: int, cache: PrefixCache | None, slots: int, extra_tokens: int = 0
    ) -> str:
        """The page as vLLM writes it; `live` requests are in flight."""
        now = Account()
        now.ttft_s = list(self.ttft_s)
        now.prompt_tokens, now.generation_tokens = self.prompt_tokens, self.generation_tokens + extra_tokens
        now.finished = self.finished
        now.add(requests)
        running = min(live, slots) if slots else live
        rows: list[tuple[str, str, float]] = [
            ("num_requests_running", "gauge", running),
            ("num_requests_waiting", "gauge", live - running),
            ("kv_cache_usage_perc", "gauge", min(1.0, running / 100)),
            ("num_preemptions_total", "counter", 0),
            ("prompt_tokens_total", "counter", now.prompt_tokens),
            ("generation_tokens_total", "counter", now.generation_tokens),
            ("request_success_total", "counter", now.finished),
        ]
        if cache is not None:
            rows += [
                ("prefix_cache_queries_total", "counter", cache.queries),
                ("prefix_cache_hits_total", "counter", cache.hits),
            ]
        lines = []
        for name, kind, value in rows:
            lines += [f"# TYPE vllm:{name} {kind}", f'vllm:{name}{{engine="0",model_name="paced"}} {value!r}']
        return "\n".join([*lines, *_histogram("vllm:time_to_first_token_seconds", now.ttft_s)]) + "\n"


def _histogram(name: str, values: Sequence[float]) -> list[str]:
    lines = [f"# TYPE {name} histogram"]
    for bound in _BOUNDS_S:
        lines.append(f'{name}_bucket{{engine="0",le="{bound}"}} {sum(value <= bound for value in values)}')
    lines.append(f'{name}_bucket{{engine="0",le="+Inf"}} {len(values)}')
    return [*lines, f'{name}_sum{{engine="0"}} {sum(values)!r}', f'{name}_count{{engine="0"}} {len(values)}']
