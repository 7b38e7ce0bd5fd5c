"""The dashboard of redline's own client: what the requests of a run experienced, and what measuring costs."""

from __future__ import annotations

from redline.report.dashboards.board import Board, Row, panel

_ME = 'run=~"$run"'
_WHO = "{{engine}} {{load}}"
_BY = "run, engine, model, load"


def _levels(name: str) -> tuple[tuple[str, str], ...]:
    buckets = f"sum by ({_BY}, le) (rate({name}_bucket{{{_ME}}}[1m]))"
    return tuple(
        (f"histogram_quantile({level}, {buckets})", f"p{level[2:]:0<2} {_WHO}") for level in ("0.5", "0.9", "0.99")
    )


def _sum(name: str) -> str:
    return f"sum by ({_BY}) (rate({name}{{{_ME}}}[1m]))"


CLIENT = Board(
    uid="redline-client",
    title="redline: client",
    version=1,
    text="The run that `redline export prometheus` tells of, measured by the client; times from the intended start.",
    variables=(("run", "label_values(redline_run_info, run)"),),
    rows=(
        Row("Requests", (
            panel("Requests that ended", "requests/s",
                  (f"sum by ({_BY}, status) (rate(redline_requests_total{{{_ME}}}[1m]))", "{{status}} " + _WHO)),
            panel("Share that kept every promise of the SLO", "share",
                  (f"{_sum('redline_requests_good_total')} / ({_sum('redline_requests_judged_total')} > 0)", _WHO),
                  most=1, text="without an SLO: that succeeded"),
            panel("Output tokens", "tokens/s", (_sum("redline_output_tokens_total"), _WHO)),
        )),
        Row("Latency", (
            panel("Time to first token", "s", *_levels("redline_request_ttft_seconds")),
            panel("Inter-token latency", "s", *_levels("redline_itl_seconds")),
            panel("End to end", "s", *_levels("redline_request_e2e_seconds")),
            panel("Time to first token, client beside engine (median)", "s",
                  (f"histogram_quantile(0.5, sum by (le) (rate(redline_request_ttft_seconds_bucket{{{_ME}}}[5m])))",
                   "client"),
                  ("engine:ttft_seconds:p50", "{{instance}}"),
                  text="the difference is network, HTTP and queueing before the engine's clock starts"),
        )),
        Row("What measuring costs", (
            panel("CPU of the load generator", "cores", (f"redline_run_client_cpu_cores{{{_ME}}}", "{{trial}}"),
                  text="while a run goes on"),
            panel("Memory of the load generator", "bytes", (f"redline_run_client_rss_bytes{{{_ME}}}", "{{trial}}"),
                  text="while a run goes on"),
            panel("Stored and not yet shown here", "", (f"redline_requests_behind{{{_ME}}}", "{{run}}"),
                  text="above 0: the exporter catches up with a large run"),
        )),
    ),
)  # fmt: skip
