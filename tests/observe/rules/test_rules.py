from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from redline.observe.rules.alerts import all_groups
from redline.observe.rules.files import TARGETS, dcgm_counters, prometheus_yml, rule_files
from redline.observe.rules.slo import at_most, matches, objectives
from redline.runtime.http.metrics import SECONDS
from redline.spec.slo import SloSpec
from tests.cluster.programs import promtool

SLO = SloSpec(ttft_ms=500, itl_ms=50)
_VLLM_EDGES = ("0.001", "0.01", "0.05", "0.1", "0.25", "0.5", "0.75", "1.0", "2.5", "10.0", "640.0", "2560.0", "+Inf")


def write(folder: Path, slo: SloSpec = SLO) -> None:
    for name, text in {"prometheus.yml": prometheus_yml(TARGETS), **rule_files(slo)}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


def test_promtool_finds_no_fault(tmp_path: Path) -> None:
    write(tmp_path)
    done = promtool(tmp_path, "check", "config", "prometheus.yml")
    assert (done.returncode, "FAILED" in done.stdout) == (0, False), done.stdout + done.stderr


def test_every_alert_rings_when_it_must_and_only_then(tmp_path: Path) -> None:
    write(tmp_path)
    done = promtool(tmp_path, "test", "rules", "tests/alerts.yml", "tests/slo.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_unit_tests_of_the_alerts_can_fail(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "rules" / "alerts.yml"
    path.write_text(path.read_text().replace("(engine:iterations:increase) == 0", "(engine:iterations:increase) >= 0"))
    tests = yaml.safe_load((tmp_path / "tests" / "alerts.yml").read_text())
    tests["tests"] = [test for test in tests["tests"] if test["name"].startswith("EngineHung")]
    (tmp_path / "tests" / "alerts.yml").write_text(yaml.safe_dump(tests))
    done = promtool(tmp_path, "test", "rules", "tests/alerts.yml")
    assert done.returncode == 1
    assert "EngineHung" in done.stderr + done.stdout


def test_every_alert_has_a_case_for_both(tmp_path: Path) -> None:
    write(tmp_path)
    titles = [
        title
        for name in ("alerts", "slo")
        for test in yaml.safe_load((tmp_path / "tests" / f"{name}.yml").read_text())["tests"]
        for title in test["name"].split("; ")
    ]
    for groups in all_groups(SLO).values():
        for alert in (alert for group in groups for alert in group.alerts):
            assert any(title.startswith(f"{alert.name} rings") for title in titles), alert.name
            assert any(title.startswith(f"{alert.name} is quiet") for title in titles), alert.name


def test_every_alert_says_what_it_means_and_what_to_do() -> None:
    for groups in all_groups(SLO).values():
        for alert in (alert for group in groups for alert in group.alerts):
            assert alert.summary
            assert alert.meaning
            assert alert.todo


def test_without_an_slo_nothing_is_promised_of_latency() -> None:
    assert [one.name for one in objectives(SloSpec())] == ["success", "goodput"]
    assert not re.search(r'slo: "?(ttft|itl|e2e)', rule_files(SloSpec())["rules/slo.yml"])


def test_a_generous_budget_can_still_burn() -> None:
    """With 80 % to be good, 14.4 times the budget is more than there is."""
    limits = [
        float(term.fires.removeprefix("> "))
        for groups in all_groups(SloSpec(ttft_ms=1, attainment=0.8)).values()
        for group in groups
        for alert in group.alerts
        if alert.labels.get("slo") == "ttft"
        for term in alert.terms
    ]
    assert max(limits) < 1


@given(st.integers(1, 10**7), st.integers(0, 10**7))
@example(500_000, 500_000)
@example(1_000_000, 10_000_000)
def test_numerals_up_to_a_limit_match_and_no_others(limit_us: int, value_us: int) -> None:
    limit, value = limit_us / 1e6, value_us / 1e6
    forms = {f"{value:g}", repr(value), f"{value:.6f}", f"{value:f}".rstrip("0").rstrip(".") or "0"}
    pattern = at_most(limit)
    for form in forms:
        if "e" in form:  # smaller than any limit worth having
            continue
        assert bool(matches(pattern, [form])) == (float(form) <= limit), (limit, form)


def test_the_edges_of_real_engines() -> None:
    assert matches(at_most(0.5), _VLLM_EDGES) == ["0.001", "0.01", "0.05", "0.1", "0.25", "0.5"]
    assert matches(at_most(1), _VLLM_EDGES)[-1] == "1.0"
    own = [f"{edge:g}" for edge in SECONDS]
    assert matches(at_most(0.04), own)[-1] == "0.03", "between two edges the lower one counts"
    assert matches(at_most(2560), [*own, "+Inf"])[-1] == "2560"


def test_dcgms_list_has_three_columns() -> None:
    rows = [line.split(", ") for line in dcgm_counters().splitlines() if not line.startswith("#")]
    assert {len(row) for row in rows} == {3}
    assert {row[1] for row in rows} == {"gauge", "counter"}


@pytest.mark.parametrize("name", ["vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc", "sglang:token_usage"])
def test_names_of_all_versions_lead_to_one_series(name: str) -> None:
    assert name in rule_files(SLO)["rules/recording.yml"]
