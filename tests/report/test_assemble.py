from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from redline.analyse.comparison import BETTER
from redline.errors import UsageError
from redline.report.assemble import load_report
from redline.report.model import Report, load_label
from redline.spec.slo import SloSpec
from redline.store.read import Reader
from redline.store.store import Store
from tests.report.stored import FAST, SLOW, experiment, write_run


def test_a_plain_comparison(plain: Report) -> None:
    assert [model.name for model in plain.models] == ["target"]
    model = plain.models[0]
    assert [engine.label for engine in model.engines] == ["transformers", "vllm"]
    assert [point.load for point in model.comparison.points] == [("closed", 1.0), ("closed", 4.0), ("closed", 16.0)]
    assert plain.banners == plain.missing == ()
    ratio = model.comparison.points[-1].engines[1].ratios["output_tokens_per_s"]
    assert ratio.outcome == BETTER
    assert ratio.value > 2
    assert model.engines[1].version == "0.30.0"
    assert model.engines[1].flags["block_size"] == "16"
    assert plain.title == "transformers vs vllm on target"


def test_start_up_and_memory_are_read(plain: Report) -> None:
    foot = plain.models[0].comparison.footprints[0]
    assert foot.numbers["startup_s"].value == pytest.approx(2.96)
    assert foot.numbers["rss_bytes"].value == pytest.approx(1.1e9 * 0.96)
    assert "gpu_memory_bytes" not in foot.numbers


def test_the_experiment_comes_back_as_yaml(plain: Report) -> None:
    read = yaml.safe_load(plain.runs[0].yaml)
    assert read["load"]["concurrency"] == [1, 4, 16]
    assert [engine["name"] for engine in read["engines"]] == ["transformers", "vllm"]


def test_the_same_run_gives_the_same_report(stored: Path, plain: Report) -> None:
    with Reader.open(stored) as reader:
        again = load_report(reader, ["last"])
    for ours, theirs in zip(plain.comparison.models, again.comparison.models, strict=True):
        assert ours == theirs


def test_an_interrupted_run_says_what_is_missing(hard: Report) -> None:
    assert "interrupted" in hard.banners[0]
    assert hard.missing == ("cut at 6 clients",)


def test_skipped_and_failed_engines_are_part_of_the_report(hard: Report) -> None:
    for model in hard.models:
        trt, big = model.engine("trt"), model.engine("vllm-big")
        assert (trt.status, trt.points) == ("skipped", {})
        assert "rent one" in trt.error
        assert (big.status, big.points) == ("failed", {})
        assert "CUDA out of memory" in big.error


def test_repeats_are_together(hard: Report) -> None:
    engine = hard.models[0].engine("vllm")
    assert [one.repeat for one in engine.points["closed", 1.0]] == [0, 1]
    assert len(engine.starts) == 2
    pooled = hard.models[0].comparison.points[0].engines[0].numbers["ttft_ms.p50"]
    assert len(pooled.repeats) == 2


def test_colours_hold_over_models(hard: Report) -> None:
    assert list(hard.colours.values()) == list(range(6))


def test_a_run_that_was_killed_is_shown_as_far_as_it_got(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    write_run(path, (SLOW,), clients=(1,), seconds=1.0, status="")
    with Reader.open(path) as reader:
        report = load_report(reader)
    assert "interrupted" in report.banners[0]
    assert report.models[0].comparison.points


def test_a_point_without_an_end_counts_as_interrupted(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    spec = experiment([SLOW], clients=(2,))
    with Store.open(path) as store:
        run_id = store.begin_run(spec, {}, [])
        trial = store.begin_trial(run_id, model="target", spec=spec.engines[0], repeat=0)
        store.begin_point(trial, spec.load.points[0])
    with Reader.open(path) as reader:
        report = load_report(reader, [run_id])
    found = report.comparison.models[0].points[0].engines[0]
    assert found.verdict.state == "invalid"
    assert report.missing == ("transformers at every load point",)
    assert not report.models[0].engines[0].points["closed", 2.0][0].complete


def test_a_run_that_goes_on_misses_nothing_yet(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    spec = experiment([SLOW], clients=(2,))
    with Store.open(path) as store:
        run_id = store.begin_run(spec, {}, [])
        trial = store.begin_trial(run_id, model="target", spec=spec.engines[0], repeat=0)
        store.begin_point(trial, spec.load.points[0])
        store.flush()
        with Reader.open(path) as reader:
            report = load_report(reader, [run_id])
    assert "still going on" in report.banners[0]
    assert report.missing == ()


def test_nothing_measured_at_all(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    with Store.open(path) as store:
        run_id = store.begin_run(experiment([SLOW]), {}, [])
        store.end_run(run_id, "failed", "invalid", ["no engine"])
    with Reader.open(path) as reader:
        report = load_report(reader)
    assert report.models == ()
    assert report.verdict.state == "invalid"
    assert "failed" in report.banners[0]


def test_the_same_engine_in_two_runs_is_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    runs = [write_run(path, (engine,), clients=(2,), seconds=1.0) for engine in (SLOW, SLOW, FAST)]
    with Reader.open(path) as reader:
        report = load_report(reader, runs)
        assert len(load_report(reader, [runs[0], runs[0]]).runs) == 1
    labels = [engine.label for engine in report.models[0].engines]
    assert labels == [f"transformers @ {runs[0][-4:]}", f"transformers @ {runs[1][-4:]}", "vllm"]
    assert report.models[0].comparison.reference == labels[0]


def test_an_unknown_run_is_a_usage_error(stored: Path) -> None:
    with Reader.open(stored) as reader, pytest.raises(UsageError):
        load_report(reader, ["nonsense"])


@pytest.mark.parametrize(
    ("load", "text"),
    [(("closed", 1.0), "1 client"), (("closed", 50.0), "50 clients"), (("poisson", 2.5), "2.5 req/s poisson")],
)
def test_load_label(load: tuple[str, float], text: str) -> None:
    assert load_label(load) == text


def test_states_count_every_engine_at_every_point(plain: Report) -> None:
    assert sum(plain.states.values()) == 6


def test_runs_with_different_slos_say_so(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    runs = [write_run(path, (FAST,), clients=(2,), seconds=1.0, slo=SloSpec(ttft_ms=ms)) for ms in (100.0, 100.0, 50.0)]
    with Reader.open(path) as reader:
        assert load_report(reader, runs[:2]).banners == ()
        (banner,) = load_report(reader, runs[1:]).banners
    assert "different SLOs" in banner
    assert runs[1] in banner


def test_the_client_is_busy_as_long_as_the_point_is_measured(stored: Path, plain: Report) -> None:
    cells = next(section for section in plain.sections if section.key == "client").rows
    with Reader.open(stored) as reader:
        points = [point for trial in reader.run().trials for point in trial.points]
    took = [(point.ended_ns - point.measured_from_ns) / 1e9 for point in points]
    # of the 0.4 s of CPU time that each of the stored points has; the steady window is shorter
    assert [row[8] for row in cells] == [f"{0.4 / seconds:.0%}" for seconds in took]
