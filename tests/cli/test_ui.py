from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.program import COMMAND, run


@contextmanager
def served(folder: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """The program, and what it says once it listens."""
    command = [*COMMAND, "ui", "--port", "0", "--json", *arguments]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            said = ""
            while not said.endswith("}\n"):
                line = process.stdout.readline()
                assert line, process.stderr.read() if process.stderr else ""
                said += line
            yield process, json.loads(said)
        finally:
            process.kill()


def status(url: str, **headers: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_with_no_results_it_starts_and_ctrl_c_ends_it_without_a_trace(tmp_path: Path) -> None:
    with served(tmp_path) as (process, about):
        assert about["host"] == "127.0.0.1"
        assert about["token"] == ""
        assert status(about["url"]) == 200
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 0
        assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


def test_off_the_loopback_a_token_is_made_and_asked_for(tmp_path: Path) -> None:
    with served(tmp_path, "--host", "0.0.0.0") as (_, about):
        assert len(about["token"]) >= 32
        assert about["url"].endswith(f"?token={about['token']}")
        local = f"http://127.0.0.1:{about['port']}/"
        assert status(local) == 401
        assert status(local, Authorization=f"Bearer {about['token']}") == 200


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--host", "no.such.host.invalid"], 2, "is no address of this box"),
        (["--host", "192.0.2.1"], 3, "cannot listen on 192.0.2.1"),
        (["--token-file", "missing"], 2, "no token can be read"),
        (["--token-file", "short"], 2, "holds no token"),
        (["--port", "70000"], 2, "65535"),
    ],
)
def test_what_cannot_be_served_says_why(tmp_path: Path, arguments: list[str], code: int, words: str) -> None:
    (tmp_path / "short").write_text("abc")
    assert words in run(tmp_path, "ui", *arguments, code=code).stderr


def test_a_port_in_use_says_so(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert f"port {port} is in use" in run(tmp_path, "ui", "--port", port, code=3).stderr


def test_without_the_extra_it_says_how_to_get_it(tmp_path: Path) -> None:
    hide = """import sys
sys.modules['starlette'] = None
sys.argv = ['redline', 'ui']
from redline.cli.main import run
run()"""
    done = subprocess.run([sys.executable, "-c", hide], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 3
    assert "pip install 'redline[ui]'" in done.stderr
