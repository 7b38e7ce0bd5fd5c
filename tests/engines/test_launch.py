from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from redline.engines import port as ports
from redline.engines.engine import Start
from redline.engines.guard import Proc, descendants, read_proc
from redline.engines.http import fetch
from redline.engines.launch import LaunchedServer, engine_env, interpreter, root_of
from redline.errors import EngineStartFailed, EnvironmentFault, PortInUse
from redline.spec.engine import EngineSpec
from tests.engines.stub_engine import StubEngine, start_of
from tests.engines.test_process import gone, until


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """An artifacts folder; at the end none of our children may be left (the pool of engines is empty)."""
    before = {p.pid for p in descendants(os.getpid())}
    yield tmp_path
    left = [p for p in descendants(os.getpid()) if p.pid not in before and not p.dead]
    assert until(lambda: gone(left), 10), left


def start(folder: Path, flags: dict[str, object] | None = None, **fields: object) -> LaunchedServer:
    return StubEngine().start(start_of(folder, flags, **fields), lambda line: None)


def failure(folder: Path, flags: dict[str, object], **fields: object) -> EngineStartFailed:
    with pytest.raises(EngineStartFailed) as caught:
        start(folder, flags, **fields).stop()
    return caught.value


def test_ready_means_that_it_answered(folder: Path) -> None:
    lines: list[str] = []
    server = StubEngine().start(start_of(folder, {"boot-s": 0.4}), lines.append)
    try:
        endpoint = server.endpoint
        assert lines == ["starting the process", "loading weights", "asking for a first token"]
        phases = dict(endpoint.startup_ms)
        total = phases.pop("total")
        assert list(phases) == ["spawn", "boot", "weights", "first_answer"]
        assert total == pytest.approx(sum(phases.values()), rel=0.05)
        assert phases["boot"] > 150
        assert phases["weights"] > 150
        assert endpoint.flags == {"owned-by": "stub"}
        assert endpoint.max_model_len == 4096
        assert endpoint.command[-2:] == ("--boot-s", "0.4")
        assert endpoint.added == {"--seed": "5"}
        assert endpoint.metrics_url
        assert fetch(endpoint.metrics_url).ok
        assert server.alive()
        assert server.healthy()
        assert server.diagnose() == ("", "", "")
        assert "Loading weights" in server.log_tail()
        assert "\x1b" not in server.log_tail()
    finally:
        server.stop()
    assert not server.alive()
    assert not server.healthy(0.5)
    assert (folder / "engine.log").stat().st_size > 0


def test_a_second_log_does_not_overwrite_the_first(folder: Path) -> None:
    for _ in range(2):
        start(folder).stop()
    assert sorted(p.name for p in folder.iterdir()) == ["engine-2.log", "engine.log"]


def test_death_at_the_start(folder: Path) -> None:
    began = time.monotonic()
    error = failure(folder, {"fault": "die"})
    assert time.monotonic() - began < 10
    assert error.exit_code == 4
    assert "exit code 3" in error.what
    assert "RuntimeError: it was not to be" in error.why
    assert error.log_tail.endswith("RuntimeError: it was not to be")
    assert "\x1b" not in error.log_tail


def test_death_with_a_known_reason(folder: Path) -> None:
    error = failure(folder, {"fault": "oom"})
    assert error.diagnosis == "out-of-memory"
    assert "CUDA out of memory" in error.why
    assert "max-model-len" in error.fix


def test_a_flag_that_only_the_engine_knows_to_be_wrong(folder: Path) -> None:
    plan_start = start_of(folder, {"boot-s": 0})
    bad = plan_start.spec.model_copy(update={"flags": {"boot-s": "x"}})
    with pytest.raises(Exception, match="needs a number"):
        StubEngine().start(Start(bad, plan_start.model, folder), lambda line: None)


def test_never_ready_is_a_timeout_and_leaves_nothing(folder: Path) -> None:
    error = failure(folder, {"fault": "hang"}, startup_timeout_s=1.0, stop_timeout_s=1.0)
    assert error.diagnosis == "timeout"
    assert "was not ready after 1 s" in error.what
    assert "'boot'" in error.what
    assert "stub: booting" in error.log_tail


def test_healthy_but_not_working_is_not_ready(folder: Path) -> None:
    error = failure(folder, {"fault": "health-only"})
    assert "HTTP 500: EngineCore encountered an issue" in error.what
    assert error.diagnosis == "no-answer"


def test_an_answer_that_is_no_json_is_not_ready(folder: Path) -> None:
    assert "<html>" in failure(folder, {"fault": "wrong-answer"}).what


@pytest.mark.parametrize("fault", ["garbage", "flood"])
def test_whatever_it_prints(folder: Path, fault: str) -> None:
    server = start(folder, {"fault": fault})
    server.stop()
    assert server.log_tail(5)


def test_death_is_noticed_at_once(folder: Path) -> None:
    server = start(folder)
    os.kill(server.process.pid, signal.SIGKILL)
    killed = time.monotonic()
    assert until(lambda: not server.alive(), 5)
    assert time.monotonic() - killed < 1.0
    assert server.diagnose()[0] == "host-out-of-memory"
    server.stop()


def test_one_that_ignores_sigterm_is_killed(folder: Path) -> None:
    server = start(folder, {"fault": "ignore-term"}, stop_timeout_s=0.3)
    tree = list(server.process.tree())
    server.stop()
    assert gone(tree)
    server.stop()


def test_daemons_of_the_engine_go_too(folder: Path) -> None:
    server = start(folder, {"fault": "fork-daemons"}, stop_timeout_s=0.3)
    tree = list(server.process.tree())
    assert len(tree) == 3
    assert set(server.endpoint.pids) <= {p.pid for p in tree}
    server.stop()
    assert gone(tree)


def test_an_asked_port_is_used(folder: Path) -> None:
    with ports.Claim("127.0.0.1", 0) as claim:
        port = claim.port
    server = start(folder, port=port)
    server.stop()
    assert server.endpoint.base_url == f"http://127.0.0.1:{port}/v1"
    start(folder, port=port).stop()  # at once again: connections in TIME_WAIT do not matter


def test_listening_on_every_address(folder: Path) -> None:
    server = start(folder, host="0.0.0.0")
    server.stop()
    assert server.endpoint.base_url.startswith("http://127.0.0.1:")


def test_a_port_in_use_is_told_before_anything_starts(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(PortInUse, match=f"pid {os.getpid()}"):
            start(folder, port=taken.getsockname()[1])
    assert not list(folder.iterdir())


def test_a_port_lost_in_the_race_is_picked_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody takes the free port between our release and the engine's bind; a stranger's answer is no readiness."""
    squatters: list[subprocess.Popen[bytes]] = []
    script = str(Path(__file__).with_name("stub_server.py"))
    original = ports.Claim.release

    def release_and_lose(claim: ports.Claim) -> None:
        original(claim)
        if not squatters:
            squatters.append(subprocess.Popen([sys.executable, script, "--port", str(claim.port)], stdout=-3))
            assert until(lambda: bool(ports.listeners(claim.port)))

    monkeypatch.setattr(ports.Claim, "release", release_and_lose)
    lines: list[str] = []
    server = StubEngine().start(start_of(folder), lines.append)
    try:
        assert server.healthy()
        assert any("another" in line for line in lines)
        assert len(list(folder.glob("engine*.log"))) == 2
    finally:
        server.stop()
        squatters[0].kill()
        squatters[0].wait()


def test_interruption_during_the_start_leaves_nothing(folder: Path) -> None:
    def interrupt(line: str) -> None:
        if "loading" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        StubEngine().start(start_of(folder, {"boot-s": 0.5}), interrupt)


def test_stop_while_another_thread_waits_for_it(folder: Path) -> None:
    server = start(folder, {"fault": "ignore-term"}, stop_timeout_s=1.0)
    threads = [threading.Thread(target=server.stop) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    assert not server.alive()


def test_redline_killed_while_serving(tmp_path: Path) -> None:
    code = f"""
import sys, time
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from tests.engines.stub_engine import StubEngine, start_of
start = start_of(Path({str(tmp_path)!r}), {{"fault": "fork-daemons"}}, stop_timeout_s=0.3)
server = StubEngine().start(start, lambda line: None)
print(*server.endpoint.pids, flush=True)
time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    procs: list[Proc] = [p for pid in parent.stdout.readline().split() if (p := read_proc(int(pid)))]
    assert len(procs) == 3
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert until(lambda: gone(procs))


def test_interpreter(tmp_path: Path) -> None:
    assert interpreter("") == sys.executable
    assert interpreter("python3").startswith("/")
    venv = tmp_path / "venv" / "bin"
    venv.mkdir(parents=True)
    (venv / "python").symlink_to(sys.executable)
    assert interpreter(str(tmp_path / "venv")) == str(venv / "python"), "links stay: they are the environment"
    with pytest.raises(EnvironmentFault, match="no Python interpreter"):
        interpreter(str(tmp_path / "no"))


def test_engine_env(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/bundle")
    monkeypatch.setenv("PYTHONHOME", "/wrong")
    spec = EngineSpec(kind="x", env={"A": "user", "B": "user"})
    env = engine_env(spec, "/venv/bin/python", {"A": "ours", "C": "ours"})
    assert (env["A"], env["B"], env["C"], env["PYTHONPATH"]) == ("user", "user", "ours", "/bundle")
    assert env["PATH"].startswith("/venv/bin:")
    assert "PYTHONHOME" not in env


@pytest.mark.parametrize("url", ["http://h:1/v1", "http://h:1/v1/", "http://h:1"])
def test_root_of(url: str) -> None:
    assert root_of(url) == "http://h:1"
