"""One set of series for every engine: whatever it calls a thing in whatever version, `engine:…` is what rules and
dashboards ask for.

The names are those of `observe.meanings`, the first that an engine's page has. vLLM 0.26 to 0.30 and redline's own
runtime share `vllm:…`; the older names behind them stay for servers that still run.
"""

from __future__ import annotations

from collections.abc import Iterable

from redline.observe.meanings import COUNTERS, GAUGES, TIMES
from redline.observe.rules.rule import Group, Record

ENGINE = ("job", "instance", "model_name", "engine")
"""`engine` is the rank of data-parallel vLLM: one rank may hang while the others work."""
SERVER = ("job", "instance", "model_name")

ITERATIONS = (
    "vllm:iteration_tokens_total_count",
    "redline:steps_total",
    # no steps are counted here: tokens that come out are the progress
    "redline_hf:generation_tokens_total",
    "sglang:generation_tokens_total",
    "llamacpp:n_decode_total",
)
"""What grows whenever the engine has done a step."""
MORE_TIMES = {"tpot": ("vllm:request_time_per_output_token_seconds",)}
WINDOW, FAST = "5m", "1m"
LEVELS = {"p50": "0.5", "p90": "0.9", "p99": "0.99"}


def first(exprs: Iterable[str]) -> str:
    """The first of them that has a value, label set by label set."""
    return " or ".join(exprs)


def gauge(names: Iterable[str], by: Iterable[str] = ENGINE) -> str:
    return first(f"sum by ({', '.join(by)}) ({name})" for name in names)


def rate(names: Iterable[str], window: str, by: Iterable[str] = ENGINE, what: str = "rate") -> str:
    return first(f"sum by ({', '.join(by)}) ({what}({name}[{window}]))" for name in names)


def share(top: str, bottom: str) -> str:
    """`top / bottom`; nothing where there was nothing to divide by."""
    return f"({top}) / (({bottom}) > 0)"


def engine_group(hung_after: str = "60s") -> Group:
    """`hung_after` is how long an engine with work may take for a step."""
    gauges = [Record(f"engine:{name}", gauge(GAUGES[name])) for name in ("running", "waiting", "kv_usage")]
    in_flight = Record("engine:in_flight", "engine:running + engine:waiting")
    rates = [
        Record(f"engine:{name}:rate{FAST}", rate(COUNTERS[name], FAST))
        for name in ("prompt_tokens", "generation_tokens", "preemptions", "requests")
    ]
    shares = [
        Record(f"engine:{name}:ratio{WINDOW}", share(rate(COUNTERS[top], WINDOW), rate(COUNTERS[bottom], WINDOW)))
        for name, top, bottom in (
            ("prefix_hits", "prefix_hits", "prefix_queries"),
            ("accepted_tokens", "accepted_tokens", "draft_tokens"),
        )
    ]
    progress = [
        Record(f"engine:iterations:rate{FAST}", rate(ITERATIONS, FAST)),
        Record("engine:iterations:increase", rate(ITERATIONS, hung_after, what="increase")),
        Record("engine:in_flight:least", f"min_over_time(engine:in_flight[{hung_after}])"),
        Record("engine:preemptions:increase5m", rate(COUNTERS["preemptions"], "5m", what="increase")),
        Record("engine:requests:increase5m", rate(COUNTERS["requests"], "5m", what="increase")),
    ]
    return Group("engine", (*gauges, in_flight, *rates, *shares, *progress))


def latency_group() -> Group:
    """Quantiles as the engine's own buckets allow; redline's client measures them exactly."""
    records: list[Record] = []
    for name, families in (TIMES | MORE_TIMES).items():
        by = (*SERVER, "le")
        buckets = rate((f"{family}_bucket" for family in families), WINDOW, by)
        records.append(Record(f"engine:{name}_seconds_bucket:rate{WINDOW}", buckets))
        records += [
            Record(
                f"engine:{name}_seconds:{level}",
                f"histogram_quantile({value}, engine:{name}_seconds_bucket:rate{WINDOW})",
            )
            for level, value in LEVELS.items()
        ]
    return Group("engine-latency", tuple(records))
