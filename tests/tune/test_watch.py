from __future__ import annotations

from pathlib import Path

import pytest

from redline.clock import now_ns
from redline.errors import EnvironmentFault, UsageError
from redline.load.paced.pace import Pace
from redline.load.paced.server import PacedServer
from redline.observe.sample import Sample
from redline.spec.load import LoadPoint
from redline.store.store import Store
from redline.tune.watch import Live, source, watch
from tests.store.recorded import EXPERIMENT


def begun(store: Store) -> tuple[str, int]:
    run = store.begin_run(EXPERIMENT, {}, ["redline", "compare"])
    return run, store.begin_trial(run, model="tiny", spec=EXPERIMENT.engines[0], repeat=0)


def test_a_run_that_goes_on_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    with Store.open(path) as store:
        run, trial = begun(store)
        store.begin_point(trial, LoadPoint("closed", 4))
        old = now_ns() - 90_000_000_000
        looks = watch(db=path, every_s=0.01)
        for step in range(3):
            samples = [Sample(now_ns(), "gpu.power_w", 100.0 + step, "W", {"gpu": "0"})]
            store.add_samples(trial, [*samples, Sample(old, "gpu.temperature_c", 30, "°C", {"gpu": "0"})])
            store.flush()
            seen = next(looks)
            assert (seen.run_id, seen.status, seen.point) == (run, "running", "4 clients")
            (gauge,) = seen.find("gpu.power_w")
            assert gauge.value == 100 + step
            assert len(gauge.recent) == step + 1
            assert gauge.age_s < 30
            assert not seen.find("gpu.temperature_c"), "a minute is shown"
        store.keep_telemetry(trial, {"skipped": {"gpu": {"reason": "none", "how_to_get_it": ""}}})
        store.end_trial(trial, "done")
        store.end_run(run, "done", "valid", [])
        assert next(looks).status == "done"
        assert next(looks, None) is None, "the view ends with the run"


def test_only_the_last_start_of_an_engine_is_shown(tmp_path: Path) -> None:
    with Store.open(tmp_path / "r.db") as store:
        run, first = begun(store)
        second = store.begin_trial(run, model="tiny", spec=EXPERIMENT.engines[1], repeat=0)
        for trial, value in ((first, 1.0), (second, 2.0)):
            store.add_samples(trial, [Sample(now_ns(), "host.loadavg", value, "")])
        store.flush()
        with source(run, db=store.path) as opened:
            assert [gauge.value for gauge in opened.look().find("host.loadavg")] == [2.0]


def test_nothing_goes_on(tmp_path: Path) -> None:
    with Store.open(tmp_path / "r.db") as store:
        run, _ = begun(store)
        store.end_run(run, "done", "valid", [])
    with pytest.raises(UsageError, match="no run goes on") as raised:
        source(db=tmp_path / "r.db")
    assert "--url" in raised.value.fix
    with pytest.raises(UsageError, match="exclude each other"):
        source("last", box=True)


def test_an_endpoint_with_what_its_metrics_say() -> None:
    with PacedServer(Pace(metrics=True)) as server, Live(f"127.0.0.1:{server.port}/v1") as opened:
        seen = opened.look()
    assert seen.status == "live"
    assert seen.find("engine.requests_running")
    assert seen.find("host.cpu_busy_share")
    assert seen.find("engine.rss_bytes"), "who listens on the port is on this box"
    assert seen.as_dict()["values"]


def test_an_endpoint_that_is_not_there() -> None:
    with pytest.raises(EnvironmentFault, match="nothing answers"), Live("http://127.0.0.1:1"):
        pass
