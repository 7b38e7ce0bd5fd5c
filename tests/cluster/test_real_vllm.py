"""Real vLLM (CPU build) under a real Prometheus: its names reach the engine's dashboard, and a core that is stopped
rings EngineHung while /health says that all is well."""

from __future__ import annotations

import os
import signal
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import redline
from redline.cluster.monitoring import monitoring
from redline.report.dashboards.boards import BOARDS
from redline.spec.engine import EngineSpec
from redline.spec.model import ModelSpec
from redline.spec.slo import SloSpec
from tests.cluster.programs import program, prometheus, running
from tests.cluster.test_real_prometheus import Site, _host, _missing
from tests.e2e.program import COMMAND

VLLM = Path(os.environ.get("REDLINE_VLLM_PYTHON") or Path(__file__).parents[2] / ".venv-vllm" / "bin" / "python")
NOT_HERE = ("Drafted tokens accepted",)
"""No speculation is switched on."""

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not VLLM.exists(), reason=f"no vLLM at {VLLM}; get it with `make vllm`"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, list[int], str]]:
    folder = tmp_path_factory.mktemp("vllm")
    program("prometheus")
    flags = {"enforce-eager": True, "max-model-len": 512, "max-num-seqs": 4}
    spec = EngineSpec(kind="vllm", python=str(VLLM), flags=flags)
    with ExitStack() as stack:
        model = ModelSpec(id="bundled:tiny", dtype="bfloat16")
        served = stack.enter_context(redline.serve(model, spec, artifacts=folder))
        targets = {"engine": [_host(served.endpoint.base_url)]}
        monitoring(
            folder, SloSpec(ttft_ms=2000, itl_ms=500, e2e_ms=9000, tpot_ms=500), targets=targets, hung_after="15s"
        )
        alerts = folder / "prometheus" / "rules" / "alerts.yml"
        alerts.write_text(alerts.read_text().replace("for: 30s", "for: 1s"))
        server = stack.enter_context(prometheus(folder))
        load = [
            *COMMAND, "bench", "--url", served.endpoint.base_url, "--model", "bundled:tiny", "--model-name",
            served.endpoint.model, "--rate", "3", "--duration", "30", "--drain", "1", "--warmup-requests", "1",
            "--prompt-tokens", "32", "--output-tokens", "64", "--shared-prefix-tokens", "16", "--workers", "1",
            "--db", str(folder / "r.db"), "--timeout", "60",
        ]  # fmt: skip
        bench = stack.enter_context(running(folder / "bench.log", *load))
        yield Site(server, bench, folder), list(served.endpoint.pids), served.endpoint.base_url


def test_its_names_reach_every_panel_and_a_stopped_core_rings(site: tuple[Site, list[int], str]) -> None:
    here, pids, base_url = site
    board = BOARDS["engine"]
    panels = {
        f"{panel.title} {query.legend}": board.anything(query.expr)
        for panel in board.panels
        for query in panel.queries
        if panel.title not in NOT_HERE
    }
    missing = _missing(here.server, panels, 60)
    assert not missing, (here.folder / "bench.log").read_text()[-1500:]
    assert not here.server.value('ALERTS{alertname="EngineHung"}')
    core = next(pid for pid in pids if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"VLLM::EngineCore"))
    _stop_at_work(core, here)
    try:
        assert not _missing(here.server, {"hung": 'ALERTS{alertname="EngineHung", alertstate="firing"}'}, 60)
        with urllib.request.urlopen(base_url.removesuffix("/v1") + "/health", timeout=5) as answer:
            assert answer.status == 200, "this is why the alert does not ask /health"
    finally:
        os.kill(core, signal.SIGCONT)
    firing = {"quiet again": 'absent(ALERTS{alertname="EngineHung"})'}
    assert not _missing(here.server, firing, 40)


def _stop_at_work(core: int, here: Site) -> None:
    """Its gauges stand where they stood, so it has to be stopped while a request is in it."""
    for _ in range(20):
        os.kill(core, signal.SIGSTOP)
        time.sleep(2.5)
        if here.server.has("engine:in_flight > 0"):
            return
        os.kill(core, signal.SIGCONT)
        time.sleep(0.3)
    raise AssertionError("no request was ever in it")
