"""Each class of a mixed workload has its own tails and is judged by its own promise."""

from __future__ import annotations

import pytest

from redline.analyse.classes import class_summaries, met_by_class
from redline.analyse.latency import latencies_of
from redline.analyse.summary import PointSummary, summarise_point
from redline.spec.promise import Promise, class_promises, exact_output
from redline.store.requests import Requests
from tests.analyse.traffic import Row, ns, requests_of

PROMISES = {"chat": Promise({"ttft_ms": 20.0}, 0.9), "rag": Promise({"ttft_ms": 200.0}, 0.5), "none": Promise({}, 0.95)}


def traffic() -> Requests:
    """chat answers after 10 ms (every tenth after 50), rag after 100 ms (every second fails)."""
    rows = [Row(intended=-50, sent=-50, chunks=[0], finished=0, warmup=True, request_class="chat")]
    for i in range(100):
        at, late = 40.0 * i, 50 if i % 10 == 9 else 10
        rows.append(Row(at, at, [at + late, at + late + 5], finished=at + late + 5, request_class="chat"))
        if i % 5 == 0:
            status = "ok" if i % 2 else "http"
            rows.append(Row(at, at, [at + 100], finished=at + 100, request_class="rag", status=status))
    return requests_of(*rows)


def summary(promises: dict[str, Promise] | None = PROMISES, **slo: float) -> PointSummary:
    hint = (ns(0), ns(4000))
    return summarise_point(
        traffic(), window_hint=hint, slo=slo, attainment=0.9, outcome={}, seed=1, run_id="r", promises=promises
    )


def test_each_class_has_its_own_tails() -> None:
    found = summary().classes
    assert list(found) == ["chat", "rag", "none"]
    assert found["chat"].value("ttft_ms.p50") == pytest.approx(10)
    assert found["chat"].value("ttft_ms.p99") == pytest.approx(50)
    assert found["rag"].value("ttft_ms.p50") == pytest.approx(100)
    assert (found["chat"].counted, found["chat"].failed) == (100, 0)
    assert (found["rag"].counted, found["rag"].failed) == (20, 10)
    assert found["rag"].share == pytest.approx(20 / 120)
    assert (found["none"].counted, found["none"].kept) == (0, None)


def test_a_request_is_good_by_the_terms_of_its_class() -> None:
    found = summary()
    assert found.classes["chat"].value("slo_attainment") == pytest.approx(0.9)
    assert found.classes["rag"].value("slo_attainment") == pytest.approx(0.5)
    assert (found.classes["chat"].kept, found.classes["rag"].kept) == (True, True)
    assert found.value("slo_attainment") == pytest.approx((90 + 10) / 120)
    goods = sum(one.value("goodput_per_s") for one in found.classes.values() if one.counted)
    assert found.value("goodput_per_s") == pytest.approx(goods)


def test_one_slo_for_all_judges_otherwise() -> None:
    strict = summary(None, ttft_ms=20.0)
    assert strict.value("slo_attainment") == pytest.approx(90 / 120)
    assert not strict.classes


def test_requests_without_any_promise_are_not_judged() -> None:
    requests = traffic()
    latencies = latencies_of(requests)
    assert met_by_class(requests, latencies, {}, {"chat": Promise({}, 0.9)}) is None
    [only] = class_summaries(requests, summary().window, {"chat": Promise({}, 0.9)}, seed=1, run_id="r").values()
    assert only.kept is None
    assert "goodput_per_s" not in only.findings


def test_promises_come_from_the_stored_experiment() -> None:
    classes = [
        {"name": "a", "slo": {"ttft_ms": 5, "itl_ms": None, "attainment": 0.8}, "ignore_eos": False},
        {"name": "b", "slo": {}},
    ]
    stored = {"slo": {"ttft_ms": 100, "itl_ms": 40, "attainment": 0.95}, "workload": {"classes": classes}}
    assert class_promises(stored) == {
        "a": Promise({"ttft_ms": 5, "itl_ms": 40}, 0.8),
        "b": Promise({"ttft_ms": 100, "itl_ms": 40}, 0.95),
    }
    assert not exact_output(stored)
    assert exact_output({"workload": {"ignore_eos": True}})
    assert class_promises({}) == {}
