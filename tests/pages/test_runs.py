from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from redline.store.browse import Browser
from redline.store.store import Store
from tests.pages.conftest import client_of


def shown(client: TestClient, query: str) -> list[str]:
    """Ids in the order of the list."""
    text = client.get(f"/?{query}").text
    return [part.partition('"')[0] for part in text.split('href="/run/')[1:]]


def test_search_filter_and_sort(client: TestClient, runs: list[str]) -> None:
    first, second, third = runs
    assert shown(client, "") == [third, second, first]
    assert shown(client, "sort=run&dir=up") == runs
    assert shown(client, "q=before") == [first]
    assert shown(client, "q=VLLM+after") == [second]
    assert shown(client, "q=4+clients+before") == [first]
    assert shown(client, "q=nothing+like+it") == []
    assert shown(client, "status=interrupted") == [third]
    assert shown(client, "status=done&sort=name&dir=up") == [second, first]
    assert shown(client, "engine=trt") == [third]
    assert shown(client, "q=%25") == shown(client, "q=_x_") == []
    assert "<b>spec</b>" not in client.get("/").text


def test_ten_thousand_runs_are_a_page_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "many.db"
    Store.open(path).close()
    db = sqlite3.connect(path)
    one = """INSERT INTO run VALUES (?, ?, '{}', 'h', '[]', '0.1', '{}', '2026-01-01T00:00:00Z', 0, ?, 'done', ?, '[]',
        '{}')"""
    states = ("valid", "degraded", "invalid")
    db.executemany(one, ((f"20260101-{i:06d}-abcd", f"run {i}", i * 10**9, states[i % 3]) for i in range(10_000)))
    db.executemany(
        "INSERT INTO trial (id, run_id, model, engine, engine_kind, repeat, spec, started_ns, status) "
        "VALUES (?, ?, 'm', 'e', 'k', 0, '{}', 0, 'done')",
        ((i, f"20260101-{i:06d}-abcd") for i in range(10_000)),
    )
    points = "INSERT INTO point (trial_id, kind, value, label, started_ns, ended_ns) VALUES (?, 'closed', ?, ?, 0, 1)"
    db.executemany(points, ((i, n, f"{n} clients") for i in range(10_000) for n in (1, 2, 3)))
    db.commit()
    db.close()
    with client_of(path) as client:
        assert len(shown(client, "")) == 50
        assert shown(client, "page=200")[-1] == "20260101-000000-abcd"
        assert shown(client, "q=9999") == ["20260101-009999-abcd"]
        assert "3,334 of 10,000" in client.get("/?verdict=valid").text


@pytest.mark.parametrize("order", ["slowest", "fastest", "ttft", "longest", "gap", "first"])
@pytest.mark.parametrize("kind", ["measured", "all", "failed"])
def test_requests_page_by_page_are_all_requests_once(
    filled: Path, points: dict[str, list[int]], runs: list[str], order: str, kind: str
) -> None:
    with Browser.open(filled) as reader:
        point = points[runs[2]][-1]
        whole = reader.request_lines(point, order, kind, limit=10**6)
        found, after = [], ""
        while page := reader.request_lines(point, order, kind, after, 7):
            found += page
            after = page[-1].key(order)
        counts = reader.request_counts(point)
    assert found == whole
    assert len({one.id for one in found}) == len(found) == counts[kind] > 0


def test_failures_first_then_the_slowest(filled: Path, points: dict[str, list[int]], runs: list[str]) -> None:
    with Browser.open(filled) as reader:
        found = reader.request_lines(points[runs[2]][-1], "slowest", limit=10**6)
    keys = [(-one.failed, -one.e2e) for one in found]
    assert keys == sorted(keys)
    assert found[0].failed
    assert not found[-1].failed
