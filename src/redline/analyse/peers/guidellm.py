"""GuideLLM, as of 0.8.1 (`guidellm/schemas/base/request_stats.py`, `statistics.py`, `benchmark/schemas/metrics.py`)."""

from __future__ import annotations

import math

import numpy as np

from redline.analyse.peers.answers import Answers, Beside
from redline.analyse.peers.figure import PeerDefinition, PeerFigure, PeerReport, nearest
from redline.analyse.percentile import Floats

VERSION = "0.8.1"

DEFINITIONS = (
    PeerDefinition(
        "guidellm/time_to_first_token_ms@0.8.1",
        "ms",
        "first event with content or reasoning − first byte of the request's head written",
        "from the actual send; opening the connection is not in it; wall clock, not monotonic",
    ),
    PeerDefinition(
        "guidellm/time_per_output_token_ms@0.8.1",
        "ms",
        "(last token − start of the request) / output tokens, each request weighted with its output tokens",
        "contains the TTFT: it is no decode speed; redline's TPOT is GuideLLM's ITL",
    ),
    PeerDefinition(
        "guidellm/inter_token_latency_ms@0.8.1",
        "ms",
        "(last token − first token) / (output tokens − 1), one value per request, weighted with its tokens − 1",
        "a mean per request: stalls between two tokens do not show in its percentiles",
    ),
    PeerDefinition(
        "guidellm/request_latency@0.8.1", "s", "end of the stream − start of the request", "from the actual send"
    ),
    PeerDefinition(
        "guidellm/request_scheduled_latency@0.8.1",
        "s",
        "end of the stream − when the schedule wanted the request",
        "redline's e2e_ms/intended",
    ),
    PeerDefinition(
        "guidellm/per_second@0.8.1",
        "1/s",
        "mean over time of the rate between neighbouring events: what ended / length of its measuring window",
        "the window is the whole run unless a warm-up or cool-down was asked for; only the mean is recomputed",
    ),
    PeerDefinition(
        "guidellm/request_concurrency@0.8.1",
        "",
        "requests in flight, mean over time in the measuring window",
        "not of a steady window",
    ),
    PeerDefinition(
        "guidellm/percentile@0.8.1",
        "",
        "the smallest value with at least that share of the weight at or below it",
        "as redline's; failures are left out instead of counting as +∞",
    ),
)

_LEVELS = {"p01": 0.01, "p05": 0.05, "p10": 0.10, "p25": 0.25, "p50": 0.50, "p75": 0.75, "p90": 0.90, "p95": 0.95}
_LEVELS |= {"p99": 0.99, "p999": 0.999}


def report(answers: Answers, beside: Beside) -> PeerReport:
    """GuideLLM's metrics of successful requests, under the keys of `benchmarks[].metrics` of its JSON file."""
    one = np.ones(len(answers))
    n = answers.output_tokens.astype(np.float64)
    several = n > 1
    first, last = answers.first_s - answers.start_s, answers.last_s - answers.start_s
    columns: dict[str, tuple[str, Floats, Floats, str]] = {
        "time_to_first_token_ms": ("TTFT", first * 1000, one, "ms"),
        "time_to_first_output_token_ms": ("TTFOT", (answers.answer_first_s - answers.start_s) * 1000, one, "ms"),
        "time_per_output_token_ms": ("TPOT", last * 1000 / np.maximum(n, 1), n, "ms"),
        "inter_token_latency_ms": (
            "ITL",
            (last - first)[several] * 1000 / (n[several] - 1),
            n[several] - 1,
            "ms",
        ),
        "request_latency": ("Request latency", answers.end_s - answers.start_s, one, "s"),
        "request_scheduled_latency": ("Scheduled latency", answers.end_s - answers.intended_s, one, "s"),
        "prompt_token_count": ("Input tokens", answers.prompt_tokens.astype(np.float64), one, "tokens"),
        "output_token_count": ("Output tokens", n, one, "tokens"),
    }
    figures = [
        PeerFigure("request_totals.successful", "Requests, completed", len(answers), ""),
        PeerFigure("request_totals.errored", "Requests, errored", answers.failed, ""),
    ]
    for key, (label, values, weights, unit) in columns.items():
        figures += _distribution(key, label, values, weights, unit)
    return PeerReport(
        "guidellm",
        VERSION,
        "Benchmark metrics, successful requests",
        (*figures, *_rates(answers)),
        (
            "of rates and of concurrency only the mean is recomputed: their percentiles depend on events that the raw "
            "log does not keep",
            "GuideLLM's clock starts with the head of the request, redline's log with its last byte",
        ),
    )


def _distribution(key: str, label: str, values: Floats, weights: Floats, unit: str) -> list[PeerFigure]:
    definition = f"guidellm/{key}@0.8.1" if not key.endswith("_count") else ""
    path = f"{key}.successful"
    some = len(values) > 0 and weights.sum() > 0
    middle = float(np.average(values, weights=weights)) if some else math.nan
    spread = math.sqrt(float(np.average((values - middle) ** 2, weights=weights))) if some else math.nan
    median = nearest(values, weights, 0.5) if some else math.nan
    figures = [
        PeerFigure(f"{path}.mean", f"{label} mean", middle, unit, definition),
        PeerFigure(f"{path}.median", f"{label} median", median, unit, definition),
        PeerFigure(f"{path}.std_dev", f"{label} std dev", spread, unit, definition),
    ]
    for name, level in _LEVELS.items():
        value = nearest(values, weights, level) if some else math.nan
        figures.append(PeerFigure(f"{path}.percentiles.{name}", f"{label} {name}", value, unit, definition))
    return figures


def _rates(answers: Answers) -> list[PeerFigure]:
    seconds = answers.span_s or math.nan
    prompt, output = float(answers.prompt_tokens.sum()), float(answers.output_tokens.sum())
    busy = float((answers.end_s - answers.start_s).sum())
    both, rate = prompt + output, "guidellm/per_second@0.8.1"
    return [
        PeerFigure("requests_per_second.successful.mean", "Requests/s, mean", len(answers) / seconds, "req/s", rate),
        PeerFigure("output_tokens_per_second.successful.mean", "Output tok/s, mean", output / seconds, "tok/s", rate),
        PeerFigure("tokens_per_second.successful.mean", "Total tok/s, mean", both / seconds, "tok/s", rate),
        PeerFigure(
            "request_concurrency.successful.mean", "Concurrency, mean", busy / seconds, "",
            "guidellm/request_concurrency@0.8.1",
        ),
    ]  # fmt: skip
