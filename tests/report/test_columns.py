from __future__ import annotations

from dataclasses import replace

import pytest

from redline.analyse.comparison import EnginePoint, ModelComparison, PointComparison
from redline.analyse.finding import Verdict
from redline.report.columns import columns, definitions_used, reasons, slo_text, terms_text
from redline.report.model import Report
from redline.units import DEFINITIONS


def comparison(*entries: tuple[str, float, str, tuple[str, ...]]) -> ModelComparison:
    points = tuple(
        PointComparison("m", ("closed", clients), (EnginePoint(label, {}, {}, Verdict(state, why)),))
        for label, clients, state, why in entries
    )
    return ModelComparison("m", "a", points, ())


def test_reasons_that_differ_in_numbers_only_are_one() -> None:
    found = reasons(
        comparison(
            ("a", 1, "degraded", ("p99 of 17 requests is their maximum (it needs 100)",)),
            ("a", 4, "degraded", ("p99 of 88 requests is their maximum (it needs 100)",)),
            ("b", 1, "degraded", ("p99 of 9 requests is their maximum (it needs 100)",)),
            ("b", 4, "invalid", ("all 4 requests failed: all reset",)),
            ("b", 9, "valid", ()),
        )
    )
    assert found == [
        ("invalid", "b at 4 clients", "all 4 requests failed: all reset"),
        ("degraded", "a at 1, 4 clients; b at 1 client", "p99 of 9–88 requests is their maximum (it needs 100)"),
    ]


def test_reasons_with_large_and_broken_numbers() -> None:
    found = reasons(
        comparison(
            ("a", 1, "degraded", ("TTFT p99 reads 1,234 ms and is rather 9.5 ms",)),
            ("a", 2, "degraded", ("TTFT p99 reads 99 ms and is rather 20.25 ms",)),
        )
    )
    assert found[0][2] == "TTFT p99 reads 99–1,234 ms and is rather 9.5–20.25 ms"


def test_goodput_is_a_column_only_under_an_slo(plain: Report, hard: Report) -> None:
    assert "goodput_per_s" not in [column.name for column in columns(plain)]
    assert "goodput_per_s" in [column.name for column in columns(hard)]
    assert slo_text(plain) == ""
    assert slo_text(hard) == "TTFT ≤ 100 ms and ITL (p99 of each request) ≤ 30.0 ms for 95% of the requests"


@pytest.mark.parametrize("which", ["plain", "hard"])
def test_every_number_shown_is_defined(which: str, request: pytest.FixtureRequest) -> None:
    used = {name for name, _, _ in definitions_used(request.getfixturevalue(which))}
    assert {"ttft_ms/intended@1", "percentile@1", "interval@1", "startup_s@1"} <= used <= set(DEFINITIONS)


def test_a_comma_behind_a_number_is_no_part_of_it() -> None:
    found = reasons(
        comparison(
            ("a", 1, "degraded", ("TTFT of 17, ITL of 3 ms",)),
            ("a", 2, "degraded", ("TTFT of 18, ITL of 3 ms",)),
        )
    )
    assert found[0][2] == "TTFT of 17–18, ITL of 3 ms"


def test_loads_of_several_kinds_each_say_what_they_count() -> None:
    one, other = comparison(("a", 1, "degraded", ("why",)), ("a", 4, "degraded", ("why",))).points
    both = ModelComparison("m", "a", (one, replace(other, load=("poisson", 4.0))), ())
    assert reasons(both) == [("degraded", "a at 1 client, 4 req/s poisson", "why")]


def test_a_promise_of_three_nines_is_none_of_all_requests() -> None:
    assert terms_text({"ttft_ms": 200.0}, 0.999) == "TTFT ≤ 200 ms for 99.9% of the requests"
