"""`sglang.bench_serving`, as of SGLang 0.5.23 (`sglang/benchmark/serving.py`)."""

from __future__ import annotations

from redline.analyse.peers import vllm
from redline.analyse.peers.answers import Answers, Beside
from redline.analyse.peers.figure import PeerDefinition, PeerFigure, PeerReport, apply, linear, mean, std, table

VERSION = "0.5.23"

DEFINITIONS = (
    PeerDefinition(
        "sglang/ttft_ms@0.5.23",
        "ms",
        "first event with text − just before the request is sent on a new connection",
        "from the actual send; opening the connection counts in it; failures are left out",
    ),
    PeerDefinition(
        "sglang/tpot_ms@0.5.23",
        "ms",
        "(last line of the stream, [DONE] included − first token) / (output tokens − 1)",
        "ends with the last line, not the last token; assumes one token in the first chunk",
    ),
    PeerDefinition(
        "sglang/itl_ms@0.5.23",
        "ms",
        "gap between consecutive events with text, all requests together",
        "one gap per chunk, however many tokens it carries (divided by tokens only when the server reports its accept "
        "length)",
    ),
    PeerDefinition(
        "sglang/e2e_latency_ms@0.5.23",
        "ms",
        "last line of the stream − just before the request is sent",
        "from the actual send",
    ),
    PeerDefinition(
        "sglang/throughput@0.5.23",
        "1/s",
        "requests or tokens of successful requests / length of the whole run",
        "ramp and drain are in it; without usage its output tokens are those asked for, not those received",
    ),
    PeerDefinition(
        "sglang/concurrency@0.5.23",
        "",
        "sum of end-to-end latencies / length of the whole run",
        "not of a steady window",
    ),
)

_STATISTICS = (
    ("mean", "Mean", mean),
    ("median", "Median", linear(50)),
    ("std", "Std", std),
    ("p90", "P90", linear(90)),
    ("p95", "P95", linear(95)),
    ("p99", "P99", linear(99)),
)


def report(answers: Answers, beside: Beside) -> PeerReport:
    """The table of `bench_serving`, under the keys of its JSONL file."""
    ttft, e2e = answers.first_s - answers.start_s, answers.end_s - answers.start_s
    several = answers.output_tokens > 1
    tpot = (e2e - ttft)[several] / (answers.output_tokens[several] - 1)
    columns = {"e2e_latency": e2e, "ttft": ttft, "tpot": tpot, "itl": answers.gaps_s}
    words = {"e2e_latency": "E2E Latency", "ttft": "TTFT", "tpot": "TPOT", "itl": "ITL"}
    spans = {
        f"{{}}_{name}_ms": (f"{{}} {words[name]}", column * 1000, "ms", f"sglang/{name}_ms@0.5.23")
        for name, column in columns.items()
    }
    longest = apply(lambda values: float(values.max()), answers.gaps_s, 0.0) * 1000
    figures = (
        *_totals(answers, float(e2e.sum())),
        *table(spans, _STATISTICS, empty=0.0),
        PeerFigure("max_itl_ms", "Max ITL", longest, "ms", "sglang/itl_ms@0.5.23"),
    )
    return PeerReport(
        "sglang",
        VERSION,
        "Serving Benchmark Result",
        figures,
        (
            "SGLang opens a connection for every request within its TTFT; the raw log starts when the request is sent",
            "the last line is taken as the end of the stream",
            "tokens counted again by a tokenizer (*_retokenized) are not recomputed: the log keeps no text",
        ),
    )


def _totals(answers: Answers, waited_s: float) -> list[PeerFigure]:
    seconds = answers.whole_s or float("nan")
    prompt, output = int(answers.prompt_tokens.sum()), int(answers.output_tokens.sum())
    peak, concurrent = vllm.peaks(answers, Beside())
    rate = "sglang/throughput@0.5.23"
    return [
        PeerFigure("completed", "Successful requests", len(answers), ""),
        PeerFigure("duration", "Benchmark duration", answers.whole_s, "s"),
        PeerFigure("total_input_tokens", "Total input tokens", prompt, ""),
        PeerFigure("total_output_tokens", "Total generated tokens", output, ""),
        PeerFigure("request_throughput", "Request throughput", len(answers) / seconds, "req/s", rate),
        PeerFigure("input_throughput", "Input token throughput", prompt / seconds, "tok/s", rate),
        PeerFigure("output_throughput", "Output token throughput", output / seconds, "tok/s", rate),
        PeerFigure("max_output_tokens_per_s", "Peak output token throughput", peak, "tok/s", rate),
        PeerFigure("max_concurrent_requests", "Peak concurrent requests", concurrent, ""),
        PeerFigure("total_throughput", "Total token throughput", (prompt + output) / seconds, "tok/s", rate),
        PeerFigure("concurrency", "Concurrency", waited_s / seconds, "", "sglang/concurrency@0.5.23"),
    ]
