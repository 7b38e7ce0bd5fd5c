from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from redline.report.assemble import load_report
from redline.report.model import Report
from redline.report.plain import as_dict
from redline.store.read import Reader
from tests.report.stored import FAST, write_run


def walk(value: Any) -> Any:
    yield value
    for entry in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from walk(entry)


@pytest.mark.parametrize("which", ["plain", "hard"])
def test_only_json_types_and_back_again(which: str, request: pytest.FixtureRequest) -> None:
    found = as_dict(request.getfixturevalue(which))
    assert all(entry is None or isinstance(entry, (dict, list, str, int, float, bool)) for entry in walk(found))
    assert orjson.loads(orjson.dumps(found)) == found  # no NaN, no infinity: orjson would have made them null


def test_numbers_are_where_a_script_looks(plain: Report) -> None:
    found = as_dict(plain)
    point = found["models"][0]["points"][-1]
    assert point["load"] == {"kind": "closed", "value": 16.0, "label": "16 clients"}
    ttft = point["engines"]["vllm"]["numbers"]["ttft_ms.p50"]
    assert ttft["unit"] == "ms"
    assert ttft["definition"] == "ttft_ms/intended@1"
    assert ttft["interval"][0] <= ttft["value"] <= ttft["interval"][1]
    assert ttft["interval"][2] == 0.95
    ratio = point["engines"]["vllm"]["ratios"]["output_tokens_per_s"]
    assert ratio["outcome"] == "better"
    assert point["engines"]["vllm"]["evidence"][0]["point"] > 0
    assert found["claims"][0]["engine"] == "vllm"
    assert found["runs"][0]["experiment"]["seed"] == 0
    assert found["definitions"]["ttft_ms/intended@1"]["better"] == "lower"


def test_infinity_is_the_word_inf(hard: Report) -> None:
    numbers = as_dict(hard)["models"][0]["points"][-1]["engines"]["<b>spec</b>"]["numbers"]
    assert numbers["e2e_ms.p99"]["value"] == "inf"


def test_engines_without_numbers_are_there(hard: Report) -> None:
    engines = {engine["label"]: engine for engine in as_dict(hard)["models"][0]["engines"]}
    assert engines["trt"]["status"] == "skipped"
    assert engines["vllm-big"]["status"] == "failed"
    assert "CUDA" in engines["vllm-big"]["error"]


def test_no_column_of_a_section_hides_another(tmp_path: Path) -> None:
    stage = {"label": "4 req/s", "from_s": 0.0, "until_s": 2.0, "open": True, "mean": 4.0}
    told = {"traffic": {"stages": [stage]}, "measured_from_ns": 1_000_000_000, "ended_ns": 3_000_000_000}
    write_run(tmp_path / "r.db", (replace(FAST, outcome=told),), clients=(4,), seconds=2.0)
    with Reader.open(tmp_path / "r.db") as reader:
        report = load_report(reader)
    for section in report.sections:
        assert len(set(section.heads)) == len(section.heads)
    (row,) = as_dict(report)["sections"]["stages"]["rows"]
    ttft, itl = (float(row[head].rstrip("†")) for head in ("TTFT ms p99", "ITL ms p99"))
    assert ttft > itl
