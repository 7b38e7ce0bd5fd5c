from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redline.engines.endpoint import Endpoint
from redline.errors import DiskFull, StoreFault
from redline.load.record import RequestRecord, Status, TokenSource
from redline.observe.sample import Sample
from redline.spec.experiment import Experiment
from redline.spec.load import LoadPoint
from redline.store.encode import plain_text
from redline.store.read import Reader
from redline.store.store import Store
from tests.store.recorded import EXPERIMENT, record

NS = st.integers(0, 2**62)
TOKENS = st.integers(0, 2**31)
RECORDS = st.builds(
    RequestRecord,
    index=st.integers(0, 10_000),
    intended_ns=NS,
    sent_ns=NS,
    connected_ns=NS,
    first_byte_ns=NS,
    answer_first_ns=NS,
    finished_ns=NS,
    chunk_ns=st.lists(NS, max_size=10),
    chunk_tokens=st.lists(TOKENS, max_size=10),
    prompt_tokens=TOKENS,
    cached_tokens=TOKENS,
    asked_prompt_tokens=TOKENS,
    asked_output_tokens=TOKENS,
    output_tokens=TOKENS,
    token_source=st.sampled_from(TokenSource),
    status=st.sampled_from(Status),
    http_status=st.integers(0, 599),
    error=st.sampled_from(["", "connection refused", "500: internal", "half a pair \ud800 here"]),
    finish_reason=st.sampled_from(["", "stop", "length"]),
    stamp=st.sampled_from(["kernel", "user"]),
    shared_stamps=TOKENS,
    warmup=st.booleans(),
    text=st.text(max_size=20),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(records=st.lists(RECORDS, max_size=8))
def test_any_requests_come_back_as_they_were(store: Store, records: list[RequestRecord]) -> None:
    run = store.begin_run(EXPERIMENT, {}, [])
    point = store.begin_point(
        store.begin_trial(run, model="m", spec=EXPERIMENT.engines[0], repeat=0), LoadPoint("closed", 1)
    )
    # chunk tokens belong to chunks
    records = [replace(one, chunk_tokens=(one.chunk_tokens + [1] * 10)[: len(one.chunk_ns)]) for one in records]
    for one in records:
        store.add_request(point, one)
    store.flush()
    records.sort(key=lambda one: one.index)
    assert store.records(point) == [replace(one, error=plain_text(one.error)) for one in records]
    columns = store.requests(point)
    assert len(columns) == len(records)
    for row, one in enumerate(records):
        assert columns.chunk_ns[columns.chunk_start[row] : columns.chunk_start[row + 1]].tolist() == one.chunk_ns
        assert (
            columns.chunk_tokens[columns.chunk_start[row] : columns.chunk_start[row + 1]].tolist() == one.chunk_tokens
        )
        for name in ("index", "intended_ns", "sent_ns", "finished_ns", "output_tokens", "asked_prompt_tokens"):
            assert getattr(columns, name)[row] == getattr(one, name)
        assert (columns.status[row], columns.token_source[row], columns.stamp[row]) == (
            one.status,
            one.token_source,
            one.stamp,
        )
        assert bool(columns.warmup[row]) == one.warmup


def test_a_whole_run(store: Store, point: int, tmp_path: Path) -> None:
    run = store.run("last")
    assert (run.status, run.name, run.experiment_hash) == ("running", "two engines", EXPERIMENT.hash())
    assert Experiment.model_validate(run.experiment) == EXPERIMENT
    store.add_request(point, record(0))
    store.end_point(
        point,
        measured_from_ns=10,
        ended_ns=20,
        stopped_by="requests",
        outcome={"p99": float("nan"), "chunks": [1]},
        verdict="degraded",
        reasons=["slow client"],
    )
    trial = run.trials[0]
    log = store.artifact_dir(run.id) / f"trial-{trial.id}" / "engine.log"
    log.parent.mkdir()
    log.write_text("started\n")
    store.add_artifact(run.id, log, "engine-log")
    store.end_trial(trial.id, "done")
    store.end_run(run.id, "done", "degraded", ["slow client"])

    with Reader.open(store.path) as reader:
        run = reader.run(run.id)
    assert (run.status, run.verdict, run.reasons) == ("done", "degraded", ("slow client",))
    assert run.duration_s is not None
    assert run.duration_s > 0
    assert (run.models, run.engines, run.points) == (["model"], ["vllm"], 1)
    trial = run.trials[0]
    assert (trial.status, trial.engine_version, trial.hashes) == ("done", "0.26.0", {"model": "abc"})
    stored = trial.points[0]
    assert stored.load_point == LoadPoint("closed", 10)
    assert (stored.measured_from_ns, stored.ended_ns, stored.complete) == (10, 20, True)
    assert stored.outcome == {"p99": None, "chunks": [1]}
    assert trial.log == log
    assert trial.artifacts[0].bytes == 8


def test_ids_sort_by_time_and_are_never_used_twice(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    digits = iter(["aaaa", "aaaa", "bbbb"])
    monkeypatch.setattr("redline.store.store.secrets.token_hex", lambda n: next(digits, "cccc"))
    first, second = (store.begin_run(EXPERIMENT, {}, []) for _ in range(2))
    assert first != second
    assert [run.id for run in store.runs()] == sorted([first, second], reverse=True)


def test_requests_are_committed_without_being_asked(store: Store, point: int) -> None:
    store.add_request(point, record(0))
    with Reader.open(store.path) as other:
        give_up = time.monotonic() + 10
        while not len(other.requests(point)) and time.monotonic() < give_up:
            time.sleep(0.02)
        assert len(other.requests(point)) == 1


def test_many_threads_and_two_writers_lose_nothing(store: Store, point: int) -> None:
    with Store.open(store.path) as other:
        run = other.begin_run(EXPERIMENT, {}, [])
        their_point = other.begin_point(
            other.begin_trial(run, model="m", spec=EXPERIMENT.engines[1], repeat=0), LoadPoint("poisson", 2.5)
        )

        def push(to: Store, point_id: int, first: int) -> None:
            for index in range(first, first + 250):
                to.add_request(point_id, record(index))

        jobs = [(store, point, 0), (store, point, 250), (other, their_point, 0), (other, their_point, 250)]
        threads = [threading.Thread(target=push, args=job) for job in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        store.flush()
        other.flush()
        assert store.requests(point).index.tolist() == list(range(500))
        assert store.requests(their_point).index.tolist() == list(range(500))


def test_a_full_disk_loses_nothing_that_was_committed_and_goes_on_when_there_is_room(store: Store, point: int) -> None:
    for index in range(50):
        store.add_request(point, record(index))
    store.flush()
    with store._lock:
        pages = store._db.execute("PRAGMA page_count").fetchone()[0]
        store._db.execute(f"PRAGMA max_page_count = {pages + 2}")
    added = 50
    with pytest.raises(DiskFull) as caught:  # noqa: PT012
        give_up = time.monotonic() + 20
        while time.monotonic() < give_up:
            store.add_request(point, record(added, text="x" * 2000))
            added += 1
            time.sleep(0.001)
    assert "safe" in caught.value.why
    assert caught.value.exit_code == 3
    with Reader.open(store.path) as reader:
        assert set(range(50)) <= set(reader.requests(point).index.tolist())
    with store._lock:
        store._db.execute("PRAGMA max_page_count = 1000000")
    store.flush()
    assert store.requests(point).index.tolist() == list(range(added))


def test_a_full_disk_is_told_by_the_next_call_whichever_it_is(store: Store, point: int) -> None:
    with store._lock:
        pages = store._db.execute("PRAGMA page_count").fetchone()[0]
        store._db.execute(f"PRAGMA max_page_count = {pages}")
    store.add_request(point, record(0, text="x" * 100_000))
    give_up = time.monotonic() + 10
    while store._fault is None and time.monotonic() < give_up:
        time.sleep(0.02)
    with pytest.raises(DiskFull):
        store.add_samples(1, [])
    with pytest.raises(DiskFull):
        store.begin_point(1, LoadPoint("closed", 1))
    with store._lock:
        store._db.execute("PRAGMA max_page_count = 1000000")


def test_samples_survive_a_full_disk_too(store: Store, point: int) -> None:
    trial = store.run().trials[0].id
    with store._lock:
        pages = store._db.execute("PRAGMA page_count").fetchone()[0]
        store._db.execute(f"PRAGMA max_page_count = {pages}")
        store.add_samples(trial, [Sample(t, "engine.rss_bytes", float(t), "B") for t in range(2000)])
        with pytest.raises(DiskFull):
            store.flush()
        store._db.execute("PRAGMA max_page_count = 1000000")
        store.flush()
    assert store.samples(trial)[0].t_ns.tolist() == list(range(2000))


def test_a_record_for_no_point_is_not_swallowed(store: Store, point: int) -> None:
    store.add_request(point + 99, record(0))
    with pytest.raises(sqlite3.IntegrityError):
        store.flush()
    store._requests.clear()
    store.flush()


_WRITER = """
import sys, time
from pathlib import Path
from redline.store.store import Store
from redline.spec.load import LoadPoint
from tests.store.recorded import EXPERIMENT, record
store = Store.open(Path(sys.argv[1]))
run = store.begin_run(EXPERIMENT, {}, [])
trial = store.begin_trial(run, model="m", spec=EXPERIMENT.engines[0], repeat=0)
point = store.begin_point(trial, LoadPoint("closed", 1))
index = 0
while True:
    store.add_request(point, record(index))
    print(index, time.monotonic(), flush=True)
    index += 1
    time.sleep(0.002)
"""


def test_kill_9_keeps_all_but_the_last_second(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    command = [sys.executable, "-c", _WRITER, str(path)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as writer:
        assert writer.stdout is not None
        lines = []
        for line in writer.stdout:
            lines.append(line)
            if float(line.split()[1]) > float(lines[0].split()[1]) + 1.8:
                break
        os.kill(writer.pid, signal.SIGKILL)
        killed = time.monotonic()
        lines += writer.stdout.readlines()
    added = [(int(index), float(when)) for index, when in (line.split() for line in lines)]
    old = [index for index, when in added if when < killed - 1]
    assert len(old) > 20

    with Reader.open(path) as reader:  # while the log beside the file is still there
        run = reader.run("last")
        kept = reader.requests(run.trials[0].points[0].id).index.tolist()
    assert kept == list(range(len(kept)))
    assert len(kept) >= len(old)
    assert run.status == "interrupted"
    assert run.trials[0].status == "interrupted"
    assert "died" in run.reasons[0]
    stored = run.trials[0].points[0]
    assert not stored.complete
    assert stored.measured_from_ns == record(0).intended_ns
    assert stored.ended_ns == record(len(kept) - 1).finished_ns

    with Store.open(path), sqlite3.connect(path) as plain:  # the next writer puts it on record for everybody
        assert plain.execute("SELECT status FROM run").fetchall() == [("interrupted",)]
    plain.close()


def test_a_run_that_goes_on_is_no_interrupted_one(store: Store, point: int) -> None:
    with Store.open(store.path) as other:
        assert other.run("last").status == "running"
        assert other.run("last").trials[0].status == "ready"


def test_closing_without_an_end_is_an_interruption(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    with pytest.raises(ZeroDivisionError), Store.open(path) as store:  # noqa: PT012
        store.begin_run(EXPERIMENT, {}, [])
        raise ZeroDivisionError
    with Reader.open(path) as reader:
        run = reader.run()
    assert run.status == "interrupted"
    assert run.ended_ns is not None
    store.close()  # twice is fine


def test_secrets_are_nowhere_in_the_file_or_the_artifacts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_shell, in_spec, in_url = "hf_FromTheShell0123456789", "key-From-Spec", "pw-From-Url"
    monkeypatch.setenv("HF_TOKEN", in_shell)
    engine = {"kind": "vllm", "env": {"OPENAI_API_KEY": in_spec}, "flags": {"api-key": in_spec}}
    running = {"kind": "url", "url": f"http://me:{in_url}@host/v1", "api_key_env": "MY_API_KEY"}
    experiment = Experiment.model_validate({"models": [{"id": "m"}], "engines": [engine, running]})
    path = tmp_path / "r.db"
    with Store.open(path) as store:
        run = store.begin_run(experiment, {"env": {"HF_TOKEN": in_shell}}, ["redline", "--api-key", in_spec])
        trial = store.begin_trial(run, model="m", spec=experiment.engines[0], repeat=0)
        endpoint = Endpoint(f"http://me:{in_url}@host/v1", "m", "vllm", "1", flags={"api_key": f"['{in_spec}']"})
        store.trial_ready(trial, endpoint, {})
        point = store.begin_point(trial, LoadPoint("closed", 1))
        store.add_request(point, record(0, error=f"401: bad key {in_spec}"))
        outcome = {"note": f"Authorization: Bearer {in_spec}"}
        store.end_point(
            point, measured_from_ns=1, ended_ns=2, stopped_by="", outcome=outcome, verdict="", reasons=[in_shell]
        )
        log = store.artifact_dir(run) / "engine.log"
        log.write_text(f"args: api_key={in_spec} token {in_shell}\n")
        store.add_artifact(run, log, "log")
        store.end_trial(trial, "failed", f"died: --api-key {in_spec}", "")
        store.end_run(run, "failed", "invalid", [f"no access with {in_shell}"])
        assert Experiment.model_validate(store.run(run).experiment).engines[1].api_key_env == "MY_API_KEY"
    for file in tmp_path.rglob("*"):
        body = file.read_bytes() if file.is_file() else b""
        for secret in (in_shell, in_spec, in_url):
            assert secret.encode() not in body, file


def test_artifacts_are_kept_by_relative_path_and_vanish_with_a_clear_error(store: Store, point: int) -> None:
    run = store.run().id
    file = store.artifact_dir(run) / "report.html"
    file.write_text("<html>")
    store.add_artifact(run, file, "report")
    store.add_artifact(run, file, "report")  # again: the newer one counts
    with sqlite3.connect(store.path) as plain:
        assert plain.execute("SELECT path, bytes FROM artifact").fetchall() == [(f"{run}/report.html", 6)]
    plain.close()
    assert [artifact.path for artifact in store.run().artifacts] == [file]
    with pytest.raises(StoreFault, match="cannot keep"):
        store.add_artifact(run, file.with_name("gone"), "report")


def test_samples_come_back_as_series(store: Store, point: int) -> None:
    trial = store.run().trials[0].id
    store.add_samples(
        trial,
        [
            Sample(3, "gpu.power_w", 300.0, "W", {"gpu": "0"}),
            Sample(1, "gpu.power_w", 100.0, "W", {"gpu": "0"}),
            Sample(1, "gpu.power_w", float("nan"), "W", {"gpu": "1"}),
            Sample(1, "engine.rss_bytes", 5e9, "B"),
        ],
    )
    store.add_samples(trial, [Sample(5, "engine.rss_bytes", 6e9, "B")])
    store.flush()
    series = {(one.name, one.labels.get("gpu")): one for one in store.samples(trial)}
    assert series["gpu.power_w", "0"].t_ns.tolist() == [1, 3]
    assert series["gpu.power_w", "0"].value.tolist() == [100.0, 300.0]
    assert series["engine.rss_bytes", None].peak == 6e9
    assert str(series["gpu.power_w", "1"].peak) == "nan"
    assert [one.labels for one in store.samples(trial, "gpu.power_w")] == [{"gpu": "0"}, {"gpu": "1"}]
    assert store.peak(trial, "engine.rss_bytes", to_ns=4) == 5e9
    assert store.peak(trial, "no.such_thing") is None


def test_a_hundred_chunks_each_are_read_quickly(store: Store, point: int) -> None:
    for index in range(5000):
        store.add_request(point, record(index, chunks=100))
    store.flush()
    began = time.monotonic()
    columns = store.requests(point)
    assert len(columns.chunk_ns) == 500_000
    assert time.monotonic() - began < 5  # takes about 0.1 s
