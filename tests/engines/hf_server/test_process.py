"""The server as a process of its own: by path, and every way not to start."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from redline.engines import hf_server
from tests.engines.hf_server.live import Live

SERVER = Path(hf_server.__file__).parent


def run(*flags: str, options: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    command = [sys.executable, *options, str(SERVER), "--host", "127.0.0.1", *flags]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def fails(*flags: str) -> tuple[int, str]:
    process = run(*flags)
    _, errors = process.communicate(timeout=50)
    return process.returncode, errors


@pytest.mark.timeout(300)  # torch is imported once more, which a busy box takes its time for
def test_by_path_without_redline(tiny: Path) -> None:
    """Ready, with its resolved values on one line; SIGTERM ends it well."""
    block = "import sys; sys.modules['redline'] = None; import runpy; sys.argv = sys.argv[1:]; "
    command = [sys.executable, "-c", block + "runpy.run_path(sys.argv[0], run_name='__main__')", str(SERVER)]
    flags = ["--model", str(tiny), "--port", "0", "--batching", "continuous", "--random-weights", "--dtype", "bfloat16"]
    flags += ["--threads", "1"]  # two on a busy core wait for each other, busily
    process = subprocess.Popen([*command, *flags], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("redline-hf-ready "):
                break
        report: dict[str, Any] = json.loads(lines[-1].removeprefix("redline-hf-ready "))
        assert report["flags"]["random-weights"] is True
        assert report["flags"]["dtype"] == "bfloat16"
        assert report["flags"]["attn-implementation"].endswith("sdpa")
        assert report["flags"]["num-blocks"] > 0
        assert list(report["phases_ms"])[-1] == "warming up"
        with socket.create_connection(("127.0.0.1", report["port"]), timeout=5):
            pass
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.communicate()


def test_the_port_is_taken(tiny: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, errors = fails("--model", str(tiny), "--port", str(taken.getsockname()[1]))
    assert code == 1
    assert "Address already in use" in errors


@pytest.mark.parametrize(
    ("flags", "code", "says"),
    [
        (["--modle", "x"], 2, "required: --model"),
        (["--model", "x", "--batching", "fast"], 2, "invalid choice"),
        (["--model", "x", "--nonsense"], 2, "unrecognized arguments: --nonsense"),
        (["--model", "x", "--batching", "static", "--compile"], 1, "--compile is not supported"),
    ],
)
def test_wrong_flags_fail_before_torch_is_imported(flags: list[str], code: int, says: str) -> None:
    found, errors = fails("--port", "0", *flags)
    assert found == code
    assert says in errors


def test_no_model(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert Live(tmp_path).run_to_the_end() == 1
    assert capfd.readouterr().err.splitlines()[-1].startswith("error: ")


def test_longer_than_the_model(tiny: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert Live(tiny, "--max-model-len", "100000").run_to_the_end() == 1
    assert "more than the 512 positions" in capfd.readouterr().err.splitlines()[-1]


def test_no_such_device(tiny: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    assert Live(tiny, "--device", "cuda").run_to_the_end() == 1
    assert "no CUDA device" in capfd.readouterr().err


def test_not_ready_while_loading(tiny: Path) -> None:
    """Health, models and completions say 503 until the warm-up is over."""
    server = Live(tiny)
    enough = threading.Event()
    server.life.load = lambda *_: enough.wait(50)  # type: ignore[assignment]
    with server.listening(enough):
        assert server.request("GET", "/health").status == 503
        assert server.request("GET", "/v1/models").status == 503
        assert server.ask(prompt="x").status == 503
        assert server.request("GET", "/metrics").status == 200
