from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from redline.cli.compare import check_thresholds
from redline.errors import RedlineError, ThresholdMissed, ThresholdNotJudged
from redline.report.assemble import load_report
from redline.report.model import Report
from redline.store.read import Reader
from tests.report.stored import FAST, SLOW, write_run

BUSY = {"client_cpu_s": 1000.0}
"""A load generator that says so of itself keeps its core full: the point is client-bound."""


def measured(folder: Path, *thresholds: str, **outcome: Any) -> Report:
    engine = replace(FAST, outcome=outcome)
    run_id = write_run(folder / "r.db", [engine], clients=[4], seconds=2.0, thresholds=list(thresholds))
    with Reader.open(folder / "r.db") as reader:
        return load_report(reader, [run_id])


def refused(report: Report) -> RedlineError:
    with pytest.raises(RedlineError) as caught:
        check_thresholds(report)
    return caught.value


def test_all_met_or_too_close_to_tell_lets_the_job_go_on(tmp_path: Path) -> None:
    middle = measured(tmp_path).models[0].comparison.points[0].engines[0].numbers["ttft_ms.p50"].value
    check_thresholds(measured(tmp_path, "ttft_ms.p50 < 5000", "e2e_ms.p50 > 4 @ 4 clients", f"ttft_ms.p50 < {middle}"))


def test_one_that_is_missed_ends_with_five_whatever_else_is_not_judged(tmp_path: Path) -> None:
    error = refused(measured(tmp_path, "ttft_ms.p50 < 5000 @ 9 clients", "e2e_ms.p50 < 1"))
    assert (type(error), error.exit_code) == (ThresholdMissed, 5)
    assert "threshold missed: e2e_ms.p50 < 1 (vllm at 4 clients: " in error.what


@pytest.mark.parametrize(
    ("text", "outcome", "why"),
    [
        ("e2e_ms.p50 < 1", BUSY, "the point is client-bound: the load generator kept its core 100% busy"),
        ("e2e_ms.p50 < 5000", BUSY, "the point is client-bound: the load generator kept its core 100% busy"),
        ("e2e_ms.p50 < 5000 @ 9 clients", {}, "nothing that was measured fits it"),
        ("goodput_per_s > 1", {}, "it needs an SLO, and none is set"),
    ],
)
def test_what_cannot_be_judged_is_not_met(tmp_path: Path, text: str, outcome: dict[str, float], why: str) -> None:
    """A job that goes on because nothing could be said would fool whoever reads its colour."""
    error = refused(measured(tmp_path, "ttft_ms.p50 < 5000 on vllm", text, **outcome))
    assert (type(error), error.exit_code) == (ThresholdNotJudged, 6)
    assert error.why == why
    assert "threshold not judged: " in error.what


def test_failures_are_missed_even_where_they_make_the_point_invalid(tmp_path: Path) -> None:
    write_run(tmp_path / "r.db", [replace(SLOW, fail=0.5)], clients=[4], seconds=2.0, thresholds=["failed_share < 5%"])
    with Reader.open(tmp_path / "r.db") as reader:
        report = load_report(reader)
    assert report.models[0].comparison.points[0].engines[0].verdict.state == "invalid"
    assert isinstance(refused(report), ThresholdMissed)
