"""What is shown of an explanation, of a run that is made up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import redline
from redline.errors import UsageError
from redline.load.record import RequestRecord, TokenSource
from redline.observe.event import Event
from redline.observe.sample import Sample
from redline.report.explain.draw import drawing
from redline.report.explain.text import as_dict, headline, html, markdown
from redline.spec.load import LoadPoint
from redline.store.store import Store
from tests.analyse.explain.streams import MS, requests
from tests.store.recorded import EXPERIMENT

PAUSES = [(2_000 * MS, 2_500 * MS), (7_300 * MS, 7_700 * MS), (9_100 * MS, 9_500 * MS), (15_600 * MS, 16_100 * MS)]
END = 20_000 * MS


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The engine was stopped in PAUSES; nobody measured anything else."""
    path = tmp_path_factory.mktemp("explain") / "r.db"
    with Store.open(path) as store:
        run = store.begin_run(EXPERIMENT, {}, [])
        trial = store.begin_trial(run, model="m", spec=EXPERIMENT.engines[0], repeat=0)
        point = store.begin_point(trial, LoadPoint("closed", 4))
        columns = requests(END / 1e9, pauses=PAUSES, jitter=0.2)
        for row, index in enumerate(columns.index.tolist()):
            store.add_request(point, _record(columns, row, index))
        for t_ns in range(0, END, 30 * MS):
            stopped = any(began < t_ns <= ended + 30 * MS for began, ended in PAUSES)
            store.add_samples(trial, [Sample(t_ns, "cause.stopped_share", float(stopped), "share")])
        store.add_events(
            trial, [Event("signal", began, began, "<b>me</b> (7)", "signal 19 to 8") for began, _ in PAUSES]
        )
        outcome = {"server": {"times": {"queue": {"mean_ms": 2.0}, "prefill": {"mean_ms": 20.0}}}}
        store.end_point(
            point, measured_from_ns=0, ended_ns=END, stopped_by="duration", outcome=outcome, verdict="valid", reasons=[]
        )
        few = store.begin_point(trial, LoadPoint("closed", 1))
        store.end_point(
            few, measured_from_ns=0, ended_ns=END, stopped_by="duration", outcome={}, verdict="invalid", reasons=[]
        )
        store.end_run(run, "done", "valid", [])
    return path


def _record(columns: object, row: int, index: int) -> RequestRecord:
    names = (
        "intended_ns",
        "sent_ns",
        "first_byte_ns",
        "answer_first_ns",
        "finished_ns",
        "prompt_tokens",
        "output_tokens",
    )
    times = columns.chunk_ns[columns.chunk_start[row] : columns.chunk_start[row + 1]].tolist()  # type: ignore[attr-defined]
    values = {name: int(getattr(columns, name)[row]) for name in names}
    return RequestRecord(
        index=index, chunk_ns=times, chunk_tokens=[1] * len(times), token_source=TokenSource.USAGE,
        **values,  # type: ignore[arg-type]
    )  # fmt: skip


def test_who_and_how_much_and_what_it_had_to_do_without(db: Path) -> None:
    found = redline.explain(db=db)
    (point,) = found.points
    assert found.skipped == ("vllm at 1 client: 0 measured requests ended, and it takes 5",)
    assert headline(point).startswith("vllm at 4 clients: ")
    assert "engine stopped or frozen 9" in headline(point)
    told = as_dict(found)["points"][0]
    first = told["causes"][0]
    assert (first["key"], first["verdict"]) == ("stopped", "blamed")
    assert first["who"] == [{"name": "<b>me</b> (7)", "share": 1.0}]
    assert told["unexplained"] == pytest.approx(1 - first["explains"])
    assert sum(told["shares"]["slow"].values()) == pytest.approx(1)
    assert told["basis"] == ["metrics"]
    assert any("without --explain" in note for note in told["notes"])
    assert len([stall for stall in told["stalls"] if stall["lasted_ms"] > 300]) == len(PAUSES)


def test_pages_hold_no_markup_of_others(db: Path) -> None:
    found = redline.explain(db=db)
    page = html(found, ("<svg></svg>",))
    assert "<b>me</b>" not in page
    assert "&lt;b&gt;me" in page
    assert "<figure><svg></svg></figure>" in page
    assert "| engine stopped or frozen |" in markdown(found, ("explain-1.svg",))


def test_the_chart_has_the_loss_and_a_lane_for_each_cause(db: Path) -> None:
    pytest.importorskip("altair", reason="redline[charts]")
    (point,) = redline.explain(db=db).points
    spec = drawing(point).spec()
    assert len(spec["vconcat"]) == 2
    assert "stopped (stopped)" in str(spec["vconcat"][1])


def test_a_run_of_which_nothing_can_be_said(db: Path) -> None:
    with pytest.raises(UsageError, match="nothing of run") as caught:
        redline.explain(db=db, point="1")
    assert "0 measured requests ended" in caught.value.why
    assert np.isfinite(redline.explain(db=db).points[0].explanation.lost).all()
