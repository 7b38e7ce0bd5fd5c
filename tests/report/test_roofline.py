"""The roofline of a stored run: with the card's ceilings, and without."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import orjson
import pytest

from redline.analyse.roofline import Precision
from redline.report.assemble import load_report
from redline.report.charts import charts
from redline.report.draw_roofline import Dot, roofline
from redline.report.model import Report
from redline.report.roofline import NOT_MEASURED, ceilings_lines
from redline.report.section import Section
from redline.store.ceilings import Ceilings, keep
from redline.store.read import Reader
from tests.analyse.test_roofline import LLAMA
from tests.report.stored import BOX, FAST, write_run

CARD = "AMD EPYC 9654 × 2"
FOUND = Ceilings(CARD, "", "2.13.0", 40e9, 30e9, {"fp32": 2e11, "bf16": 4e11}, {"read": 0.03, "copy": 0.01})


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def report(folder: Path, model: str = "bundled:tiny", **box: Any) -> Report:
    path = folder / "r.db"
    before = dict(BOX)
    BOX.update(box)
    try:
        write_run(path, (FAST,), models=(model,), clients=(1, 8), seconds=2.0)
    finally:
        BOX.clear()
        BOX.update(before)
    with Reader.open(path) as reader:
        return load_report(reader)


def section(found: Report) -> Section | None:
    return next((one for one in found.sections if one.key == "roofline"), None)


def test_without_ceilings_it_says_how_to_get_them(tmp_path: Path) -> None:
    made = section(report(tmp_path))
    assert made is not None
    assert {row[-1] for row in made.rows} == {NOT_MEASURED}
    assert "redline node ceilings" in NOT_MEASURED
    assert any(NOT_MEASURED in note for note in made.notes)


def test_with_ceilings_of_the_card(tmp_path: Path) -> None:
    keep(FOUND)
    found = report(tmp_path)
    made = section(found)
    assert made is not None
    assert [row[1] for row in made.rows] == ["1 client", "8 clients"]
    floor, step, share = (float(made.rows[0][place].rstrip("%")) for place in (5, 4, 6))
    assert floor / step == pytest.approx(share / 100, abs=0.02)
    assert float(made.rows[1][2]) > 3 * float(made.rows[0][2])  # sequences that decode at once
    assert any("compute-bound from batch" in note for note in made.notes)
    assert "roofline" in {chart.kind for chart in charts(found)}


def test_ceilings_that_were_known_when_it_ran_win(tmp_path: Path) -> None:
    keep(FOUND)
    told = {**FOUND.as_dict(), "read": 80e9}
    fast, slow = section(report(tmp_path, ceilings=told)), None
    (tmp_path / "b").mkdir()
    slow = section(report(tmp_path / "b"))
    assert fast is not None
    assert slow is not None
    assert float(fast.rows[0][5]) < float(slow.rows[0][5])


def test_a_model_that_is_not_here_has_no_roofline(tmp_path: Path) -> None:
    assert section(report(tmp_path, model="bundled:target")) is None


def test_the_lines_of_the_command() -> None:
    text = "\n".join(ceilings_lines(FOUND))
    assert CARD in text
    assert "40.0 GB/s" in text.replace("    ", " ").replace("  ", " ")
    assert "ridge bf16" in text
    assert "measure again" not in text
    busy = Ceilings(CARD, "", "2", 1.0, 1.0, {"bf16": 1.0}, {"read": 0.35})
    assert "measure again when idle" in "\n".join(ceilings_lines(busy))


def test_cards_of_several_kinds_are_said(tmp_path: Path) -> None:
    gpu = {"driver": "580", "devices": [{"name": "NVIDIA H200"}, {"name": "NVIDIA L4"}]}
    made = section(report(tmp_path, gpu=gpu))
    assert made is not None
    assert any("several kinds (NVIDIA H200, NVIDIA L4)" in note for note in made.notes)


def test_a_dot_of_several_cards_lies_under_the_roof_of_one() -> None:
    found = Ceilings("NVIDIA H200", "", "2.13.0", 4e12, 3e12, {"fp8": 1.979e15})
    heights = []
    for cards in (1, 4):
        drawing = roofline(LLAMA, Precision(), found, "fp8", [Dot("a", "decode", 1024.0, 64.0, 1e-3, cards=cards)])
        assert drawing is not None
        assert "1,979 TFLOP/s" in drawing.notes[0]
        (text,) = {text for text in re.findall(r"\[\{[^]]*\}\]", str(drawing.spec())) if "phase" in text}
        (row,) = orjson.loads(text)
        assert row["text"] == "1,024 × 64"
        heights.append(row["tflops"])
    assert heights[0] == pytest.approx(4 * heights[1])
