"""Files of other tools: what is read from them, and what is said when they are broken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redline.errors import UsageError
from redline.load.record import Status
from redline.store.imports.files import read_file
from redline.store.imports.found import ORIGIN_NS, spread

DATA = Path(__file__).parents[2] / "analyse/peers/data"
FILES = ("vllm-0.30.0.json", "guidellm-0.8.1.json", "aiperf", "sglang-0.5.23.jsonl", "inference-perf")


@pytest.mark.parametrize("name", FILES)
def test_every_format_is_found_by_itself(name: str) -> None:
    (point,) = read_file(DATA / name)
    assert point.tool in name
    assert len(point.records) == 40
    assert min(record.sent_ns for record in point.records) == ORIGIN_NS
    for record in point.records:
        assert record.status is Status.OK
        assert sum(record.chunk_tokens) == record.output_tokens == 40
        assert record.sent_ns < record.chunk_ns[0] <= record.chunk_ns[-1] <= record.finished_ns


@pytest.mark.parametrize(
    ("name", "kind", "value"),
    [(FILES[0], "poisson", 10), (FILES[1], "poisson", 10), (FILES[2], "poisson", 10), (FILES[3], "poisson", 10)],
)
def test_load_that_was_asked_for(name: str, kind: str, value: float) -> None:
    point = read_file(DATA / name)[0]
    assert (point.load.kind, point.load.value) == (kind, value)


def test_guidellms_throughput_without_a_limit_is_not_its_synchronous_client(tmp_path: Path) -> None:
    whole = json.loads((DATA / FILES[1]).read_text())
    (one,) = whole["benchmarks"]
    kinds = ({"type_": "synchronous"}, {"type_": "throughput", "max_concurrency": None})
    sweep = [{**one, "config": {**one["config"], "strategy": kind}} for kind in kinds]
    points = read_file(_write(tmp_path, {**whole, "benchmarks": sweep}))
    assert [(point.load.kind, point.load.value) for point in points] == [("closed", 1.0), ("closed", 40.0)]


def test_one_line_of_aiperf_says_where_the_rest_is(tmp_path: Path) -> None:
    lonely = tmp_path / "profile_export.jsonl"
    lonely.write_text((DATA / "aiperf/profile_export.jsonl").read_text())
    with pytest.raises(UsageError, match=r"profile_export_aiperf\.json is not beside it"):
        read_file(lonely)


def test_vllm_without_details_is_a_summary(tmp_path: Path) -> None:
    whole = _vllm()
    for key in ("ttfts", "itls", "input_lens", "output_lens", "start_times", "errors", "latencies"):
        whole.pop(key, None)
    (point,) = read_file(_write(tmp_path, whole))
    assert point.records == []
    assert "--save-detailed" in point.notes[0]
    assert point.summary["mean_ttft_ms"] == pytest.approx(408.79, abs=0.01)


def test_failed_requests_stay_failures(tmp_path: Path) -> None:
    whole = _vllm()
    whole["errors"][3], whole["output_lens"][3] = "Traceback: ConnectionResetError", 0
    (point,) = read_file(_write(tmp_path, whole))
    assert point.records[3].failed
    assert "ConnectionReset" in point.records[3].error


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ttfts": ["soon"]}, r"vllm\.json: ttfts\[0\] is no number: 'soon'"),
        ({"itls": 3}, r"vllm\.json: itls is no list"),
        ({"output_lens": []}, r"vllm\.json: output_lens has no 0"),
    ],
)
def test_errors_name_the_field(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read_file(_write(tmp_path, _vllm() | change))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("{", r":1 is no JSON"),
        ('{"a": 1}', "no tool that redline knows"),
        ('{"backend": 1}\n{"a":', r":2 is no JSON"),
        ("[]", "no tool that redline knows"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "x.json"
    file.write_text(text)
    with pytest.raises(UsageError, match=said):
        read_file(file)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        read_file(tmp_path / "none.json")


@given(st.integers(0, 5000), st.integers(1, 600))
def test_spread_keeps_the_sum(tokens: int, chunks: int) -> None:
    counts = spread(tokens, chunks)
    assert (sum(counts), len(counts)) == (tokens, chunks)
    assert max(counts) - min(counts) <= 1


def _vllm() -> dict[str, Any]:
    whole: dict[str, Any] = json.loads((DATA / FILES[0]).read_text())
    return whole


def _write(folder: Path, whole: dict[str, Any]) -> Path:
    file = folder / "vllm.json"
    file.write_text(json.dumps(whole))
    return file
