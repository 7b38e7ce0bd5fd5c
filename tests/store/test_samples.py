from __future__ import annotations

import math
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from redline.observe.sample import Layout, Sample, Tick
from redline.store import migrations
from redline.store.sql import query
from redline.store.store import Store
from tests.store.recorded import EXPERIMENT


def trial_of(store: Store) -> tuple[str, int]:
    run = store.begin_run(EXPERIMENT, {}, [])
    return run, store.begin_trial(run, model="m", spec=EXPERIMENT.engines[0], repeat=0)


def power(t_ns: int, gpu: int, value: float) -> Sample:
    return Sample(t_ns, "gpu.power_w", value, "W", {"gpu": str(gpu)})


def test_samples_of_an_instant_are_one_row(store: Store) -> None:
    run, trial = trial_of(store)
    for tick in range(100):
        store.add_samples(trial, [power(tick, 0, tick), power(tick, 1, 2 * tick), Sample(tick, "host.x", 1, "")])
    store.flush()
    rows = query("select count(*), max(length(value)) from sample_tick", store.path)[1]
    assert rows[0][0] == 100
    assert rows[0][1] <= len("[99.0,198.0,1]")
    first, second = store.run_samples(run, ["gpu.*"])
    assert (first.labels, second.labels) == ({"gpu": "0"}, {"gpu": "1"})
    assert second.value.tolist() == [2.0 * tick for tick in range(100)]
    assert second.t_ns.dtype == np.int64
    assert second.trial_id == trial


def test_a_window_and_several_layouts_in_the_order_of_time(store: Store) -> None:
    run, trial = trial_of(store)
    for tick in range(10):
        more = [Sample(tick, "gpu.temperature_c", 40, "°C")] if tick % 3 == 0 else []
        store.add_samples(trial, [power(tick, 0, tick), *more])
    store.flush()
    (found,) = store.run_samples(run, ["gpu.power_w"], 2, 7)
    assert found.t_ns.tolist() == found.value.tolist() == [2, 3, 4, 5, 6, 7]
    assert store.peak(trial, "gpu.power_w", 0, 4) == 4
    assert store.peak(trial, "gpu.power_w", 50, 60) is None
    assert store.run_samples(run, ["gpu.tem*", "nothing"], 1, 2) == []


def test_every_trial_of_a_run_has_series_of_its_own(store: Store) -> None:
    run, first = trial_of(store)
    second = store.begin_trial(run, model="m", spec=EXPERIMENT.engines[0], repeat=1)
    layout = Layout((("host.x", "", "{}"),))
    for trial in (first, second):
        store.add_ticks(trial, [Tick(trial, layout, f"[{trial}]")])
    store.flush()
    assert [(one.trial_id, one.value.tolist()) for one in store.run_samples(run)] == [
        (first, [first]),
        (second, [second]),
    ]


def test_what_is_no_number_is_nan_and_null(store: Store) -> None:
    _, trial = trial_of(store)
    store.add_samples(trial, [power(1, 0, math.nan), power(1, 1, math.inf)])
    store.flush()
    assert all(math.isnan(one.value[0]) for one in store.samples(trial))
    assert store.peak(trial, "gpu.power_w") is None
    assert query("select value from sample", store.path)[1] == [(None,), (None,)]


def test_the_view_needs_nothing_but_sqlite(store: Store) -> None:
    _, trial = trial_of(store)
    store.add_samples(trial, [power(1, 0, 10.5), power(1, 1, 20)])
    store.flush()
    with sqlite3.connect(store.path) as db:
        rows = db.execute("SELECT trial_id, t_ns, name, value, unit, labels FROM sample ORDER BY value").fetchall()
    db.close()
    assert rows == [
        (trial, 1, "gpu.power_w", 10.5, "W", '{"gpu":"0"}'), (trial, 1, "gpu.power_w", 20, "W", '{"gpu":"1"}'),
    ]  # fmt: skip


def test_samples_of_a_file_from_before_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "old.db"
    newest = migrations.MIGRATIONS
    monkeypatch.setattr(migrations, "MIGRATIONS", newest[:2])
    with Store.open(path) as store:
        run, trial = trial_of(store)
    db = sqlite3.connect(path)
    db.execute("INSERT INTO series VALUES (1, ?, 'gpu.power_w', 'W', '{\"gpu\":\"0\"}')", (trial,))
    db.execute("INSERT INTO series VALUES (2, ?, 'engine.rss_bytes', 'B', '{}')", (trial,))
    rows = [(1, tick, tick / 2) for tick in range(50)] + [
        (2, tick, None if tick == 4 else tick) for tick in range(0, 50, 2)
    ]
    db.executemany("INSERT INTO sample_value VALUES (?, ?, ?)", rows)
    db.commit()
    db.close()
    monkeypatch.setattr(migrations, "MIGRATIONS", newest)
    with Store.open(path) as store:
        first, second = store.run_samples(run)
        assert first.value.tolist() == [tick / 2 for tick in range(50)]
        assert first.labels == {"gpu": "0"}
        assert second.t_ns.tolist() == list(range(0, 50, 2))
        assert math.isnan(second.value[2])
        assert store.run(run).trials[0].telemetry == {}
    assert query("select count(*) from sample", path)[1] == [(75,)]
    assert query("select count(distinct layout_id) from sample_tick", path)[1] == [(2,)]


def test_a_hundred_thousand_samples_take_little_room(store: Store) -> None:
    run, trial = trial_of(store)
    columns = [(f"gpu.x{place}_share", "share", "{}") for place in range(50)]
    layout = Layout(tuple(columns))
    row = "[" + ",".join(f"0.{1000 + 37 * place}" for place in range(50)) + "]"
    store.add_ticks(trial, [Tick(tick * 100_000_000, layout, row) for tick in range(2000)])
    store.end_run(run, "done", "", [])
    pages = query("select page_count * page_size from pragma_page_count, pragma_page_size", store.path)[1][0][0]
    assert pages / 100_000 < 10, "bytes per sample"
    assert sum(len(one.value) for one in store.run_samples(run)) == 100_000
