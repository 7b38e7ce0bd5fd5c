from __future__ import annotations

import builtins
import sqlite3
import xml.etree.ElementTree as ET
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from redline.errors import EnvironmentFault
from redline.report import palette
from redline.report.assemble import load_report
from redline.report.charts import Chart, available, charts, write_charts
from redline.report.model import Report
from redline.store.read import Reader
from tests.report.stored import FAST, SLOW, Engine, write_run

KINDS = {
    "throughput", "ttft", "itl", "e2e", "trade-off", "ttft-distribution", "itl-distribution", "e2e-distribution",
    "ttft-timeline", "itl-timeline", "tokens-timeline", "startup", "memory",
}  # fmt: skip


@pytest.fixture(scope="module")
def drawn(plain: Report) -> dict[str, Chart]:
    return {chart.kind: chart for chart in charts(plain)}


def stored_report(path: Path, *engines: Engine, **plan: Any) -> Report:
    write_run(path, engines, **plan)
    with Reader.open(path) as reader:
        return load_report(reader)


def test_all_charts_are_there_and_are_svg(drawn: dict[str, Chart]) -> None:
    assert set(drawn) == KINDS
    for chart in drawn.values():
        root = ET.fromstring(chart.svg)
        assert root.tag.endswith("svg")
        texts = "".join(root.itertext())
        assert chart.title in texts
        assert chart.alt


def test_every_chart_is_vega_lite_by_its_schema(drawn: dict[str, Chart], hard_drawn: list[Chart]) -> None:
    import altair
    import jsonschema  # type: ignore[import-untyped]

    schema = jsonschema.Draft7Validator(altair.load_schema())
    every = {chart.kind: chart for chart in hard_drawn} | drawn
    assert [chart.kind for chart in every.values() if not schema.is_valid(chart.spec)] == []
    assert not schema.is_valid({**drawn["throughput"].spec, "padding": "wide"})


def test_an_slo_brings_goodput_and_models_prefix_their_charts(hard_drawn: list[Chart]) -> None:
    made = hard_drawn
    assert {chart.name for chart in made if chart.kind == "goodput"} == {"target-goodput", "draft-goodput"}
    assert len({chart.name for chart in made}) == len(made)


def test_the_files(plain: Report, tmp_path: Path, drawn: dict[str, Chart]) -> None:
    few = [drawn["throughput"], drawn["memory"]]
    written = write_charts(plain, tmp_path / "charts", drawn=few)
    assert [path.name for path in written] == ["throughput.svg", "throughput.png", "memory.svg", "memory.png"]
    assert written[1].read_bytes().startswith(b"\x89PNG\r\n")
    assert written[0].read_text().startswith("<svg")


def test_an_engine_has_one_colour_in_every_chart(drawn: dict[str, Chart]) -> None:
    for kind in ("throughput", "e2e", "ttft-distribution", "itl-timeline", "startup", "memory"):
        picture = drawn[kind].svg.lower()
        assert palette.engine(0) in picture
        assert palette.engine(1) in picture
        assert palette.engine(2) not in picture


def test_titles_carry_the_unit_and_the_finding(drawn: dict[str, Chart]) -> None:
    texts = "".join(ET.fromstring(drawn["throughput"].svg).itertext())
    assert "tok/s" in drawn["throughput"].title
    assert "vllm: " in texts
    assert "at 16 clients" in texts
    assert "× transformers" in texts


def test_marks_say_what_they_are(drawn: dict[str, Chart]) -> None:
    assert 'aria-label="vllm at 16 clients: output throughput ' in drawn["throughput"].svg
    assert 'aria-label="vllm: load weights 3.10 s"' in drawn["startup"].svg


def test_failed_points_are_marked(tmp_path: Path) -> None:
    report = stored_report(tmp_path / "r.db", SLOW, Engine("bad", fail=0.4), clients=(1, 4), seconds=2.0)
    made = {chart.kind: chart for chart in charts(report)}
    texts = "".join(ET.fromstring(made["throughput"].svg).itertext())
    assert "×: not to be believed" in texts
    assert texts.count("×") > texts.count("×: not")
    assert "∞" in "".join(ET.fromstring(made["e2e"].svg).itertext())


@pytest.mark.parametrize(
    ("engines", "plan"),
    [
        ((SLOW,), {"clients": (4,)}),  # one engine, one load point
        ((SLOW, FAST), {"clients": (1, 2)}),
        ((SLOW, Engine("spec", per_chunk=4)), {"clients": (1, 4, 8)}),  # gaps of 0
        ((Engine("dead", fail=1.0),), {"clients": (2,)}),  # nothing finished
        ((SLOW,), {"rate": (1.0, 3.0, 9.0)}),
        ((replace(SLOW, name="a:b/c[d].e\\f'g"), replace(FAST, name='"quoted"')), {"clients": (1,)}),
        ((SLOW, Engine("gone", skipped="skipped: no")), {"clients": (1, 2)}),
        ((Engine("gone", skipped="skipped: no"),), {"clients": (1,)}),
        ((replace(FAST, noise=0.0),), {"clients": (1, 2)}),
    ],
)
def test_odd_reports_are_drawn(tmp_path: Path, engines: tuple[Engine, ...], plan: dict[str, Any]) -> None:
    for chart in charts(stored_report(tmp_path / "r.db", *engines, seconds=1.0, **plan)):
        ET.fromstring(chart.svg)


def test_the_number_of_marks_is_bounded(tmp_path: Path) -> None:
    report = stored_report(tmp_path / "r.db", FAST, clients=tuple(range(1, 13)), seconds=1.0)
    made = {chart.kind: chart for chart in charts(report)}
    assert "6 of 12 load points shown" in "".join(ET.fromstring(made["itl-timeline"].svg).itertext())
    assert len(made["itl-distribution"].svg) < 200_000
    assert len(made["ttft-timeline"].svg) < 200_000


def test_without_the_extra_the_fix_is_named(plain: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def lacking(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "vl_convert":
            raise ModuleNotFoundError("No module named 'vl_convert'", name="vl_convert")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", lacking)
    assert not available()
    with pytest.raises(EnvironmentFault) as caught:
        charts(plain)
    assert caught.value.fix == "pip install 'redline[charts]'"
    assert "vl_convert" in caught.value.why


def test_no_chart_of_what_nothing_was_measured_of(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    write_run(path, (FAST,), clients=(1, 4), seconds=2.0)
    with closing(sqlite3.connect(path)) as db, db:  # answers of a single token
        db.execute(
            """UPDATE request SET output_tokens = 1, chunks = 1, last_chunk_ns = first_chunk_ns,
            chunk_ns = substr(chunk_ns, 1, 9), chunk_tokens = x'00010000000100000000000000'"""
        )
    with Reader.open(path) as reader:
        kinds = {chart.kind for chart in charts(load_report(reader))}
    assert {"throughput", "ttft", "ttft-distribution", "tokens-timeline"} <= kinds
    assert not kinds & {"itl", "itl-distribution", "itl-timeline", "trade-off"}


def test_charts_of_one_of_several_repeats_say_so(drawn: dict[str, Chart], hard_drawn: list[Chart]) -> None:
    said = "the first of several measurements"
    kinds = ("ttft-distribution", "tokens-timeline")
    assert all(said in str(chart.spec["title"]) for chart in hard_drawn if chart.kind in kinds)
    assert not any(said in str(drawn[kind].spec["title"]) for kind in kinds)
