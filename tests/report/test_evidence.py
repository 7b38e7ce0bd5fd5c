from __future__ import annotations

import math
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from redline.report.assemble import load_report
from redline.report.evidence import box_line, box_rows, chunks_text, counts_text, proofs, window_text
from redline.report.model import Measured, Report
from redline.store.read import Reader
from redline.store.sql import query
from tests.report.stored import BOX, FAST, write_run


def measured(report: Report) -> list[Measured]:
    return [one for model in report.models for e in model.engines for found in e.points.values() for one in found]


@pytest.mark.parametrize("which", ["plain", "hard"])
def test_every_statement_gives_its_number_again(which: str, request: pytest.FixtureRequest) -> None:
    report: Report = request.getfixturevalue(which)
    checked = 0
    for one in measured(report):
        for proof in proofs(one):
            ((found,),) = query(proof.sql, Path(report.db))[1]
            assert found == pytest.approx(proof.value, rel=1e-9), proof
            checked += 1
    assert checked >= 6 * len(measured(report)) * 0.8


@pytest.mark.parametrize(
    "change",
    [
        "request_class = 'slow reader'",
        "first_chunk_ns = 0, last_chunk_ns = 0, chunks = 0, chunk_ns = x'', chunk_tokens = x'', output_tokens = 0",
    ],
    ids=["slow readers", "empty answers"],
)
def test_statements_count_the_requests_that_the_numbers_count(tmp_path: Path, change: str) -> None:
    path = tmp_path / "r.db"
    write_run(path, (FAST,), clients=(4,), seconds=2.0)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(f"UPDATE request SET {change} WHERE request_index % 3 = 1")
    with Reader.open(path) as reader:
        found = measured(load_report(reader))
    for proof in (proof for one in found for proof in proofs(one)):
        assert query(proof.sql, path)[1] == [(pytest.approx(proof.value, rel=1e-9),)], proof
    assert {proof.name for one in found for proof in proofs(one)} >= {"ttft_ms.p50", "e2e_ms.p99", "itl_ms.p50"}


def test_a_percentile_that_failures_occupy_is_infinite_in_sql_too(hard: Report) -> None:
    infinite = [
        (one, proof)
        for one in measured(hard)
        for proof in proofs(one)
        if proof.name == "e2e_ms.p99" and proof.value == math.inf
    ]
    assert infinite
    one, proof = infinite[0]
    assert query(proof.sql, Path(hard.db))[1] == [(math.inf,)]
    assert not any(proof.name.startswith("itl") for proof in proofs(one))  # failures owe gaps that no row holds


def test_counts_and_window_in_words(hard: Report) -> None:
    failing = next(one for one in measured(hard) if one.summary.counts["failed"])
    assert "reset" in counts_text(failing.summary)
    assert chunks_text(failing.summary) == "4 tokens: 100.0%"
    assert window_text(failing).startswith("0.00 s – ")


def test_the_box_in_rows() -> None:
    rows = dict(box_rows({**BOX, "list": [{"a": 1}, {"a": None}], "plain": ["x", "y"]}))
    assert rows["cpu.model"] == "AMD EPYC 9654"
    assert rows["gpu"] == "not read: no NVIDIA driver on this box"
    assert rows["memory.transparent_hugepages.enabled"] == "madvise"
    assert rows["redline.changed"] == "no"
    assert (rows["list.0.a"], rows["list.1.a"], rows["plain"]) == ("1", "–", "x, y")


@pytest.mark.parametrize(
    ("gpu", "text"),
    [
        ({"devices": [{"name": "NVIDIA H200"}, {"name": "NVIDIA H200"}]}, "2 × NVIDIA H200"),
        ({"skipped": "none"}, "no GPU"),
        (None, "no GPU"),
    ],
)
def test_the_box_in_a_line(gpu: object, text: str) -> None:
    line = box_line({**BOX, "gpu": gpu})
    assert line == f"2 cores AMD EPYC 9654 · 25 GB · {text} · Linux 6.18.44"
    assert box_line({}) == "box not known"  # of an import


def test_a_probe_that_failed_leaves_the_line_of_the_box() -> None:
    assert box_line({**BOX, "cpu": {"skipped": "the probe failed"}}) == "25 GB · no GPU · Linux 6.18.44"
    assert box_line({**BOX, "cpu": {"model": "odd"}}).startswith("odd · ")
