from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from redline.clock import now_ns
from redline.observe.sample import Sample
from redline.report.assemble import load_report
from redline.report.charts import charts
from redline.report.markdown import render_markdown
from redline.report.model import Report
from redline.report.plain import as_dict
from redline.report.telemetry import bars, value_text
from redline.store.read import Reader
from redline.store.store import Store
from tests.report.stored import FAST, write_run

TOLD: dict[str, Any] = {
    "samplers": {
        "host": {
            "ticks": 300, "late_ticks": 2, "cpu_s": 0.3, "cpu_share": 0.01, "tick_ms": 1.2, "longest_tick_ms": 9.0,
            "every_s": 0.1, "elapsed_s": 30.0,
        }
    },
    "skipped": {"dcgm": {"reason": "no DCGM on this box", "how_to_get_it": "apt install datacenter-gpu-manager"}},
    "notes": ["the sampler process died (signal 9): no samples from here on"],
}  # fmt: skip


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One engine, one load point; two GPUs that are busy at 80 % and 40 %, and one MIG instance that does not count."""
    path = tmp_path_factory.mktemp("telemetry") / "results.db"
    write_run(path, (FAST,), clients=(4,), seconds=3.0)
    with Store.open(path) as store:
        (trial,) = store.run("last").trials
        (point,) = trial.points
        span = point.ended_ns - point.measured_from_ns
        for step in range(30):
            t_ns = point.measured_from_ns + step * span // 30
            store.add_samples(trial.id, [
                Sample(t_ns, "gpu.utilisation_share", 0.8, "share", {"gpu": "0"}),
                Sample(t_ns, "gpu.utilisation_share", 0.4, "share", {"gpu": "1"}),
                Sample(t_ns, "gpu.utilisation_share", 0.0, "share", {"gpu": "1", "mig": "3"}),
                Sample(t_ns, "engine.kv_usage_share", step / 29, "share"),
                Sample(t_ns, "engine.requests_waiting", 0, ""),
            ])  # fmt: skip
        store.add_samples(trial.id, [Sample(point.measured_from_ns - 1, "gpu.power_w", 700, "W", {"gpu": "0"})])
        store.keep_telemetry(trial.id, TOLD)
    return path


@pytest.fixture(scope="module")
def report(path: Path) -> Report:
    with Reader.open(path) as reader:
        return load_report(reader)


def section(report: Report, key: str) -> dict[str, Any]:
    found: dict[str, Any] = as_dict(report)["sections"][key]
    return found


def test_a_row_for_each_load_point_of_what_was_sampled_in_it(report: Report) -> None:
    (row,) = section(report, "telemetry")["rows"]
    assert row == {"engine": "vllm", "load": "4 clients", "GPU": "60%", "waiting": "0", "KV cache": "100% at most"}


def test_what_is_missing_and_what_it_cost_is_said(report: Report) -> None:
    notes = section(report, "telemetry")["notes"]
    assert "not sampled, dcgm: no DCGM on this box (apt install datacenter-gpu-manager)" in notes
    assert TOLD["notes"][0] in notes
    (cost,) = [note for note in notes if note.startswith("sampling cost")]
    assert "host 10.0/s, 1.00% of a core" in cost
    assert "2 of 300 late" in cost


def test_the_cost_is_in_the_json(report: Report) -> None:
    (start,) = as_dict(report)["models"][0]["engines"][0]["starts"]
    assert json.loads(json.dumps(start))["telemetry"]["samplers"]["host"]["late_ticks"] == 2


def test_over_time_in_text(report: Report) -> None:
    told = section(report, "telemetry-lines")
    (row,) = [row for row in told["rows"] if row["measured"] == "engine.kv_usage_share"]
    assert row["over time"][0] == "▁"
    assert row["over time"][-1] == "█"
    assert list(row["over time"]) == sorted(row["over time"])
    assert (row["lowest"], row["mean"], row["highest"]) == ("0%", "50%", "100%")
    assert any("never moved: " in note and "engine.requests_waiting 0" in note for note in told["notes"])
    assert "The same over time" in render_markdown(report)


def test_a_chart_on_the_time_axis_of_the_requests(report: Report) -> None:
    pytest.importorskip("altair")
    pytest.importorskip("vl_convert")
    (chart,) = [one for one in charts(report) if one.kind == "telemetry-1"]
    text = json.dumps(chart.spec)
    panels = chart.spec["vconcat"]
    assert len(panels) >= 5, "output, TTFT, ITL, requests or cache, GPU"
    assert "a kernel resident gpu 0" in text
    assert "mig" not in text
    ends = {panel["layer"][1]["encoding"]["x"]["scale"]["domain"][1] for panel in panels}
    assert len(ends) == 1
    assert "GPU activity" in chart.svg


def test_a_run_that_was_only_served(tmp_path: Path) -> None:
    from tests.store.recorded import EXPERIMENT

    with Store.open(tmp_path / "r.db") as store:
        run = store.begin_run(EXPERIMENT, {}, ["redline", "serve"])
        trial = store.begin_trial(run, model="m", spec=EXPERIMENT.engines[0], repeat=0)
        store.add_samples(trial, [Sample(now_ns(), "host.cpu_busy_share", 0.5, "share")])
        store.end_trial(trial, "done")
        store.end_run(run, "done", "", [])
        report = load_report(store)
    assert report.missing == ()
    assert section(report, "telemetry")["rows"] == [{"engine": "vllm", "load": "as it was used", "host CPU": "50%"}]


def test_old_runs_have_no_telemetry(tmp_path: Path) -> None:
    write_run(tmp_path / "r.db", (FAST,), clients=(2,), seconds=1.0)
    with Reader.open(tmp_path / "r.db") as reader:
        report = load_report(reader)
    assert "telemetry" not in as_dict(report)["sections"]


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("gpu.utilisation_share", 0.873, "87%"), ("gpu.utilisation_share", 0.0123, "1.2%"),
        ("gpu.power_w", 512.34, "512 W"), ("gpu.memory_used_bytes", 7.1e10, "71.0 GB"),
        ("gpu.pcie_rx_bytes_per_s", 2e9, "2.00 GB/s"), ("engine.requests_running", 3.0, "3"),
        ("host.interrupts_per_s", 1234.0, "1,234/s"), ("gpu.power_w", float("nan"), "–"),
    ],
)  # fmt: skip
def test_values_as_text(name: str, value: float, text: str) -> None:
    assert value_text(name, value) == text


def test_bars() -> None:
    assert bars([0, 1, 2], 0, 2) == "▁▅█"
    assert bars([5, 5], 5, 5) == "▁▁"
