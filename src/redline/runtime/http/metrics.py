"""Prometheus text. Names are vLLM's where the meaning is the same, so that dashboards and observers read both."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redline.runtime.stats import Stats

SECONDS = (
    *(0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75),
    *(1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000)
TIMES = {
    "ttft": ("vllm:time_to_first_token_seconds", "From the request to its first token"),
    "itl": ("vllm:inter_token_latency_seconds", "Between two deliveries of tokens to one request"),
    "e2e": ("vllm:e2e_request_latency_seconds", "From the request to its end"),
    "queue": ("vllm:request_queue_time_seconds", "Before a request was first scheduled"),
    "prefill": ("vllm:request_prefill_time_seconds", "From there to the first token"),
    "decode": ("vllm:request_decode_time_seconds", "From the first token to the last"),
}
SIZES = {
    "prompt": ("vllm:request_prompt_tokens", "Prompt tokens of a finished request"),
    "answer": ("vllm:request_generation_tokens", "Tokens of a finished answer"),
}
Row = tuple[str, str, str, float, Mapping[str, str]]
"""Name, kind, help, value, labels."""


class Histogram:
    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def lines(self, name: str, labels: str) -> Iterable[str]:
        seen = 0
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            seen += count
            edge = "+Inf" if bound == float("inf") else f"{bound:g}"
            yield f'{name}_bucket{{{labels},le="{edge}"}} {seen}'
        yield f"{name}_count{{{labels}}} {seen}"
        yield f"{name}_sum{{{labels}}} {self.sum:.9g}"


class Metrics:
    """What the front counts itself; belongs to the event loop."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.times = {name: Histogram(SECONDS) for name in TIMES}
        self.sizes = {name: Histogram(TOKENS) for name in SIZES}
        self.ended: Counter[str] = Counter(dict.fromkeys(("stop", "length", "abort", "error"), 0))
        self.refused = 0

    def render(self, stats: Stats | None, rows: Iterable[Row]) -> str:
        own = f'model_name="{_escaped(self.model)}"'
        lines: list[str] = []
        told: set[str] = set()
        for name, kind, text, value, labels in [*(engine_rows(stats) if stats else ()), *self._rows(), *rows]:
            if name not in told:
                told.add(name)
                lines += _head(name, kind, text)
            more = "".join(f',{key}="{_escaped(each)}"' for key, each in labels.items())
            lines.append(f"{name}{{{own}{more}}} {value:.15g}")
        named = [(TIMES[key], one) for key, one in self.times.items()]
        named += [(SIZES[key], one) for key, one in self.sizes.items()]
        for (name, text), histogram in named:
            lines += [*_head(name, "histogram", text), *histogram.lines(name, own)]
        return "\n".join(lines) + "\n"

    def _rows(self) -> Iterable[Row]:
        for reason, count in self.ended.items():
            text = "Requests that ended, by reason"
            yield "vllm:request_success_total", "counter", text, count, {"finished_reason": reason}
        yield "redline:requests_refused_total", "counter", "Requests refused because too many waited", self.refused, {}


def engine_rows(stats: Stats) -> Iterable[Row]:
    gauges = {
        "vllm:num_requests_running": ("Requests that are being computed", stats.running),
        "vllm:num_requests_waiting": ("Requests that wait for a place", stats.waiting),
        "vllm:kv_cache_usage_perc": ("Share of KV pages in use, 0 to 1", stats.kv_usage),
        "redline:steps_in_flight": ("Steps launched and not yet collected", stats.in_flight),
    }
    counters = {
        "vllm:prompt_tokens_total": ("Prompt tokens computed or found in the cache", stats.prompt_tokens),
        "vllm:generation_tokens_total": ("Tokens of answers", stats.generation_tokens),
        "vllm:prefix_cache_queries_total": ("Prompt tokens looked up in the prefix cache", stats.prefix_queries),
        "vllm:prefix_cache_hits_total": ("Prompt tokens that it had", stats.prefix_hits),
        "vllm:num_preemptions_total": ("Requests that lost their pages for a while", stats.preemptions),
        "vllm:corrupted_requests_total": ("Requests whose logits were not finite", stats.faults),
        "vllm:spec_decode_num_draft_tokens_total": ("Tokens guessed", stats.spec_proposed),
        "vllm:spec_decode_num_accepted_tokens_total": ("Guesses that were right", sum(stats.spec_accepted)),
        "redline:steps_total": ("Forward passes", stats.steps),
        "redline:scheduled_tokens_total": ("Tokens computed in them", stats.scheduled_tokens),
        "redline:wasted_tokens_total": ("Tokens sampled for requests that had ended", stats.wasted_tokens),
        "redline:out_of_memory_total": ("Steps that did not fit", stats.out_of_memory),
        "redline:late_compiles_total": ("Kernels compiled while serving", stats.late_compiles),
        "redline:late_compile_seconds_total": ("Time that this took", stats.late_compile_s),
        "redline:late_captures_total": ("CUDA graphs captured while serving", stats.late_captures),
        "redline:late_capture_seconds_total": ("Time that this took", stats.late_capture_s),
    }
    for kind, rows in (("gauge", gauges), ("counter", counters)):
        for name, (text, value) in rows.items():
            yield name, kind, text, value, {}
    for place, count in enumerate(stats.spec_accepted):
        name, text = "vllm:spec_decode_num_accepted_tokens_per_pos_total", "Right guesses by their place in the draft"
        yield name, "counter", text, count, {"position": str(place)}


def _head(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
