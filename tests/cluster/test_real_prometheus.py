"""A real Prometheus scrapes redline's runtime, node_exporter, redline's exporter and a synthetic DCGM page while a real
load goes on. Every panel of every dashboard and every term of every alert must have data there."""

from __future__ import annotations

import html
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

import redline
from redline.cluster.exporter import prometheus as exporter
from redline.cluster.monitoring import monitoring
from redline.cluster.shot import shot
from redline.observe.rules.alerts import all_groups
from redline.report.dashboards.boards import BOARDS
from redline.spec.engine import EngineSpec
from redline.spec.model import ModelSpec
from redline.spec.slo import SloSpec
from tests.cluster.programs import Prometheus, free_port, page, program, prometheus, running
from tests.cluster.synthetic_dcgm import dcgm_page
from tests.e2e.program import COMMAND, run
from tests.node.boxes import FakeNvml

SLO = SloSpec(ttft_ms=500, itl_ms=50, e2e_ms=5000)
XIDS = (
    "4,10,{at},-;NVRM: Xid (PCI:0000:3b:00): 79, pid=7, name=python, SIMULATED GPU has fallen off the bus.\n"
    "4,11,{at},-;NVRM: Xid (PCI:0000:3b:00): 31, pid=7, name=python, SIMULATED MMU Fault\n"
)

pytestmark = pytest.mark.timeout(180)


@dataclass
class Site:
    server: Prometheus
    bench: subprocess.Popen[bytes]
    folder: Path


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    program("prometheus")
    node = free_port()
    (folder / "kmsg").write_text(XIDS.format(at=int(time.monotonic() * 1e6)))
    engine = EngineSpec(
        kind="redline", flags={"speculation": "ngram", "max-num-seqs": 8, "kv-cache-tokens": 4096, "threads": 1}
    )
    with ExitStack() as stack:
        served = stack.enter_context(redline.serve(ModelSpec(id="bundled:tiny"), engine, artifacts=folder))
        endpoint = served.endpoint
        command = (program("prometheus-node-exporter"), f"--web.listen-address=127.0.0.1:{node}")
        stack.enter_context(running(folder / "node.log", *command))
        telling = stack.enter_context(exporter(folder / "r.db", port=0, nvml=FakeNvml(), kernel_log=folder / "kmsg"))
        dcgm = stack.enter_context(page(dcgm_page))
        targets = {
            "engine": [_host(endpoint.base_url)], "redline": [_host(telling.url)], "node": [f"127.0.0.1:{node}"],
            "dcgm": [f"127.0.0.1:{dcgm}"],
        }  # fmt: skip
        monitoring(folder, SLO, targets=targets)
        server = stack.enter_context(prometheus(folder))
        load = [
            *COMMAND, "bench", "--url", endpoint.base_url, "--model", "bundled:tiny", "--model-name", endpoint.model,
            "--rate", "6", "--duration", "12", "--warmup-requests", "1", "--prompt-tokens", "32",
            "--output-tokens", "16", "--shared-prefix-tokens", "16", "--slo-ttft", "500",
            "--db", str(folder / "r.db"), "--workers", "1",
        ]  # fmt: skip
        bench = stack.enter_context(running(folder / "bench.log", *load))
        yield Site(server, bench, folder)


def _host(url: str) -> str:
    return url.split("/")[2]


def _missing(server: Prometheus, queries: dict[str, str], timeout_s: float = 90) -> dict[str, str]:
    """Those without data when the time is over."""
    left, until = dict(queries), time.monotonic() + timeout_s
    while left and time.monotonic() < until:
        left = {name: expr for name, expr in left.items() if not server.has(expr)}
        if left:
            time.sleep(0.7)
    return left


def test_every_panel_and_every_alert_has_data(site: Site) -> None:
    panels = {
        f"{board.uid}: {panel.title} ({place})": board.anything(query.expr)
        for board in BOARDS.values()
        for panel in board.panels
        for place, query in enumerate(panel.queries)
    }
    groups = [group for groups in all_groups(SLO).values() for group in groups]
    alerts = {
        f"{alert.name} {dict(alert.labels)} ({place})": term.expr
        for group in groups
        for alert in group.alerts
        for place, term in enumerate(alert.terms)
    }
    assert len(panels) > 60
    assert len(alerts) > 40
    missing = _missing(site.server, panels | alerts)
    assert not missing, (site.folder / "bench.log").read_text()[-2000:]


def test_what_is_broken_rings_and_what_is_well_does_not(site: Site) -> None:
    """The card of the page is hot, two Xids were seen; the engine answers and keeps its promises."""
    loud = {"GpuThrottled", "GpuXidFatal", "GpuXid"}
    pending = 'ALERTS{alertname=~"GpuThrottled|GpuXid.*"}'
    assert not _missing(site.server, {name: pending.replace("GpuThrottled|GpuXid.*", name) for name in loud}, 20)
    names = {series["metric"]["alertname"] for series in site.server.value("ALERTS")}
    assert loud <= names
    assert not names & {"EngineDown", "EngineHung", "ExporterDown", "SloBurnFast", "XidWatchBlind", "KvCacheFull"}
    seen = site.server.value('redline_gpu_xid_total{xid="79"}')
    assert [series["metric"]["simulated"] for series in seen] == ["true"]


def test_prometheus_finds_no_fault_in_rules_and_pages(site: Site) -> None:
    rules = [rule for group in site.server.ask("rules")["groups"] for rule in group["rules"]]
    assert [rule["name"] for rule in rules if rule["health"] == "err"] == []
    targets = site.server.ask("targets")["activeTargets"]
    assert {target["labels"]["job"]: target["health"] for target in targets} == dict.fromkeys(
        ("engine", "redline", "node", "dcgm"), "up"
    )


def test_counts_of_the_client_are_those_of_the_results_file(site: Site) -> None:
    site.bench.wait(90)
    with redline.Reader.open(site.folder / "r.db") as reader:
        run = reader.run("last")
        stored = sum(len(reader.requests(point.id)) for trial in run.trials for point in trial.points)
    expr = f'sum(redline_requests_total{{run="{run.id}"}}) == {stored}'
    assert not _missing(site.server, {"counts": expr}, 20), site.server.value("redline_requests_total")


@pytest.mark.parametrize("name", BOARDS)
def test_a_shot_has_every_panel(site: Site, name: str, tmp_path: Path) -> None:
    made = shot(name, site.server.url, tmp_path / f"{name}.json", minutes=1.5)
    assert made.empty == ()
    text = made.file.read_text()
    assert "not Grafana" in text
    assert text.count('"type":"line"') >= made.panels


def test_a_shot_as_a_picture_says_what_it_is(site: Site, tmp_path: Path) -> None:
    drawn = shot("client", site.server.url, tmp_path / "client.svg", minutes=1.5).file.read_text()
    assert "not Grafana" in drawn
    for panel in BOARDS["client"].panels:
        assert html.escape(panel.title, quote=False) in drawn
    assert drawn.count('aria-roledescription="line mark"') >= len(list(BOARDS["client"].panels))


def test_a_shot_begins_with_the_first_scrape(site: Site, tmp_path: Path) -> None:
    """Half an hour with data in its last minute alone would be a picture of nothing."""
    drawn = shot("host", site.server.url, tmp_path / "host.json").file.read_text()
    [(begin, end)] = set(re.findall(r'"domain":\[(\d{13}\.?\d*),(\d{13}\.?\d*)\]', drawn))
    assert 0 < float(end) - float(begin) < 1_500_000


def test_a_shot_as_png_by_the_command(site: Site, tmp_path: Path) -> None:
    done = run(tmp_path, "dashboard", "shot", "gpu", "--prometheus", site.server.url, "--minutes", "1.5")
    assert done.stdout == "redline-gpu.png\n"
    assert (tmp_path / "redline-gpu.png").read_bytes().startswith(b"\x89PNG")
