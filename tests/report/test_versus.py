from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from redline.analyse.effect import UNCHANGED, Effect
from redline.analyse.finding import Interval
from redline.errors import UsageError
from redline.report.assemble import load_report
from redline.report.differing import differing
from redline.report.versus import Versus, VersusPoint, compare_runs
from redline.report.versus_text import as_dict, effect_rows, headline, html, markdown, verdict_text
from redline.store.read import Reader
from redline.store.store import Store
from tests.report.stored import BOX, FAST, SLOW, experiment, write_run

SLOWER = replace(FAST, itl=7.9)


@dataclass(frozen=True)
class Stored:
    """Runs of the same second sort by chance, so they go by their ids, never by `last`."""

    path: Path
    first: str
    second: str
    other: str

    def versus(self, a: str, b: str, **how: Any) -> Versus:
        names = {"first": self.first, "second": self.second, "other": self.other}
        run_a, run_b = (
            ":".join([names.get(n.partition(":")[0], n.partition(":")[0]), *n.split(":")[1:]]) for n in (a, b)
        )
        return compare_runs(run_a, run_b, db=self.path, **how)


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    """Three runs: two engines; the same with one of them slower; one engine alone at another load point."""
    path = tmp_path_factory.mktemp("versus") / "results.db"
    leaky = replace(SLOWER, flags={**FAST.flags, "api_key": "sk-abcdefghijklmnopqrstu"})
    return Stored(
        path,
        write_run(path, (SLOW, FAST), clients=(4, 8), seconds=4.0),
        write_run(path, (SLOW, leaky), clients=(4, 8), seconds=4.0),
        write_run(path, (FAST,), clients=(2,), seconds=2.0),
    )


def test_the_slower_engine_is_found_and_the_other_is_left_in_peace(db: Stored) -> None:
    versus = db.versus("first", "second")
    assert [pair.a.rpartition(":")[2] for pair in versus.pairs] == ["transformers", "vllm"]
    assert {pair.b.rpartition(":")[2] for pair, *_ in versus.regressions} == {"vllm"}
    assert "itl_ms.p50" in {one.metric for *_, one in versus.regressions}
    assert versus.exit_code == 5


def test_a_tolerance_puts_up_with_it(db: Stored) -> None:
    versus = db.versus("first", "second", tolerance=0.2)
    assert versus.exit_code == 0
    assert "worse" in versus.headline


def test_an_engine_against_another_one(db: Stored) -> None:
    versus = db.versus("second:vllm", "second:transformers", metrics=["ttft_ms.p50"])
    assert len(versus.pairs) == 1
    assert all(one.outcome == "worse" for *_, one in versus.effects())
    assert "engine.version" in [one.field for one in versus.pairs[0].differing]


def test_secrets_in_what_differs_are_cut(db: Stored) -> None:
    versus = db.versus("first:vllm", "second:vllm")
    fields = {one.field: one for one in versus.pairs[0].differing}
    assert fields["flag.api_key"].b == "***"
    assert fields["flag.api_key"].matters
    for text in (markdown(versus), html(versus), json.dumps(as_dict(versus))):
        assert "sk-abc" not in text


def test_every_form_says_the_same(db: Stored) -> None:
    versus = db.versus("first", "second")
    assert headline(versus) in markdown(versus)
    assert as_dict(versus)["headline"] == headline(versus)
    assert "▼" in html(versus)
    assert "<details><summary>" in markdown(versus)


@pytest.mark.parametrize(
    ("a", "b", "what"),
    [
        ("other", "other", "are the same run"),
        ("second", "second", "are the same run"),
        ("other:vlm", "second", "no engine 'vlm'"),
        ("other:vllm", "second:vllm", "no load point in common"),
        ("nonsense", "other", "no run 'nonsense'"),
    ],
)
def test_what_cannot_be_set_against_each_other(db: Stored, a: str, b: str, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        db.versus(a, b)


def test_a_metric_that_is_none_gets_a_suggestion(db: Stored) -> None:
    with pytest.raises(UsageError) as caught:
        db.versus("first", "second", metrics=["ttft_ms.p9"])
    assert "ttft_ms.p9" in str(caught.value)
    assert "did you mean" in str(caught.value)


def test_an_invalid_point_bars_the_comparison(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    good = write_run(path, (FAST,), clients=(2,), seconds=2.0)
    with Store.open(path) as store:
        spec = experiment((FAST,), clients=(2,))
        run_id = store.begin_run(spec, BOX, [])
        trial = store.begin_trial(run_id, model="target", spec=spec.engines[0], repeat=0)
        point = store.begin_point(trial, spec.load.points[0])
        store.end_point(
            point, measured_from_ns=1, ended_ns=2, stopped_by="duration", outcome={}, verdict="invalid",
            reasons=["every request failed"],
        )  # fmt: skip
        store.end_trial(trial, "done")
        store.end_run(run_id, "done", "invalid", [])
    versus = compare_runs(good, run_id, db=path)
    assert versus.exit_code == 6
    assert "every request failed" in markdown(versus)


def test_rounds_are_shown_paired_in_the_report_of_their_run(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    write_run(path, (SLOW, FAST), clients=(4,), seconds=2.0, rounds=4, repeats=4)
    with Reader.open(path) as reader:
        report = load_report(reader)
    section = next(section for section in report.sections if section.key == "rounds")
    itl = next(row for row in section.rows if "ITL p50" in row)
    assert itl[0] == "vllm"
    assert "better" in itl[-1]


def test_no_common_point_of_two_engines_leaves_the_report_whole(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    write_run(path, (SLOW, replace(FAST, stop_after=0)), clients=(4,), seconds=1.0, rounds=2)
    with Reader.open(path) as reader:
        assert not [section for section in load_report(reader).sections if section.key == "rounds"]


def test_a_difference_far_behind_is_found_and_shown(db: Stored) -> None:
    with Reader.open(db.path) as reader:
        run = reader.run(db.first)
    line = "isolcpus=2-63 " * 20
    tuned, plain = (
        replace(run, provenance={**run.provenance, "kernel": {"cmdline": line + end}})
        for end in ("mitigations=off quiet", "mitigations=auto quiet")
    )
    (found,) = differing((plain, run.trials[0]), (tuned, run.trials[0]))
    assert found.field == "kernel.cmdline"
    assert found.matters
    assert found.a.endswith("mitigations=auto quiet")
    assert found.b.endswith("mitigations=off quiet")
    assert max(len(found.a), len(found.b)) <= 160


def test_points_of_a_share_are_written_out() -> None:
    far = Effect("failed_share", 0.0, 1.0, difference=1.0, difference_interval=Interval(0.9, 1.0), outcome="worse")
    (row,) = effect_rows(VersusPoint(("closed", 4.0), "4 clients", (far,)))
    assert "+100 points" in row
    assert verdict_text(Effect("failed_share", 0.0, 0.1, outcome=UNCHANGED, detectable=1.24)).endswith(" 124 points")


def test_all_engines_of_the_rounds_are_one_family(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    engines = (SLOW, FAST, replace(FAST, name="again"))
    write_run(path, engines, clients=(4,), seconds=2.0, rounds=4, repeats=4)
    with Reader.open(path) as reader:
        report = load_report(reader)
    section = next(section for section in report.sections if section.key == "rounds")
    known = [row for row in section.rows if row[-1] != "unknown"]
    assert {row[0] for row in known} == {"vllm", "again"}
    assert f"{len(known)} effects were judged together" in " ".join(section.notes)
