from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from redline.pages.app import build
from redline.spec.slo import SloSpec
from redline.store.browse import Browser
from tests.report.stored import FAST, SLOW, Engine, write_run

FAILING = replace(FAST, name="<b>spec</b>", fail=0.2, per_chunk=4)
SKIPPED = Engine("trt", "vllm", skipped="skipped: no NVIDIA GPU on this box (rent one)")


def client_of(path: Path) -> TestClient:
    return TestClient(build(path), base_url="http://127.0.0.1", raise_server_exceptions=False)


RUNS = ["20260101-000001-aaaa", "20260101-000002-bbbb", "20260101-000003-cccc"]


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two plain runs and one with an engine that was skipped, one that fails, and a name full of markup."""
    path = tmp_path_factory.mktemp("pages") / "results.db"
    engines = (SLOW, FAILING, SKIPPED)
    written = [
        write_run(path, clients=(1, 4), seconds=1.0, name="before"),
        write_run(path, (SLOW, FAST), clients=(1, 4), seconds=1.0, name="after"),
        write_run(path, engines, clients=(2, 6), seconds=1.5, status="interrupted", slo=SloSpec(ttft_ms=90.0)),
    ]
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for old, new in zip(written, RUNS, strict=True):  # of one second, ids have no order of their own
            db.execute("UPDATE run SET id = ? WHERE id = ?", (new, old))
            db.execute("UPDATE trial SET run_id = ? WHERE run_id = ?", (new, old))
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


@pytest.fixture
def runs() -> list[str]:
    """Ids, oldest first."""
    return RUNS


@pytest.fixture(scope="session")
def points(filled: Path) -> dict[str, list[int]]:
    """Load points of each run."""
    with Browser.open(filled) as reader:
        return {run: sorted(reader.points_counts(run)) for run in RUNS}


@pytest.fixture
def client(filled: Path) -> Iterator[TestClient]:
    with client_of(filled) as opened:
        yield opened
