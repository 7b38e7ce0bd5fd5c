"""The section of the classes, from a run that is stored."""

from __future__ import annotations

import pytest

from redline.load.record import RequestRecord, TokenSource
from redline.report.assemble import load_report
from redline.report.columns import columns, slo_text
from redline.report.model import Report
from redline.report.plain import as_dict
from redline.spec.engine import EngineSpec
from redline.spec.experiment import Experiment
from redline.spec.load import LoadPoint, LoadSpec
from redline.spec.model import ModelSpec
from redline.spec.request_class import ClassSlo
from redline.spec.workload import ClassSpec, WorkloadSpec
from redline.store.read import Reader
from redline.store.store import Store

MS = 1_000_000


def record(number: int, name: str, ttft_ms: int) -> RequestRecord:
    start = (1000 + 20 * number) * MS
    times = [start + (ttft_ms + 5 * i) * MS for i in range(3)]
    return RequestRecord(
        number, start, sent_ns=start, first_byte_ns=times[0], finished_ns=times[-1], chunk_ns=times,
        chunk_tokens=[1, 1, 1], output_tokens=3, asked_output_tokens=3, prompt_tokens=9, asked_prompt_tokens=9,
        token_source=TokenSource.USAGE, finish_reason="length", request_class=name,
    )  # fmt: skip


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    path = tmp_path_factory.mktemp("classes") / "r.db"
    classes = [
        ClassSpec(name="chat", weight=3, slo=ClassSlo(ttft_ms=20)),
        ClassSpec(name="rag", slo=ClassSlo(ttft_ms=50, attainment=0.5)),
    ]
    spec = EngineSpec(kind="vllm")
    load = LoadSpec(concurrency=[4])
    experiment = Experiment(
        models=[ModelSpec(id="m")], engines=[spec], load=load, workload=WorkloadSpec(classes=classes)
    )
    with Store.open(path) as store:
        run = store.begin_run(experiment, {}, [])
        trial = store.begin_trial(run, model="m", spec=spec, repeat=0)
        point = store.begin_point(trial, LoadPoint("closed", 4))
        for i in range(400):
            store.add_request(point, record(i, "rag" if i % 4 == 3 else "chat", 60 if i % 4 == 3 else 10))
        store.end_point(
            point, measured_from_ns=1000 * MS, ended_ns=9100 * MS, stopped_by="requests", outcome={},
            verdict="valid", reasons=[],
        )  # fmt: skip
        store.end_trial(trial, "done", "", "")
        store.end_run(run, "done", "valid", [])
    with Reader.open(path) as reader:
        return load_report(reader, [run])


def test_each_class_has_its_row(report: Report) -> None:
    [section] = [section for section in report.sections if section.key == "classes"]
    assert section.brief
    assert [row[1:3] for row in section.rows] == [("chat", "300 (75%)"), ("rag", "100 (25%)")]
    kept = section.heads.index("kept SLO")
    assert [row[kept] for row in section.rows] == ["100.0% ✓", "0.0% ✗"]
    assert section.rows[1][section.heads.index("TTFT p50/p99")] == "60.0 / 60.0"
    assert section.notes[1] == "rag: TTFT ≤ 50.0 ms for 50% of the requests"


def test_a_promise_to_a_class_is_a_promise(report: Report) -> None:
    assert report.promised
    assert not report.slo
    assert "goodput_per_s" in [column.name for column in columns(report)]
    assert slo_text(report).startswith("chat: TTFT ≤ 20.0 ms for 95% of the requests; rag: ")
    point = report.models[0].comparison.points[0].engines[0]
    assert point.value("slo_attainment") == pytest.approx(0.75)


def test_it_is_in_the_json(report: Report) -> None:
    [evidence] = as_dict(report)["models"][0]["points"][0]["engines"]["vllm"]["evidence"]
    assert evidence["classes"]["rag"]["kept"] is False
    assert evidence["classes"]["rag"]["findings"]["ttft_ms.p50"]["value"] == 60
