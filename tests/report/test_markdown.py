from __future__ import annotations

import re

import pytest

from redline.report.markdown import render_markdown
from redline.report.model import Report


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
