from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from redline.report.assemble import load_report
from redline.report.model import Report
from redline.report.table import print_report
from redline.store.read import Reader
from tests.report.stored import FAST, SLOW, write_run


def printed(report: Report, width: int) -> str:
    file = io.StringIO()
    print_report(report, Console(file=file, width=width))
    return file.getvalue()


@pytest.mark.parametrize("which", ["plain", "hard"])
@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_nothing_is_wider_than_the_terminal(which: str, width: int, request: pytest.FixtureRequest) -> None:
    text = printed(request.getfixturevalue(which), width)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width


@pytest.mark.parametrize("width", [80, 100, 120])
def test_no_number_is_cut(plain: Report, width: int) -> None:
    assert "…" not in printed(plain, width)


def test_engines_are_rows_at_a_hundred_columns(plain: Report) -> None:
    lines = printed(plain, 100).splitlines()
    row = next(line for line in lines if line.lstrip().startswith("16 "))
    found = plain.comparison.models[0].points[-1].engines[0]
    assert "transformers" in row
    assert f"{found.value('output_tokens_per_s'):,.0f}" in row
    assert any("TTFT ms" in line and "ITL ms" in line for line in lines)
    assert any("÷ transformers" in line for line in lines)


def test_engines_are_columns_on_a_narrow_terminal(plain: Report) -> None:
    lines = printed(plain, 80).splitlines()
    head = next(line for line in lines if "16 clients" in line and "transformers" in line)
    assert "vllm" in head
    assert any(line.startswith("TTFT ms p99") for line in lines)
    assert any(line.startswith("output tok/s") for line in lines)


def test_verdicts_and_claims_are_said(plain: Report) -> None:
    text = " ".join(printed(plain, 120).split())
    assert "! degraded" in text
    assert "is their maximum (it needs 100)" in text
    assert "vllm delivers" in text
    assert "started once" in text


def test_what_is_not_there_is_said(hard: Report) -> None:
    text = " ".join(printed(hard, 120).split())
    assert "was interrupted" in text
    assert "not measured cut at 6 clients" in text
    assert "skipped trt: no NVIDIA GPU on this box (rent one)" in text
    assert "failed vllm-big: vllm-big died while starting CUDA out of memory" in text
    assert "∞" in text
    assert "<b>spec</b>" in text


def test_markup_in_a_name_is_only_text(tmp_path: Path) -> None:
    from dataclasses import replace

    path = tmp_path / "r.db"
    write_run(path, (replace(SLOW, name="[red]a[/]"), replace(FAST, name="[bold")), clients=(2,), seconds=1.0)
    with Reader.open(path) as reader:
        text = printed(load_report(reader), 120)
    assert "[red]a[/]" in text
    assert "[bold" in text


def test_an_open_loop_is_headed_by_its_rate(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    write_run(path, rate=(2.0, 4.0), seconds=2.0)
    with Reader.open(path) as reader:
        report = load_report(reader)
    text = printed(report, 120)
    assert any(line.lstrip().startswith("req/s  engine") for line in text.splitlines())


def test_loads_of_two_kinds_each_say_their_unit(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    runs = [write_run(path, (FAST,), seconds=2.0, clients=(4,)), write_run(path, (FAST,), seconds=2.0, rate=(4.0,))]
    with Reader.open(path) as reader:
        text = printed(load_report(reader, runs), 160)
    assert "4 clients  " in text
    assert "4 req/s poisson  " in text
