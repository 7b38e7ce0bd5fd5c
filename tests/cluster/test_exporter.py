from __future__ import annotations

import concurrent.futures
import re
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import redline
from redline.analyse.latency import latencies_of
from redline.analyse.slo import met
from redline.clock import now_ns
from redline.cluster import box_metrics, run_metrics
from redline.cluster.exporter import Exporter, prometheus
from redline.errors import EnvironmentFault, PortInUse, Skipped, UsageError
from redline.observe.gpu import GpuSampler
from redline.observe.prometheus import Page, parse
from redline.observe.sample import Sample
from redline.spec.load import LoadPoint
from redline.spec.slo import SloSpec
from redline.store.store import Store
from redline.store.tail import Tail
from tests.node.boxes import FakeNvml
from tests.report.stored import BOX, FAST, SLOW, experiment, records_of, write_run


def page(serving: Exporter) -> Page:
    with urllib.request.urlopen(serving.url, timeout=10) as answer:
        found = parse(answer.read().decode())
    assert found.broken == 0
    return found


def test_counts_and_buckets_are_those_of_the_report(tmp_path: Path) -> None:
    db, slo = tmp_path / "r.db", SloSpec(ttft_ms=61)
    write_run(db, [SLOW], clients=(1, 10), slo=slo)
    with redline.Reader.open(db) as reader, prometheus(db, port=0, kernel_log=tmp_path / "none") as serving:
        found = page(serving)
        points = [point for trial in reader.run().trials for point in trial.points]
        latencies = [latencies_of(reader.requests(point.id)) for point in points]
    assert found.total("redline_requests_judged_total") == sum(map(len, latencies))
    assert found.total("redline_requests_good_total") == sum(int(met(one, slo.terms).sum()) for one in latencies)
    within = sum(int((one.values["ttft_ms"] <= 61).sum()) for one in latencies)
    assert found.buckets("redline_request_ttft_seconds")[0.061] == within, "an edge where the promise ends"
    assert found.total("redline_itl_seconds_count") == sum(len(one.gaps) for one in latencies)
    assert {one.label("load") for one in found.series if one.name == "redline_requests_total"} == {
        "1 client",
        "10 clients",
    }


def test_a_run_is_followed_while_it_goes_on_and_a_new_one_takes_its_place(tmp_path: Path) -> None:
    db = tmp_path / "r.db"
    write_run(db, [FAST], clients=(4,))
    with redline.Reader.open(db) as reader:
        records = list(records_of(reader.requests(reader.run().trials[0].points[0].id)))
    spec = experiment([FAST], clients=(4,))
    with Store.open(db) as store, prometheus(db, port=0, kernel_log=tmp_path / "none") as serving:
        assert page(serving).total("redline_run_live") == 0
        time.sleep(1.01)  # ids sort by their second
        run_id = store.begin_run(spec, BOX, ["redline"])
        trial = store.begin_trial(run_id, model="m", spec=spec.engines[0], repeat=0)
        point = store.begin_point(trial, LoadPoint("closed", 4))
        counts = []
        for record in records[:3]:
            store.add_request(point, record)
            store.add_samples(trial, [Sample(now_ns(), "client.cpu_cores", 0.25, "cores", {})])
            store.add_samples(trial, [Sample(now_ns(), "server.vllm:x", 1, "", {})])
            store.flush()
            now = page(serving)
            counts.append(now.total("redline_requests_total"))
        assert counts == [1, 2, 3]
        assert now.total("redline_run_live") == 1
        assert now.total("redline_run_client_cpu_cores") == 0.25
        assert not [one for one in now.series if "vllm" in one.name], "Prometheus asks the engine itself"
        assert {one.label("run") for one in now.series if one.name == "redline_requests_total"} == {run_id}
        store.end_run(run_id, "done", "valid", [])
        assert page(serving).total("redline_run_client_cpu_cores") is None, "the last sample of a dead run is no value"


def test_a_large_run_is_taken_in_by_and_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    db = tmp_path / "r.db"
    write_run(db, [FAST], clients=(10,))
    monkeypatch.setattr(run_metrics, "BATCH", 50)
    monkeypatch.setattr("redline.store.tail.BATCH", 50)
    monkeypatch.setattr(Tail.requests, "__defaults__", (0, 50))
    monkeypatch.setattr(run_metrics, "MOST_AT_ONCE", 100)
    with prometheus(db, port=0, kernel_log=tmp_path / "none") as serving:
        first, second = page(serving), page(serving)
    assert first.total("redline_requests_total") == 100
    assert (first.total("redline_requests_behind") or 0) > 0
    assert second.total("redline_requests_behind") == 0
    assert second.total("redline_requests_total") == 100 + (first.total("redline_requests_behind") or 0)


def test_a_page_also_where_nothing_was_measured(tmp_path: Path) -> None:
    with prometheus(tmp_path / "none.db", port=0, kernel_log=tmp_path / "none") as serving:
        found = page(serving)
        assert found.total("redline_store_readable") == 0
        assert found.total("redline_gpu_readable") in (0, 1)
        assert found.total("redline_kernel_log_readable") == 0
        assert any("no results file" in str(one) for one in serving.skipped)
        write_run(tmp_path / "none.db", [FAST], clients=(2,))
        assert page(serving).total("redline_store_readable") == 1


def test_gpus_and_xids(tmp_path: Path) -> None:
    log = tmp_path / "kmsg"
    log.write_text("4,1,5000000,-;NVRM: Xid (PCI:0000:3b:00): 79, x\n4,2,6000000,-;NVRM: Xid (PCI:0000:3b:00): 79, x\n")
    library = FakeNvml(gpus=2, DeviceGetCurrentClocksEventReasons=0x44)
    with prometheus(tmp_path / "none.db", port=0, nvml=library, kernel_log=log) as serving:
        found = page(serving)
        assert page(serving).total("redline_gpu_xid_total") == 2, "counted once"
    assert library.opened == 0
    assert found.total("redline_gpu_power_w") == pytest.approx(2 * 512.3)
    reasons = {
        (one.label("gpu"), one.label("reason")): one.value
        for one in found.series
        if one.name == "redline_gpu_clock_event"
    }
    assert reasons["1", "thermal (hardware)"] == reasons["0", "power-cap"] == 1
    assert reasons["0", "idle"] == 0
    assert [one.label("kind") for one in found.series if one.name == "redline_gpu_xid_total"] == ["hardware"]


def test_a_driver_that_is_loaded_later_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(box_metrics, "AGAIN_NS", 0)
    real, tries = GpuSampler.open, []

    def opened(pids: Sequence[int], library: Any = None) -> GpuSampler | Skipped:
        tries.append(1)
        return Skipped("no driver yet", "load it") if len(tries) == 1 else real(pids, library)

    monkeypatch.setattr(GpuSampler, "open", opened)
    collector = box_metrics.GpuCollector(FakeNvml(1))
    told = [next(iter(collector.collect())).samples[0].value for _ in range(3)]
    collector.close()
    assert told == [0, 1, 1]
    assert len(tries) == 2


def test_scrapes_at_the_same_time_count_once(tmp_path: Path) -> None:
    db = tmp_path / "r.db"
    write_run(db, [FAST], clients=(10,))
    with (
        prometheus(db, port=0, kernel_log=tmp_path / "none") as serving,
        concurrent.futures.ThreadPoolExecutor(6) as several,
    ):
        counts = {page.total("redline_requests_total") for page in several.map(page_of, [serving] * 6)}
    assert len(counts) == 1


def page_of(serving: Exporter) -> Page:
    return page(serving)


def test_a_run_that_is_named_must_be_there(tmp_path: Path) -> None:
    db = tmp_path / "r.db"
    run_id = write_run(db, [FAST], clients=(2,))
    with pytest.raises(UsageError, match="no run 'nosuch'"), prometheus(db, "nosuch", port=None):
        pass
    with prometheus(db, run_id, port=None, kernel_log=tmp_path / "none") as made:
        assert re.search(rf'redline_run_info{{.*run="{run_id}"', made.page())


def test_a_port_that_is_taken_and_an_address_of_another_box(tmp_path: Path) -> None:
    with prometheus(tmp_path / "r.db", port=0) as serving:
        port = int(serving.url.rsplit(":", 1)[1].split("/")[0])
        with pytest.raises(PortInUse), prometheus(tmp_path / "r.db", port=port):
            pass
    with (
        pytest.raises(EnvironmentFault, match="cannot listen"),
        prometheus(tmp_path / "r.db", host="192.0.2.1", port=0),
    ):
        pass
