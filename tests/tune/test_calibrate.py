"""The client's own error, learnt in the run: a planted fault of the client shows where it must, and only there."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from redline.analyse.calibration import Truthful, client_error
from redline.load.frames import Plant
from redline.report.assemble import load_report
from redline.spec.load import LoadPoint
from redline.store.read import Reader
from redline.tune.calibrate import Calibrator
from redline.tune.compare import compare
from tests.load.rings import needs_ring
from tests.tune.test_search import experiment

pytestmark = pytest.mark.usefixtures("paced")

POINT = LoadPoint("closed", 20)


def calibrated(stamps: str, plant: Plant | None = None, **values: Any) -> dict[str, Any]:
    plan = experiment(concurrency=[20], calibrate=1.5, stamps=stamps, output_tokens=64, **values)
    return Calibrator(plan, plant=plant or Plant())._calibrate(POINT, 10.0)


@needs_ring
def test_a_planted_stall_shows_in_user_space_and_leaves_the_packet_tier_unmoved() -> None:
    """5 ms of every 15: no gap of 10 ms comes out right in user space."""
    stall = Plant(stall_every_ms=10.0, stall_ms=5.0)
    user, user_stalled = calibrated("user"), calibrated("user", stall)
    packet, packet_stalled = calibrated("packet"), calibrated("packet", stall)
    assert (user["stamp"], packet["stamp"]) == ("user", "packet")
    assert min(user["gaps"], packet_stalled["gaps"]) > 300
    assert user_stalled["itl_error_p99_ms"] > 3.0
    assert user_stalled["itl_error_p50_ms"] > 4 * user["itl_error_p50_ms"]
    assert packet_stalled["itl_error_p50_ms"] < user_stalled["itl_error_p50_ms"] / 10
    assert packet_stalled["itl_error_p99_ms"] < user_stalled["itl_error_p99_ms"] / 4
    assert packet_stalled["user_space_late_ms_p99"] > 3.0, "what a user-space client would have been off by is said"


def test_every_point_of_a_run_carries_it(tmp_path: Path) -> None:
    plan = experiment(flags={"ttft-ms": 20, "itl-ms": 5}, concurrency=[2], calibrate=0.5, repeats=2)
    outcome = compare(plan, db=tmp_path / "r.db")
    with Reader.open(tmp_path / "r.db") as reader:
        points = [point for trial in reader.run(outcome.run_id).trials for point in trial.points]
        report = load_report(reader, [outcome.run_id])
    assert len(points) == 2
    for point in points:
        known = point.outcome["calibration"]
        assert known["requests"] > 0
        assert math.isfinite(known["ttft_bias_ms"])
        assert known["sustains_chunks_per_s"] > 100
    [section] = [section for section in report.sections if section.key == "client"]
    assert len(section.rows) == 2
    assert all("ms" in row[3] for row in section.rows)


def test_a_faster_server_is_calibrated_again_at_its_own_rate() -> None:
    calibrator = Calibrator(experiment(concurrency=[4], calibrate=0.6, output_tokens=64))
    point = LoadPoint("closed", 4)
    first = calibrator.before(point)
    assert calibrator.after(point, first["chunks_per_s"]) is first
    again = calibrator.after(point, 4 * first["chunks_per_s"])
    assert again["after"]
    assert again["chunks_per_s"] > 1.5 * first["chunks_per_s"]


@pytest.mark.parametrize(
    ("api", "changes"), [("responses", {}), ("embeddings", {"embedding_batch": 2}), ("chat", {"stream": False})]
)
def test_the_endpoint_that_is_measured_is_the_one_that_is_replayed(api: str, changes: dict[str, Any]) -> None:
    """Answers in one piece have no gaps; the time to the whole answer is held against the truth instead."""
    calibrator = Calibrator(experiment(concurrency=[4], calibrate=0.6, output_tokens=8, api=api, **changes))
    said = calibrator.before(LoadPoint("closed", 4))
    assert "failed" not in said
    streamed = api == "responses"
    assert (said["api"], said["streamed"]) == (api, streamed)
    assert said["requests"] >= 4
    assert (said["gaps"] > 0) == streamed
    # a bias of the size of the answer itself would mean that another instant was taken for its end
    assert -1.0 < said["ttft_bias_ms"] < 25.0
    again = calibrator.after(LoadPoint("closed", 4), 4 * said["chunks_per_s"])
    assert again["chunks_per_s"] > 1.5 * said["chunks_per_s"]


def test_off_means_off() -> None:
    calibrator = Calibrator(experiment(concurrency=[4], calibrate=0))
    assert calibrator.before(POINT) == {"off": True}
    assert calibrator.after(POINT, 1e6) == {"off": True}


def test_errors_by_hand() -> None:
    rows = [
        Truthful(51.0, 50.0, np.array([10.0, 12.0]), np.array([10.0, 10.0])),
        Truthful(50.0, 50.0, np.array([10.0]), np.array([10.0])),
    ]
    found = client_error(rows)
    assert (found.requests, found.gaps) == (2, 3)
    assert found.ttft_bias_ms == pytest.approx(0.5)
    assert found.ttft_error_p99_ms == pytest.approx(1.0)
    assert found.ttft_p99_off == pytest.approx(0.02)
    assert found.itl_bias_ms == pytest.approx(2 / 3)
    assert found.itl_p99_off == pytest.approx(0.2)
    assert math.isnan(client_error([]).itl_bias_ms)
