from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import redline
from redline.load.paced.pace import Pace
from redline.load.paced.server import PacedServer


@pytest.mark.parametrize("name", redline.__all__)
def test_every_name_leads_somewhere(name: str) -> None:
    assert getattr(redline, name)
    assert name in dir(redline)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = redline.no_such_name


def test_import_alone_is_light() -> None:
    code = "import sys, redline; print(len([m for m in sys.modules if m.startswith('redline.')]))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "0\n"


def test_bench_from_python(tmp_path: Path) -> None:
    db = tmp_path / "r.db"
    with PacedServer(Pace(ttft_ms=5, itl_ms=2, model="paced")) as server:
        outcome = redline.bench(
            server.base_url, "paced", db=db, concurrency="2", requests=6, prompt_tokens=8, output_tokens=4
        )
    assert outcome.status == "done"
    with redline.Reader.open(db) as reader:
        report = redline.load_report(reader, [outcome.run_id])
    assert report.runs[0].id == outcome.run_id
    _columns, rows = redline.sql("select count(*) from request where warmup = 0", db)
    assert rows == [(6,)]
