"""Imported results as runs: report, verdict and `--as` work on them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from redline.errors import UsageError
from redline.report.assemble import load_report
from redline.report.peers import as_dict, peer_points
from redline.store.read import Reader
from redline.tune.imports import import_files

DATA = Path(__file__).parents[1] / "analyse/peers/data"


Kept = tuple[Path, str, str]
"""Results file, run of vLLM, run of GuideLLM."""


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    db = tmp_path_factory.mktemp("imported") / "r.db"
    vllm, guidellm = import_files([DATA / "vllm-0.30.0.json", DATA / "guidellm-0.8.1.json"], db=db)
    return db, vllm, guidellm


def test_run_says_that_it_is_imported(kept: Kept) -> None:
    db, vllm, guidellm = kept
    with Reader.open(db) as reader:
        run = reader.run(guidellm)
        report = load_report(reader, [vllm, guidellm])
    assert run.status == "imported"
    assert run.engines == ["guidellm 0.8.1"]
    engines = [engine for model in report.comparison.models for engine in model.points[0].engines]
    reasons = [reason for engine in engines for reason in engine.verdict.reasons]
    assert "imported: measured by guidellm 0.8.1, the client's error is unknown" in reasons
    assert any(section.key == "imported" for section in report.sections)


def test_what_the_file_does_not_hold_is_no_number(kept: Kept) -> None:
    db, _, guidellm = kept
    with Reader.open(db) as reader:
        (engine,) = load_report(reader, [guidellm]).models[0].engines
        (measured,) = next(iter(engine.points.values()))
    assert math.isnan(measured.summary.value("itl_ms.p99"))
    assert measured.summary.value("tpot_ms.p50") == pytest.approx(20, rel=0.02)


def test_as_another_tool(kept: Kept) -> None:
    db, vllm, guidellm = kept
    with Reader.open(db) as reader:
        found = as_dict(peer_points(reader, [vllm], "vllm"))
        with pytest.raises(UsageError, match="does not know the numbers of 'vlm'"):
            peer_points(reader, [guidellm], "vlm")
    assert found["points"][0]["result"]["mean_ttft_ms"] == pytest.approx(408.787, abs=0.01)
    assert "vllm/ttft_ms@0.30" in found["definitions"]


def test_one_bad_file_imports_nothing(tmp_path: Path) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text("{}")
    with pytest.raises(UsageError):
        import_files([DATA / "vllm-0.30.0.json", bad], db=tmp_path / "r.db")
    assert not (tmp_path / "r.db").exists()
