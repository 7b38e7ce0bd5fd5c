"""`redline export`: what redline knows, for Prometheus and Grafana. Each verb is a function of this file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from redline.cli.options import Db, Json

File = Annotated[Path | None, typer.Option("--file", "-f", help="experiment whose SLO the alerts keep", metavar="YAML")]
Engines = Annotated[list[str] | None, typer.Option("--engine", metavar="HOST:PORT", help="its /metrics; repeatable")]


def application() -> typer.Typer:
    app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
    app.callback()(_group)
    app.command("prometheus")(prometheus)
    app.command("monitoring")(monitoring)
    return app


def _group() -> None:
    """Show what redline knows to Prometheus and Grafana."""


def prometheus(
    run: Annotated[str, typer.Argument(metavar="RUN", help="id, beginning of an id, or `last`: the newest")] = "last",
    db: Db = None,
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 picks a free one")] = 9410,
    once: Annotated[
        bool, typer.Option("--once", help="print the page and end (node_exporter's textfile folder)")
    ] = False,
    as_json: Json = False,
) -> None:
    """Serve /metrics: the run in the results file, also while it goes on, the GPUs by NVML, the kernel log's Xids."""
    import time

    from redline.cli.show import print_json, stderr
    from redline.cluster import exporter
    from redline.tune.stop import Stop

    with Stop() as stop, exporter.prometheus(db, run, host=host, port=None if once else port) as serving:
        if once:
            typer.echo(serving.page(), nl=False)
            return
        for skipped in serving.skipped:
            stderr().print(f"{skipped}", markup=False, soft_wrap=True)
        if host not in ("127.0.0.1", "::1", "localhost"):
            stderr().print(f"note: whoever reaches {host} can read this page", markup=False)
        if as_json:
            print_json({"url": serving.url, "skipped": [str(one) for one in serving.skipped]})
        else:
            typer.echo(f"{serving.url}  (Ctrl-C stops it)")
        with stop.orderly():
            while not stop.asked:
                time.sleep(0.2)


def monitoring(
    folder: Annotated[Path, typer.Argument(help="where the files go; written over where they exist")],
    file: File = None,
    slo_ttft: Annotated[float | None, typer.Option(min=0.001, help="ms to the first token")] = None,
    slo_itl: Annotated[float | None, typer.Option(min=0.001, help="ms between tokens")] = None,
    slo_tpot: Annotated[float | None, typer.Option(min=0.001, help="ms per output token")] = None,
    slo_e2e: Annotated[float | None, typer.Option(min=0.001, help="ms end to end")] = None,
    attainment: Annotated[
        float | None, typer.Option(min=0.01, max=0.9999, help="share of requests that must keep it [0.95]")
    ] = None,
    success: Annotated[float, typer.Option(help="share of requests that must be answered without an error")] = 0.99,
    hung_after: Annotated[
        str, typer.Option(help="time without a step, with work, after which an engine hangs")
    ] = "60s",
    engine: Engines = None,
    prometheus: Annotated[str, typer.Option(help="address of Prometheus, for Grafana")] = "http://127.0.0.1:9090",
    as_json: Json = False,
) -> None:
    """Write scrape, recording and alerting rules with their unit tests, and Grafana's dashboards and provisioning."""
    from redline.cli.show import print_json, stderr
    from redline.cluster import monitoring as monitor
    from redline.observe.rules.files import TARGETS
    from redline.spec.load_file import load_experiment
    from redline.spec.slo import SloSpec

    found = load_experiment(file, {}).slo if file else SloSpec()
    terms = {"ttft_ms": slo_ttft, "itl_ms": slo_itl, "tpot_ms": slo_tpot, "e2e_ms": slo_e2e, "attainment": attainment}
    slo = found.model_copy(update={name: value for name, value in terms.items() if value is not None})
    targets = {**TARGETS, **({"engine": tuple(engine)} if engine else {})}
    written = monitor.monitoring(
        folder, slo, success=success, hung_after=hung_after, targets=targets, prometheus_url=prometheus
    )
    if as_json:
        print_json({"files": [str(path) for path in written], "slo": slo.model_dump()})
        return
    for path in written:
        typer.echo(path)
    if not slo.terms:
        stderr().print("note: no SLO is given, so no alert is about latency: -f EXPERIMENT, or --slo-ttft 500")
