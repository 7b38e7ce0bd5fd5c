"""Prompts of hub data sets: a stand-in answers as the datasets package does, and last that package itself."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from redline.errors import EnvironmentFault, SpecError, Unsupported
from redline.load import hub_data
from redline.load.datasets import Item
from redline.load.hub_data import hub_items

Rows = list[dict[str, Any]]
Calls = list[dict[str, Any]]


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Callable[[Rows | Exception], Calls]:
    def install(rows: Rows | Exception) -> Calls:
        calls: Calls = []
        made = ModuleType("datasets")

        def load_dataset(path: str, **how: Any) -> Rows:
            calls.append({"path": path, **how})
            if isinstance(rows, Exception):
                raise rows
            return rows

        made.load_dataset = load_dataset  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "datasets", made)
        return calls

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    return install


def read(column: str = "", rows: int = 100) -> list[Item]:
    return hub_items("owner/name", "train", column, rows, [])


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"id": 1, "question": "why"}, "why"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, "a"),
        ({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}]}, "s\na"),
        ({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}, "a"),
    ],
)
def test_prompts_are_found_in_the_usual_columns(package: Any, row: dict[str, Any], said: str) -> None:
    package([row])
    assert [item.text for item in read()] == [said]


def test_a_column_can_be_named_and_lengths_are_taken(package: Any) -> None:
    package([{"prompt": "not this", "mine": "this", "output_tokens": 7}, {"prompt": "", "mine": " "}])
    [item] = read("mine")
    assert (item.text, item.output_tokens) == ("this", 7)


def test_no_more_is_read_than_needed_and_nothing_is_fetched_offline(package: Any) -> None:
    calls = package([{"text": str(i)} for i in range(50)])
    notes: list[str] = []
    assert len(hub_items("owner/name", "test", "", 5, notes)) == 5
    assert calls == [{"path": "owner/name", "split": "test", "streaming": False}]
    assert notes == ["5 prompts of owner/name, split test (from the cache)"]


def test_online_it_streams(package: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = package([{"text": "a"}])
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.delenv("HF_DATASETS_OFFLINE")
    monkeypatch.setattr(hub_data, "hub_answer", lambda page: 200 if page == "datasets/owner/name" else 404)
    read()
    assert calls[0]["streaming"] is True


@pytest.mark.parametrize(
    ("rows", "column", "kind", "said"),
    [
        ([{"x": 1}], "", SpecError, "has no column of prompts"),
        ([{"x": 1}], "y", SpecError, "hub_column: one of x"),
        ([{"x": 1}], "x", SpecError, "neither text nor messages"),
        ([], "", SpecError, "holds no row"),
        (ConnectionError("no network\nat all"), "", EnvironmentFault, "cannot be read: no network"),
    ],
)
def test_what_is_wrong_is_said_with_a_way_out(package: Any, rows: Any, column: str, kind: Any, said: str) -> None:
    package(rows)
    with pytest.raises(kind) as caught:
        read(column)
    assert said in str(caught.value)
    assert caught.value.fix


def test_without_the_package_the_way_to_get_it_is_said(package: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(Unsupported, match="needs the datasets package") as caught:
        read()
    assert "jsonl" in caught.value.fix


def test_against_the_real_package(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    (tmp_path / "train.jsonl").write_text('{"question": "who is there"}\n')
    assert [item.text for item in hub_items(str(tmp_path), "train", "", 5, [])] == ["who is there"]
