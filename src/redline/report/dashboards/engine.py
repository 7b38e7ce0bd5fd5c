"""The engine's dashboard: load, latency, memory, progress, promises. Series are those of the recording rules."""

from __future__ import annotations

from redline.report.dashboards.board import Board, Row, panel

_ME = '{instance=~"$instance"}'
_WHO = "{{instance}} {{engine}}"


def _levels(name: str) -> tuple[tuple[str, str], ...]:
    return tuple(
        (f"engine:{name}_seconds:{level}{_ME}", f"{level} {{{{instance}}}}") for level in ("p50", "p90", "p99")
    )


ENGINE = Board(
    uid="redline-engine",
    title="redline: engine",
    version=1,
    text="One inference engine or several, whatever their kind: vLLM, redline's runtime, transformers, SGLang.",
    variables=(("instance", 'label_values(up{job="engine"}, instance)'),),
    rows=(
        Row("Load", (
            panel("Requests in the engine", "", (f"engine:running{_ME}", f"running {_WHO}"),
                  (f"engine:waiting{_ME}", f"waiting {_WHO}"), text="waiting stays above 0: more is asked than done"),
            panel("Tokens", "tokens/s", (f"engine:generation_tokens:rate1m{_ME}", f"generated {_WHO}"),
                  (f"engine:prompt_tokens:rate1m{_ME}", f"prompt {_WHO}")),
            panel("Requests finished", "requests/s", (f"engine:requests:rate1m{_ME}", _WHO)),
            panel("Answers", "", ("up{job=\"engine\", instance=~\"$instance\"}", "{{instance}}"), most=1,
                  text="1: /metrics answered the last scrape"),
        )),
        Row("Latency, as far as the engine's buckets tell", (
            panel("Time to first token", "s", *_levels("ttft")),
            panel("Inter-token latency", "s", *_levels("itl")),
            panel("End to end", "s", *_levels("e2e")),
            panel("Where a request's time goes, median", "s",
                  *((f"engine:{part}_seconds:p50{_ME}", f"{part} {{{{instance}}}}")
                    for part in ("queue", "prefill", "decode"))),
        )),
        Row("Memory", (
            panel("KV cache in use", "share", (f"engine:kv_usage{_ME}", _WHO), most=1,
                  text="above 95 % with requests waiting: KvCacheFull rings"),
            panel("Preemptions", "1/s", (f"engine:preemptions:rate1m{_ME}", _WHO),
                  text="each one is computed a second time"),
            panel("Prompt tokens found in the cache", "share", (f"engine:prefix_hits:ratio5m{_ME}", _WHO), most=1),
            panel("Drafted tokens accepted", "share", (f"engine:accepted_tokens:ratio5m{_ME}", _WHO), most=1,
                  text="no data without speculative decoding"),
        )),
        Row("Progress", (
            panel("Steps", "1/s", (f"engine:iterations:rate1m{_ME}", _WHO),
                  text="0 with requests in the engine: it hangs, whatever /health says"),
            panel("Tokens generated per step", "",
                  (f"engine:generation_tokens:rate1m{_ME} / (engine:iterations:rate1m{_ME} > 0)", _WHO),
                  text="about the number of sequences that decode together"),
        )),
        Row("Promises", (
            panel("Broken, last 5 minutes", "share",
                  (f"slo:bad:ratio5m{_ME}", "{{slo}} {{instance}}"), most=1, text="of those that ended"),
            panel("Speed at which the error budget burns, last hour", "x",
                  (f"slo:bad:ratio1h{_ME} / on (slo) group_left () slo:budget:ratio", "{{slo}} {{instance}}"),
                  text="1: the budget lasts exactly as long as planned; 14.4 pages"),
        )),
    ),
)  # fmt: skip
