from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from redline.report.assemble import load_report
from redline.report.html import render_html
from redline.report.markdown import render_markdown
from redline.report.model import Report
from redline.store.read import Reader
from tests.report.stored import FAST, SLOW, write_run


@pytest.mark.parametrize("which", ["plain", "hard"])
def test_tables_have_as_many_cells_as_heads(which: str, request: pytest.FixtureRequest) -> None:
    text = render_markdown(request.getfixturevalue(which))
    width = 0
    rows = 0
    for line in text.splitlines():
        if not line.startswith("|"):
            width = 0
            continue
        cells = len(re.split(r"(?<!\\)\|", line)) - 2
        width = width or cells
        assert cells == width, line
        rows += 1
    assert rows > 20


def test_everything_that_belongs_in_a_report(plain: Report) -> None:
    text = render_markdown(plain, ["charts/throughput.svg"])
    for part in (
        "# transformers vs vllm on target", "## target", "## Evidence", "## Definitions", "## Engines", "## Run ",
        "vllm delivers", "Ratio to transformers", "started once", "`ttft_ms/intended@1`", "block_size=16",
        "redline compare -f experiment.yaml", "![throughput](charts/throughput.svg)", "cpu.model: AMD EPYC 9654",
        "concurrency: [1, 4, 16]", "SELECT", "load weights 3.10 s", "sha256:0f1e",
    ):  # fmt: skip
        assert part in text


def test_a_percentile_of_too_few_requests_is_marked_where_it_stands(plain: Report) -> None:
    [model] = plain.models
    text = render_markdown(plain)
    heads = next(line for line in text.splitlines() if line.startswith("| load")).split("|")
    where = next(i for i, head in enumerate(heads) if "TTFT ms p99" in head)
    rows = [line.split("|") for line in text.splitlines() if re.match(r"\| \d+ client", line)][
        : sum(len(point.engines) for point in model.comparison.points)
    ]
    counted = [
        min(one.summary.counts["counted"] for one in model.engine(found.label).points[point.load])
        for point in model.comparison.points
        for found in point.engines
    ]
    assert ["†" in row[where] for row in rows] == [n < 100 for n in counted]
    assert ("it is their maximum" in text) == (min(counted) < 100)


def test_what_is_not_there_is_said(hard: Report) -> None:
    text = render_markdown(hard)
    assert "was interrupted" in text
    assert "**Not measured: cut at 6 clients**" in text
    assert "**skipped** trt: no NVIDIA GPU on this box (rent one)" in text
    assert "**failed** vllm-big" in text


def test_a_name_brings_no_html_of_its_own(hard: Report) -> None:
    text = render_markdown(hard)
    assert "&lt;b>spec" in text
    assert "<b>" not in re.sub(r"```.*?```", "", text, flags=re.DOTALL)


def test_what_is_recorded_cannot_end_its_block(plain: Report) -> None:
    run = replace(plain.runs[0], yaml="workload:\n  system: |\n    ```\n    <b>\n    ```\n")
    text = render_markdown(replace(plain, runs=(run,)))
    block = text.partition("````yaml\n")[2].partition("\n````\n")[0]
    assert block == run.yaml.rstrip()


@pytest.mark.parametrize(
    ("status", "argv", "again"),
    [
        ("done", ("redline", "bench", "http://127.0.0.1:1"), True),
        ("imported", ("redline", "import", "vllm.json"), False),
        ("done", ("redline", "serve", "vllm"), False),
        ("done", ("redline", "node", "prove"), False),
    ],
)
def test_only_what_compare_measures_again_says_so(
    plain: Report, status: str, argv: tuple[str, ...], again: bool
) -> None:
    report = replace(plain, runs=(replace(plain.runs[0], status=status, argv=argv),))
    for text in (render_markdown(report), render_html(report, [])):
        assert ("redline compare -f experiment.yaml" in text) == again
        assert " ".join(argv) in text


def test_rounds_of_one_start_are_told_apart_and_are_no_starts(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    write_run(path, (SLOW, FAST), clients=(4,), seconds=2.0, repeats=3)
    with closing(sqlite3.connect(path)) as db, db:  # as an engine that stays up for all rounds is stored
        db.execute(
            """UPDATE point SET outcome = json_set(outcome, '$.round', (SELECT repeat FROM trial WHERE id = trial_id)),
            trial_id = (SELECT min(b.id) FROM trial a JOIN trial b ON a.engine = b.engine WHERE a.id = trial_id)"""
        )
        db.execute("DELETE FROM trial WHERE id NOT IN (SELECT trial_id FROM point)")
    with Reader.open(path) as reader:
        report = load_report(reader)
    for text in (render_markdown(report), render_html(report, [])):
        assert all(f", round {number}" in text for number in (1, 2, 3))
        assert ", repeat" not in text
        assert "Each engine was started once" in text
        assert "3 starts" not in text
