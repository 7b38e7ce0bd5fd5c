"""inference-perf, as of 0.7.0 (`inference_perf/reportgen/base.py`)."""

from __future__ import annotations

import math

import numpy as np

from redline.analyse.peers.answers import Answers, Beside
from redline.analyse.peers.figure import PeerDefinition, PeerFigure, PeerReport, Statistic, apply, linear, mean
from redline.analyse.percentile import Floats

VERSION = "0.7.0"

DEFINITIONS = (
    PeerDefinition(
        "inference-perf/request_latency@0.7.0",
        "s",
        "answer read to its end − request dispatched",
        "from the first dispatch, retries included; connecting counts in it",
    ),
    PeerDefinition(
        "inference-perf/normalized_time_per_output_token@0.7.0",
        "s",
        "request latency / output tokens",
        "contains the TTFT: it is no decode speed",
    ),
    PeerDefinition(
        "inference-perf/time_per_output_token@0.7.0",
        "s",
        "(last token − first token) / (output tokens − 1)",
        "assumes one token in the first chunk",
    ),
    PeerDefinition(
        "inference-perf/time_to_first_token@0.7.0",
        "s",
        "first event with answer text − request dispatched",
        "reasoning is not counted as a token; of requests with two tokens or more; failures are left out",
    ),
    PeerDefinition(
        "inference-perf/inter_token_latency@0.7.0",
        "s",
        "gap between consecutive tokens, each with the time of its chunk",
        "as redline's: k − 1 gaps of 0 in a chunk of k tokens; a tokenizer on the client counts the k",
    ),
    PeerDefinition(
        "inference-perf/throughput@0.7.0",
        "1/s",
        "requests or tokens of successful requests / (end of the last request − dispatch of the first)",
        "ramp and drain are in it",
    ),
)

_LEVELS = (1, 5, 10, 25, 50, 75, 90, 95, 99)
_STATISTICS: tuple[tuple[str, Statistic], ...] = (
    ("mean", mean),
    ("min", lambda values: float(values.min())),
    ("max", lambda values: float(values.max())),
    *(("median" if level == 50 else f"p{level:g}", linear(level)) for level in _LEVELS),
)


def report(answers: Answers, beside: Beside) -> PeerReport:
    """The latencies and rates of `summary_lifecycle_metrics.json`, under `successes`."""
    n = answers.output_tokens
    several = n > 1
    latency = answers.end_s - answers.start_s
    ttft = answers.answer_first_s - answers.start_s
    decode = (answers.last_s - answers.answer_first_s)[several] / (n[several] - 1)
    columns: dict[str, Floats] = {
        "request_latency": latency,
        "normalized_time_per_output_token": np.where(n > 0, latency / np.maximum(n, 1), 0.0),
        "time_per_output_token": decode,
        "time_to_first_token": ttft[several],
        "inter_token_latency": _token_gaps(answers),
    }
    figures = [
        PeerFigure(
            f"successes.latency.{key}.{name}",
            f"{key.replace('_', ' ')} {name}",
            apply(statistic, values),
            "s",
            f"inference-perf/{key}@0.7.0",
        )
        for key, values in columns.items()
        for name, statistic in _STATISTICS
    ]
    return PeerReport(
        "inference-perf",
        VERSION,
        "Summary of lifecycle metrics",
        (*_totals(answers), *figures),
        (
            "inference-perf's clock contains connecting; the raw log starts when the request is sent",
            "tokens are the server's count where there is one; inference-perf counts with a tokenizer of its own "
            "unless told otherwise",
        ),
    )


def _token_gaps(answers: Answers) -> Floats:
    """Zeros within a chunk are written out."""
    zeros = int((answers.chunk_tokens - 1).clip(min=0).sum())
    return np.concatenate((answers.gaps_s, np.zeros(zeros)))


def _totals(answers: Answers) -> list[PeerFigure]:
    seconds = answers.span_s or math.nan
    prompt, output = float(answers.prompt_tokens.sum()), float(answers.output_tokens.sum())
    path, rate = "successes.throughput", "inference-perf/throughput@0.7.0"
    return [
        PeerFigure("successes.count", "successes", len(answers), ""),
        PeerFigure("failures.count", "failures", answers.failed, ""),
        PeerFigure(f"{path}.requests_per_sec", "requests per sec", len(answers) / seconds, "req/s", rate),
        PeerFigure(f"{path}.input_tokens_per_sec", "input tokens per sec", prompt / seconds, "tok/s", rate),
        PeerFigure(f"{path}.output_tokens_per_sec", "output tokens per sec", output / seconds, "tok/s", rate),
        PeerFigure(f"{path}.total_tokens_per_sec", "total tokens per sec", (prompt + output) / seconds, "tok/s", rate),
    ]
