from __future__ import annotations

import time
from pathlib import Path

import pytest

from redline.node import checks_box
from redline.node import doctor as module
from redline.node.check import Check
from redline.node.doctor import doctor


def test_this_box(tmp_path: Path) -> None:
    began = time.monotonic()
    checks = doctor(db=tmp_path / "r.db", hub=False)
    assert time.monotonic() - began < 10  # takes 0.4 s
    names = [check.name for check in checks]
    assert len(names) == len(set(names)) >= 18
    assert {"Python", "torch", "engine vllm", "GPU", "cores", "kernel timestamps", "results file"} <= set(names)
    assert all(check.state in ("ok", "warn", "missing", "fail") for check in checks)
    assert all(check.how for check in checks if check.state == "missing")
    assert not any("could not be checked" in check.found for check in checks)
    assert list(tmp_path.iterdir()) == []


def test_an_interpreter_that_was_asked_for_and_is_not_there_fails(tmp_path: Path) -> None:
    checks = doctor([str(tmp_path / "python")], db=tmp_path / "r.db", hub=False)
    failed = [check for check in checks if check.state == "fail"]
    assert [check.name for check in failed] == ["interpreter"]
    assert "No such file" in failed[0].meaning


def test_a_check_that_breaks_is_a_finding(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(cpu: object) -> Check:
        raise KeyError("odd")

    monkeypatch.setattr(checks_box, "check_cores", broken)
    checks = {check.name: check for check in doctor(db=tmp_path / "r.db", hub=False)}
    assert checks["cores"].state == "warn"
    assert "KeyError" in checks["cores"].meaning


def test_the_environment_beside_is_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert module._places(["a"]) == ["a"]
    (tmp_path / ".venv-vllm" / "bin").mkdir(parents=True)
    (tmp_path / ".venv-vllm" / "bin" / "python").touch()
    assert module._places(["a"]) == ["a", ".venv-vllm"]
    assert module._places([".venv-vllm"]) == [".venv-vllm"]


def test_the_default_results_file_is_the_stores() -> None:
    from redline.store.read import default_path

    assert default_path() == module.DEFAULT_DB
