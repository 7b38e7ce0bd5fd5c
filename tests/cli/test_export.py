from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.report.stored import FAST, write_run


def redline(folder: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "redline", *arguments], capture_output=True, text=True, timeout=50, cwd=folder
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def test_files_are_named_and_a_missing_slo_is_said(tmp_path: Path) -> None:
    done = redline(tmp_path, "export", "monitoring", "out")
    assert all((tmp_path / line).is_file() for line in done.stdout.splitlines())
    assert "no SLO is given" in done.stderr
    said = json.loads(redline(tmp_path, "export", "monitoring", "out", "--slo-ttft", "300", "--json").stdout)
    assert said["slo"]["ttft_ms"] == 300
    assert "ttft" in (tmp_path / "out/prometheus/rules/slo.yml").read_text()


def test_the_exporter_ends_quietly(tmp_path: Path) -> None:
    write_run(tmp_path / "r.db", [FAST], clients=(2,))
    command = [sys.executable, "-m", "redline", "export", "prometheus", "--db", "r.db", "--port", "0"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[0]
        assert url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(url, timeout=10) as answer:
            assert b"redline_requests_total" in answer.read()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["export", "prometheus", "nosuch", "--db", "r.db"], 2, "no run 'nosuch'"),
        (["export", "monitoring", "m", "--success", "2"], 2, "no share"),
        (["dashboard", "shot", "engine", "--prometheus", "http://127.0.0.1:9"], 3, "no Prometheus answers"),
        (["node", "export", "--as", "bash", "-f", "e.yaml"], 2, "not exported as bash"),
    ],
)
def test_wrong_input_is_told_in_words(arguments: list[str], code: int, said: str, tmp_path: Path) -> None:
    if "r.db" in arguments:
        write_run(tmp_path / "r.db", [FAST], clients=(1,))
    assert said in redline(tmp_path, *arguments, code=code).stderr
