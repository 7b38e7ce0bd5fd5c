from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path

import pytest

from redline.errors import EnvironmentFault
from redline.report import html, palette
from redline.report.assemble import load_report
from redline.report.charts import Chart
from redline.report.html import render_html, themed
from redline.report.model import Report
from redline.store.read import Reader
from tests.report.stored import FAST, SLOW, write_run

VOID = {"meta", "br", "hr", "img", "input", "link"}


class Nesting(HTMLParser):
    """Every tag is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.ids += [value for name, value in attrs if name == "id" and value]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value for name, value in attrs if name == "id" and value]

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> without a beginning"
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def drawn(hard_drawn: list[Chart]) -> list[Chart]:
    return hard_drawn


@pytest.fixture(scope="module")
def page(hard: Report, drawn: list[Chart]) -> str:
    return render_html(hard, drawn)


def test_it_is_well_formed_and_every_id_is_one_of_a_kind(page: str) -> None:
    parser = Nesting()
    parser.feed(page)
    assert parser.open == []
    assert len(parser.ids) == len(set(parser.ids))


def test_it_needs_nothing_else(page: str) -> None:
    assert "default-src 'none'" in page
    assert len(page) < 3_000_000
    for reach in ("src=", "@import", "<link", "<iframe", "fetch(", "XMLHttpRequest"):
        assert reach not in page
    addresses = set(re.findall(r"https?://[^\s\"'<>)]+", page))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink", "http://host:port/v1"}, addresses


def test_names_are_escaped(page: str) -> None:
    assert "<b>spec" not in page
    assert "&lt;b&gt;spec" in page


def test_all_is_said(page: str) -> None:
    words = " ".join(re.sub(r"<[^>]+>", " ", page).split())
    for part in (
        "was interrupted", "cut at 6 clients", "no NVIDIA GPU on this box (rent one)", "CUDA out of memory",
        "delivers", "steady window", "connection reset by peer", "AMD EPYC 9654", "repeat 2", "slo_attainment",
        "SELECT CASE status", "prompts salted", "TTFT ≤ 100 ms", "load weights", "redline compare -f experiment.yaml",
    ):  # fmt: skip
        assert part in words, part


def test_every_chart_is_inline_and_follows_the_theme(page: str, drawn: list[Chart]) -> None:
    assert page.count("<svg") == len(drawn)
    pictures = "".join(re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL))
    for colour in (*palette.ENGINES, palette.TEXT, palette.MUTED, palette.LINE, palette.BACKGROUND):
        assert colour not in pictures.lower()
    assert "var(--e0)" in pictures
    assert "var(--ink)" in pictures


def test_without_the_charts_extra_there_are_tables_and_the_way_to_get_charts(
    plain: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(report: Report, svg: bool = False) -> list[Chart]:
        raise EnvironmentFault("no charts", why="altair is not installed", fix="pip install 'redline[charts]'")

    monkeypatch.setattr(html, "charts", missing)
    page = render_html(plain)
    assert "<svg" not in page
    assert "altair is not installed. pip install &#39;redline[charts]&#39; brings them." in page
    assert "vllm delivers" in page


def test_charts_beyond_the_limit_are_left_out_and_counted(
    plain: Report, monkeypatch: pytest.MonkeyPatch, drawn: list[Chart]
) -> None:
    monkeypatch.setattr(html, "MOST_CHART_BYTES", len(drawn[0].svg) * 3 // 2)
    page = render_html(plain, drawn[:4])
    assert page.count("<svg") < 4
    assert "of 4 charts are left out" in page


def test_a_report_of_nothing(plain: Report) -> None:
    from dataclasses import replace

    from redline.analyse.comparison import Comparison

    page = render_html(replace(plain, models=(), comparison=Comparison(()), colours={}), [])
    assert "nothing measured" in page


def test_themed_svg() -> None:
    picture = (
        '<?xml version="1.0"?><svg class="x" width="20" height="10" viewBox="0 0 20 10"><clipPath id="c"/>'
        '<g clip-path="url(#c)" fill="#0072B2" stroke="#dfe3e8"/></svg>'
    )
    assert themed(picture, "c3") == (
        '<svg class="x" style="max-width:20px" viewBox="0 0 20 10"><clipPath id="c3-c"/>'
        '<g clip-path="url(#c3-c)" fill="var(--e0)" stroke="var(--line)"/></svg>'
    )


def test_embeddings_are_told_by_their_input(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    write_run(path, (SLOW, FAST), clients=(4,), seconds=2.0)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(
            """UPDATE request SET finish_reason = 'embedding', output_tokens = 0, chunks = 0, first_chunk_ns = 0,
            last_chunk_ns = 0, chunk_ns = x'', chunk_tokens = x''"""
        )
    with Reader.open(path) as reader:
        page = render_html(load_report(reader), [])
    assert "input throughput at 4 clients" in page
    assert "output throughput" not in page
