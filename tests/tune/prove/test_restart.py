"""A server that somebody else runs, started again for every value by a command of theirs: real processes, which take a
setting when they start."""

from __future__ import annotations

import os
import signal
import socket
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from redline.errors import EngineStartFailed
from redline.spec.engine import EngineSpec
from redline.spec.experiment import Experiment
from redline.tune.prove.prove import Options, Proven, prove
from tests.tune.prove.boxes import box, experiment, planted, value

START = "vm.max_map_count"
SCRIPT = """#!/bin/sh
# ends the server that runs and starts one that is as slow as the setting says
set -e
cd {folder}
echo again >>starts
if [ -s pid ]; then
  kill "$(cat pid)"
  while kill -0 "$(cat pid)" 2>/dev/null; do sleep 0.05; done
fi
{python} -m redline.load.paced --port {port} --ttft-ms "$(cat {setting})0" --itl-ms 1 >>log 2>&1 </dev/null &
echo $! >pid
"""


class Service:
    """What an operator has: a script that restarts the server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.script = folder / "restart"
        setting = planted(folder / "box", START)
        self.script.write_text(
            SCRIPT.format(folder=folder, python=sys.executable, port=self.port, setting=setting),
        )
        self.script.chmod(self.script.stat().st_mode | stat.S_IXUSR)

    @property
    def starts(self) -> int:
        path = self.folder / "starts"
        return len(path.read_text().split()) if path.exists() else 0

    def stop(self) -> None:
        path = self.folder / "pid"
        if path.exists() and path.read_text().strip():
            os.kill(int(path.read_text()), signal.SIGTERM)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    box(tmp_path / "box")
    made = Service(tmp_path)
    yield made
    made.stop()


@pytest.fixture(autouse=True)
def _every_round_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("redline.tune.prove.arms._BARRED", ())


def asked(port: int) -> Experiment:
    url = EngineSpec(kind="url", url=f"http://127.0.0.1:{port}/v1")
    return experiment({}, requests=8, concurrency=[2]).model_copy(update={"engines": [url]})


def run(service: Service, command: str, setting: str = f"{START}=1", **more: object) -> Proven:
    options = Options(**{"rounds": 3, "settle_s": 0.0, "metrics": ("ttft_ms.p50",), "restart": command, **more})  # type: ignore[arg-type]
    return prove(
        asked(service.port), [setting], options,
        sys=box(service.folder / "box"), state_dir=service.folder / "state", db=service.folder / "r.db",
    )  # fmt: skip


def test_the_command_starts_it_for_every_round_and_the_value_arrives(service: Service) -> None:
    done = run(service, str(service.script))
    assert (done.status, done.errors, done.left) == ("done", [], [])
    assert service.starts == 6
    (proof,) = done.proofs
    assert proof.how == "engine started for every round"
    assert proof.verdict == "helps"
    assert proof.effects[0].effect.ratio < 0.8, "30 ms against 10 ms, and what the client adds to both"
    assert value(service.folder / "box", START) == "3\n"


def test_its_start_can_be_timed(service: Service) -> None:
    done = run(service, str(service.script), measure="load", metrics=())
    assert service.starts == 6
    assert [one.effect.metric for one in done.proofs[0].effects] == ["load_s"]


@pytest.mark.parametrize(
    ("command", "why"),
    [("false", "ended with 1"), ("/no/such/program", "No such file"), ("true", "nothing answers")],
)
def test_a_command_that_starts_nothing_is_a_fault_of_the_engine(service: Service, command: str, why: str) -> None:
    """And the box is as before."""
    began = time.monotonic()
    url = EngineSpec(kind="url", url=f"http://127.0.0.1:{service.port}/v1", startup_timeout_s=1.0)
    options = Options(rounds=3, settle_s=0.0, restart=command)
    done = prove(
        asked(service.port).model_copy(update={"engines": [url]}), [f"{START}=1"], options,
        sys=box(service.folder / "box"), state_dir=service.folder / "state", db=service.folder / "r.db",
    )  # fmt: skip
    assert why in str(done.errors[0])
    assert isinstance(done.errors[0], EngineStartFailed)
    assert done.proofs[0].verdict == "not measured"
    assert value(service.folder / "box", START) == "3\n"
    assert time.monotonic() - began < 60
