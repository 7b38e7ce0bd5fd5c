"""Samples of whole runs: with load points, and of an engine that is only served."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from redline.errors import UsageError
from redline.spec.engine import EngineSpec
from redline.spec.experiment import Experiment
from redline.spec.model import ModelSpec
from redline.store.read import Reader
from redline.store.store import Store
from redline.tune.compare import compare
from redline.tune.resume import resume
from redline.tune.sampled import SERVING_S, plan_for
from redline.tune.serve import recorded, serve
from tests.tune.test_compare import experiment

pytestmark = pytest.mark.usefixtures("paced")


def test_a_run_is_sampled_at_its_points_and_between_them(tmp_path: Path) -> None:
    outcome = compare(
        experiment({"itl-ms": 20.0, "prefix-cache": True}, requests=0, duration_s=1.2), db=tmp_path / "r.db"
    )
    with Reader.open(tmp_path / "r.db") as reader:
        (trial,) = reader.run(outcome.run_id).trials
        first, second = trial.points
        found = {one.name: one for one in reader.run_samples(outcome.run_id) if not one.labels}
        busy = found["host.cpu_busy_share"].t_ns
        for low, high in ((first.started_ns, first.ended_ns), (first.ended_ns, second.measured_from_ns)):
            assert ((busy > low) & (busy < high)).any()
        assert trial.ready_ns is not None
        assert trial.ended_ns is not None
        assert trial.ready_ns < busy[0] < busy[-1] < trial.ended_ns
        assert found["engine.processes"].peak >= 1
        assert found["client.in_flight"].peak == 4
        assert found["engine.rss_bytes"].peak > 1e6
        assert set(trial.telemetry["samplers"]) >= {"host"}
        assert trial.telemetry["samplers"]["host"]["ticks"] == len(found["engine.rss_bytes"].t_ns)


def test_an_engine_that_is_only_served(tmp_path: Path) -> None:
    model, spec = ModelSpec(id="paced"), EngineSpec(kind="paced")
    with serve(model, spec) as server, Store.open(tmp_path / "r.db") as store:
        asked = Experiment(models=[model], engines=[spec])
        with recorded(server, asked, store) as (run_id, _):
            assert store.run(run_id).status == "running"
            time.sleep(1.2)
        run = store.run(run_id)
        assert (run.status, run.served, run.points) == ("done", True, 0)
        assert store.samples(run.trials[0].id, "engine.rss_bytes")
        assert run.trials[0].telemetry["samplers"]["host"]["interval_s"] == SERVING_S
    with pytest.raises(UsageError, match="no load points to go on with"):
        resume(run_id, db=tmp_path / "r.db")


def test_a_served_engine_that_fails_is_a_failed_run(tmp_path: Path) -> None:
    model, spec = ModelSpec(id="paced"), EngineSpec(kind="paced")
    with serve(model, spec) as server, Store.open(tmp_path / "r.db") as store:
        with pytest.raises(ZeroDivisionError), recorded(server, Experiment(models=[model], engines=[spec]), store):
            raise ZeroDivisionError
        assert store.run("last").status == "failed"


def test_a_key_for_the_server_goes_to_its_metrics_and_the_servers_processes_are_found() -> None:
    from redline.load.paced.pace import Pace
    from redline.load.paced.server import PacedServer

    os.environ["A_KEY"] = "k"
    with PacedServer(Pace(metrics=True)) as server:
        assert server.process is not None
        plan = plan_for(server.endpoint, EngineSpec(kind="url", url=server.base_url, api_key_env="A_KEY"))
        assert server.process.pid in plan.pids
    del os.environ["A_KEY"]
    assert plan.headers == {"Authorization": "Bearer k"}
    assert plan.metrics_url == server.endpoint.metrics_url
