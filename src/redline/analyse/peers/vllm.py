"""`vllm bench serve`, as of vLLM 0.30 (`vllm/benchmarks/serve.py`, `lib/endpoint_request_func.py`)."""

from __future__ import annotations

import numpy as np

from redline.analyse.peers.answers import Answers, Beside
from redline.analyse.peers.figure import PeerDefinition, PeerFigure, PeerReport, linear, mean, std, table
from redline.analyse.percentile import Floats

VERSION = "0.30"

DEFINITIONS = (
    PeerDefinition(
        "vllm/ttft_ms@0.30",
        "ms",
        "first event with a choice, even one without text − just before the request is handed to aiohttp",
        "from the actual send, not the intended start; connecting counts in it, waiting for its own semaphore does "
        "not; a chat server's role event is its first token; failures are left out",
    ),
    PeerDefinition(
        "vllm/tpot_ms@0.30",
        "ms",
        "(last event with a choice − first one) / (output tokens − 1), per request of two tokens or more",
        "assumes one token in the first chunk; failures are left out",
    ),
    PeerDefinition(
        "vllm/itl_ms@0.30",
        "ms",
        "gap between consecutive events with a choice, all requests together",
        "one gap per chunk, however many tokens it carries; events without text make gaps of about 0",
    ),
    PeerDefinition(
        "vllm/e2el_ms@0.30",
        "ms",
        "last event with a choice − just before the request is handed to aiohttp",
        "from the actual send; ends with the last token, not the last byte",
    ),
    PeerDefinition(
        "vllm/throughput@0.30",
        "1/s",
        "requests or tokens of successful requests / length of the whole run",
        "ramp and drain are in it; redline counts within the steady window",
    ),
    PeerDefinition(
        "vllm/request_goodput@0.30",
        "req/s",
        "successful requests within every limit / length of the whole run",
        "a one-token answer has TPOT 0 and so passes; failures only lack in the numerator",
    ),
    PeerDefinition(
        "vllm/max_output_tokens_per_s@0.30",
        "tok/s",
        "most events with a choice in any whole second since the first request",
        "counts chunks, not tokens",
    ),
)

_STATISTICS = (
    ("mean", "Mean", mean),
    ("median", "Median", linear(50)),
    ("std", "Std", std),
    ("p50", "P50", linear(50)),
    ("p90", "P90", linear(90)),
    ("p95", "P95", linear(95)),
    ("p99", "P99", linear(99)),
)


def report(answers: Answers, beside: Beside) -> PeerReport:
    """The table of `vllm bench serve`, under the keys of its `--save-result` file."""
    values = _values(answers, beside)
    spans = {
        f"{{}}_{name}_ms": (f"{{}} {name.upper()}", values[name] * 1000, "ms", f"vllm/{name}_ms@0.30")
        for name in values
    }
    return PeerReport(
        "vllm",
        VERSION,
        "Serving Benchmark Result",
        (*_totals(answers, beside, values), *table(spans, _STATISTICS, empty=0.0)),
        (
            "the clock starts when the request's last byte is in the kernel: opening a connection and handing over the "
            "body, which vLLM's clock contains, are not in the raw log",
            "events without text count as measured on average per answer, and arrive with the chunk beside them",
        ),
    )


def _values(answers: Answers, beside: Beside) -> dict[str, Floats]:
    """Seconds, by vLLM's names."""
    ttft, e2el = answers.first_s - answers.start_s, answers.last_s - answers.start_s
    several = answers.output_tokens > 1
    tpot = (e2el - ttft)[several] / (answers.output_tokens[several] - 1)
    silent = np.zeros(len(answers) * (beside.opening_events + beside.closing_events))
    return {"ttft": ttft, "tpot": tpot, "itl": np.concatenate((answers.gaps_s, silent)), "e2el": e2el}


def _totals(answers: Answers, beside: Beside, values: dict[str, Floats]) -> list[PeerFigure]:
    seconds = answers.whole_s or float("nan")
    prompt, output = int(answers.prompt_tokens.sum()), int(answers.output_tokens.sum())
    tokens_per_s, concurrent = peaks(answers, beside)
    rate, peak = "vllm/throughput@0.30", "vllm/max_output_tokens_per_s@0.30"
    figures = [
        PeerFigure("completed", "Successful requests", len(answers), ""),
        PeerFigure("failed", "Failed requests", answers.failed, ""),
        PeerFigure("duration", "Benchmark duration", answers.whole_s, "s"),
        PeerFigure("total_input_tokens", "Total input tokens", prompt, ""),
        PeerFigure("total_output_tokens", "Total generated tokens", output, ""),
        PeerFigure("request_throughput", "Request throughput", len(answers) / seconds, "req/s", rate),
        PeerFigure("output_throughput", "Output token throughput", output / seconds, "tok/s", rate),
        PeerFigure("max_output_tokens_per_s", "Peak output token throughput", tokens_per_s, "tok/s", peak),
        PeerFigure("max_concurrent_requests", "Peak concurrent requests", concurrent, ""),
        PeerFigure("total_token_throughput", "Total token throughput", (prompt + output) / seconds, "tok/s", rate),
    ]
    if beside.slo:
        good = _good(answers, beside, values) / seconds
        figures.insert(6, PeerFigure("request_goodput", "Request goodput", good, "req/s", "vllm/request_goodput@0.30"))
    return figures


def _good(answers: Answers, beside: Beside, values: dict[str, Floats]) -> int:
    tpot = np.zeros(len(answers))
    tpot[answers.output_tokens > 1] = values["tpot"]
    columns = {"ttft_ms": values["ttft"], "tpot_ms": tpot, "e2e_ms": values["e2el"]}
    good = np.ones(len(answers), np.bool_)
    for name, limit in beside.slo.items():
        if name in columns:
            good &= columns[name] * 1000 <= limit
    return int(good.sum())


def peaks(answers: Answers, beside: Beside) -> tuple[float, float]:
    """Most events and most requests in any second, in seconds that begin with the first request."""
    if not len(answers):
        return 0.0, 0.0
    zero = answers.start_s.min()
    opening, closing = beside.opening_events, beside.closing_events
    at = (answers.chunk_s, np.repeat(answers.first_s, opening), np.repeat(answers.last_s, closing))
    events = np.bincount((np.concatenate(at) - zero).astype(np.int64))
    begun = np.bincount((answers.start_s - zero).astype(np.int64), minlength=len(events) + 1)
    over = np.bincount((answers.last_s - zero).astype(np.int64) + 1, minlength=len(begun))
    width = max(len(begun), len(over))
    active = np.cumsum(np.pad(begun, (0, width - len(begun))) - np.pad(over, (0, width - len(over))))
    return float(events.max()), float(active.max())
