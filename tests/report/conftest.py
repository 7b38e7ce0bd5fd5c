from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from redline.report.assemble import load_report
from redline.report.charts import Chart, charts
from redline.report.model import Report
from redline.spec.slo import SloSpec
from redline.store.read import Reader
from tests.report.stored import FAST, SLOW, Engine, write_run

SKIPPED = Engine("trt", "vllm", skipped="skipped: no NVIDIA GPU on this box (rent one)")
CRASHED = Engine("vllm-big", "vllm", start_error="vllm-big died while starting\nCUDA out of memory")
FAILING = replace(FAST, name="<b>spec</b>", fail=0.06, per_chunk=4, gpu_memory=6.2e10)
CUT = replace(FAST, name="cut", stop_after=1)


@pytest.fixture(scope="session")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results file with a plain comparison."""
    path = tmp_path_factory.mktemp("plain") / "results.db"
    write_run(path, clients=(1, 4, 16), seconds=3.0)
    return path


@pytest.fixture(scope="session")
def plain(stored: Path) -> Report:
    """Two engines, three load points, nothing odd."""
    with Reader.open(stored) as reader:
        return load_report(reader)


@pytest.fixture(scope="session")
def hard_stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hard") / "results.db"
    engines = (SLOW, FAST, FAILING, SKIPPED, CRASHED, CUT)
    models = ("bundled:target", "bundled:draft")
    slo = SloSpec(ttft_ms=100.0, itl_ms=30.0)
    write_run(path, engines, models=models, clients=(1, 6), repeats=2, status="interrupted", seconds=2.0, slo=slo)
    return path


@pytest.fixture(scope="session")
def hard(hard_stored: Path) -> Report:
    """Two models, two repeats, an SLO, an interrupted run; failures, several tokens per chunk, a name full of markup,
    an engine that was skipped, one that died at start and one that was not finished."""
    with Reader.open(hard_stored) as reader:
        return load_report(reader)


@pytest.fixture(scope="session")
def hard_drawn(hard: Report) -> list[Chart]:
    return charts(hard)
