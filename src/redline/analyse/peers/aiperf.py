"""NVIDIA AIPerf, as of 0.13.0 (`aiperf/metrics/types/*.py`, `metrics/metric_dicts.py`)."""

from __future__ import annotations

import math

import numpy as np

from redline.analyse.peers.answers import Answers, Beside
from redline.analyse.peers.figure import PeerDefinition, PeerFigure, PeerReport, apply, linear, mean, std
from redline.analyse.percentile import Floats

VERSION = "0.13.0"

DEFINITIONS = (
    PeerDefinition(
        "aiperf/time_to_first_token@0.13.0",
        "ms",
        "first event with content − request started, after the session was built",
        "from the actual send; connecting counts in it; failures only in its adj_* columns",
    ),
    PeerDefinition(
        "aiperf/time_to_second_token@0.13.0", "ms", "second event with content − first one", "counts chunks, not tokens"
    ),
    PeerDefinition(
        "aiperf/request_latency@0.13.0",
        "ms",
        "last event with content − request started",
        "from the actual send; ends with the last token, not the last byte",
    ),
    PeerDefinition(
        "aiperf/inter_token_latency@0.13.0",
        "ms",
        "(request latency − TTFT) / (output sequence length − 1), one value per request",
        "a mean per request, redline's TPOT; assumes one token in the first chunk unless --per-chunk-usage is on",
    ),
    PeerDefinition(
        "aiperf/inter_chunk_latency@0.13.0",
        "ms",
        "gap between consecutive events with content, all requests together",
        "one gap per chunk, however many tokens it carries",
    ),
    PeerDefinition(
        "aiperf/output_token_throughput_per_user@0.13.0", "tok/s/user", "1 / inter-token latency, per request", ""
    ),
    PeerDefinition(
        "aiperf/throughput@0.13.0",
        "1/s",
        "requests or tokens of valid requests / length of the profiling phase, which begins before the first request",
        "ramp and drain are in it; redline counts within the steady window; not benchmark_duration, which is shorter",
    ),
    PeerDefinition(
        "aiperf/goodput@0.13.0",
        "req/s",
        "requests within every limit / length of the profiling phase",
        "a request that lacks a metric is not good",
    ),
)

_STATISTICS = (
    ("avg", mean),
    ("min", lambda values: float(values.min())),
    ("max", lambda values: float(values.max())),
    *((f"p{level}", linear(level)) for level in (1, 5, 10, 25, 50, 75, 90, 95, 99)),
    ("std", std),
)


def report(answers: Answers, beside: Beside) -> PeerReport:
    """AIPerf's table, under the keys of its `profile_export_aiperf.json`."""
    per_request = _values(answers)
    several = answers.output_tokens > 1
    itl = per_request["inter_token_latency"]
    columns: dict[str, tuple[str, Floats, str]] = {
        "time_to_first_token": ("Time to First Token", per_request["time_to_first_token"], "ms"),
        "time_to_second_token": ("Time to Second Token", _second(answers), "ms"),
        "request_latency": ("Request Latency", per_request["request_latency"], "ms"),
        "inter_token_latency": ("Inter Token Latency", itl[several], "ms"),
        "inter_chunk_latency": ("Inter Chunk Latency", answers.gaps_s * 1000, "ms"),
        "output_token_throughput_per_user": (
            "Output Token Throughput Per User",
            1000 / itl[several & (itl > 0)],
            "tokens/sec/user",
        ),
        "output_sequence_length": ("Output Sequence Length", answers.output_tokens.astype(np.float64), "tokens"),
        "input_sequence_length": ("Input Sequence Length", answers.prompt_tokens.astype(np.float64), "tokens"),
    }
    figures = [
        PeerFigure(
            f"{key}.{name}",
            f"{label} {name}",
            apply(statistic, values),
            unit,
            f"aiperf/{key}@0.13.0" if "sequence" not in key else "",
        )
        for key, (label, values, unit) in columns.items()
        for name, statistic in _STATISTICS
    ]
    return PeerReport(
        "aiperf",
        VERSION,
        "LLM Metrics",
        (*figures, *_totals(answers, beside, per_request)),
        (
            "AIPerf's clock starts before the connection is made, the raw log when the request is sent",
            "AIPerf counts tokens with a tokenizer of its own unless --use-server-token-count is given; the log holds "
            "the server's count where there is one",
        ),
    )


def _values(answers: Answers) -> dict[str, Floats]:
    """ms, per request; NaN where a request has no such value."""
    first, last = answers.first_s - answers.start_s, answers.last_s - answers.start_s
    n = answers.output_tokens
    itl = np.where(n > 1, (last - first) / np.maximum(n - 1, 1), math.nan)
    return {
        "time_to_first_token": first * 1000,
        "request_latency": last * 1000,
        "inter_token_latency": itl * 1000,
    }


def _second(answers: Answers) -> Floats:
    starts = np.concatenate(([0], np.cumsum(answers.chunks)))[:-1].astype(np.int64)
    rows = starts[answers.chunks > 1]
    second: Floats = (answers.chunk_s[rows + 1] - answers.chunk_s[rows]) * 1000
    return second


def _totals(answers: Answers, beside: Beside, values: dict[str, Floats]) -> list[PeerFigure]:
    seconds = answers.whole_s or math.nan
    span = float(answers.last_s.max() - answers.start_s.min()) if len(answers) else math.nan
    prompt, output = float(answers.prompt_tokens.sum()), float(answers.output_tokens.sum())
    both, rate = prompt + output, "aiperf/throughput@0.13.0"
    figures = [
        PeerFigure("output_token_throughput.avg", "Output Token Throughput", output / seconds, "tokens/sec", rate),
        PeerFigure("total_token_throughput.avg", "Total Token Throughput", both / seconds, "tokens/sec", rate),
        PeerFigure("request_throughput.avg", "Request Throughput", len(answers) / seconds, "requests/sec", rate),
        PeerFigure("request_count.avg", "Request Count", len(answers), "requests"),
        PeerFigure("error_request_count.avg", "Error Request Count", answers.failed, "requests"),
        PeerFigure("benchmark_duration.avg", "Benchmark Duration", span, "sec"),
    ]  # fmt: skip
    names = {"ttft_ms": "time_to_first_token", "tpot_ms": "inter_token_latency", "e2e_ms": "request_latency"}
    if beside.slo:
        good = np.ones(len(answers), np.bool_)
        for name in names.keys() & beside.slo.keys():
            good &= np.nan_to_num(values[names[name]], nan=math.inf) <= beside.slo[name]
        figures.append(
            PeerFigure("goodput.avg", "Goodput", float(good.sum()) / seconds, "requests/sec", "aiperf/goodput@0.13.0")
        )
    return figures
