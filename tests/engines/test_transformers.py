from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from redline.engines.engine import Start
from redline.engines.flags import Flag
from redline.engines.hf_server.flags import flag_names, parser
from redline.engines.of_python import log_variables
from redline.engines.ready import Ready
from redline.engines.transformers import (
    PHASES,
    SERVER,
    TransformersEngine,
    _flags,
    flag_table,
    resolved,
)
from redline.errors import EngineStartFailed, EnvironmentFault, ModelNotFound, Unsupported, UsageError
from redline.spec.engine import EngineSpec, FlagValue
from redline.spec.model import ModelSpec
from redline.spec.resolve import resolve_model
from redline.testing.engine_suite import EngineSuite

ENGINE = TransformersEngine()
TINY = ModelSpec(id="bundled:tiny")


def spec(python: str = "", **flags: FlagValue) -> EngineSpec:
    return EngineSpec(kind="transformers", python=python, flags={k.replace("_", "-"): v for k, v in flags.items()})


class OnTheBundledModel(EngineSuite):
    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls) -> TransformersEngine:
        return ENGINE

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls) -> ModelSpec:
        return TINY


class TestPlain(OnTheBundledModel):
    @pytest.fixture(scope="class")
    @classmethod
    def spec(cls) -> EngineSpec:
        return spec(batching="plain", threads=1)


class TestContinuous(OnTheBundledModel):
    @pytest.fixture(scope="class")
    @classmethod
    def spec(cls) -> EngineSpec:
        return spec(batching="continuous", threads=1)


def fake_python(folder: Path, script: str) -> str:
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_the_server_lies_where_the_adapter_looks() -> None:
    assert (SERVER / "__main__.py").is_file()


def test_what_is_missing_and_how_to_get_it(tmp_path: Path) -> None:
    versions = '{"torch": "", "transformers": "5.17.0", "starlette": "", "uvicorn": "0.30"}'
    python = fake_python(tmp_path, f"echo '{versions}'")
    skipped = ENGINE.available(spec(python))
    assert skipped is not None
    assert skipped.reason == f"torch, starlette are not installed in {python}"
    assert skipped.how_to_get_it == f"{python} -m pip install torch starlette"
    with pytest.raises(Unsupported, match="torch, starlette"):
        ENGINE.version(spec(python))


def test_an_interpreter_that_does_not_run(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="cannot open shared object"):
        ENGINE.available(spec(fake_python(tmp_path, "echo 'libpython: cannot open shared object' >&2; exit 127")))
    with pytest.raises(EnvironmentFault, match="no Python interpreter"):
        ENGINE.available(spec(str(tmp_path / "nowhere")))


def test_the_flags_are_those_of_the_server() -> None:
    assert ENGINE.known_flags(spec()) == flag_names()
    assert flag_table().find("max_batch_size") == Flag("max-batch-size", (), "value", "int", (), "0")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"batchng": "plain"}, "Did you mean --batching"),
        ({"batching": "continous"}, "did you mean 'continuous'"),
        ({"threads": "many"}, "needs a number"),
        ({"compile": "yes"}, "true or false"),
        ({"model": "x"}, "the model's field `id`"),
        ({"random_weights": True}, "the model's field `random_weights`"),
        ({"port": 80}, "the engine's field `port`"),
    ],
)
def test_wrong_flags(flags: dict[str, FlagValue], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        ENGINE.check(EngineSpec(kind="transformers", flags=flags), TINY)


def test_an_old_transformers_has_no_continuous_batching_to_trust(tmp_path: Path) -> None:
    versions = '{"torch": "2.6.0", "transformers": "5.12.1", "starlette": "1", "uvicorn": "1"}'
    python = fake_python(tmp_path, f"echo '{versions}'")
    with pytest.raises(Unsupported, match=r"5\.13 or newer; 5\.12\.1 is installed"):
        ENGINE.check(spec(python, batching="continuous"), TINY)
    ENGINE.check(spec(python, batching="static"), TINY)


def test_what_cannot_be_said_twice_or_at_all() -> None:
    bf16 = ModelSpec(id="bundled:tiny", dtype="bfloat16")
    with pytest.raises(UsageError, match="dtype is given twice"):
        ENGINE.check(spec(dtype="float32"), bf16)
    with pytest.raises(UsageError, match="no API key"):
        ENGINE.check(EngineSpec(kind="transformers", api_key_env="KEY"), TINY)
    with pytest.raises(ModelNotFound):
        ENGINE.check(spec(), ModelSpec(id="./no/such/folder"))


def arguments(model: ModelSpec, **flags: FlagValue) -> list[str]:
    named = {name.replace("_", "-"): value for name, value in flags.items()}
    start = Start(EngineSpec(kind="transformers", flags=named), model, Path(), seed=5)
    ours, _ = _flags(start, resolve_model(model))
    return flag_table().arguments({**ours, **start.spec.flags})


def test_the_command_line_can_be_read_back() -> None:
    model = ModelSpec(id="bundled:tiny", name="it", dtype="float32", random_weights=True)
    args = parser().parse_args(arguments(model, batching="continuous", cuda_graphs=False, max_batch_size=7))
    assert args.served_model_name == "it"
    assert Path(args.model).name == "redline-tiny"
    assert (args.dtype, args.random_weights, args.seed) == ("float32", True, 5)
    assert (args.batching, args.cuda_graphs, args.max_batch_size) == ("continuous", False, 7)
    assert parser().parse_args(arguments(TINY, seed=9)).seed == 9
    assert not parser().parse_args(arguments(TINY)).random_weights


def test_environment_of_the_user_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    found = resolve_model(TINY)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    assert log_variables(spec(), found)["HF_HUB_OFFLINE"] == "1"
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    own = EngineSpec(kind="transformers", env={"PYTHONUNBUFFERED": "0"})
    assert not {"HF_HUB_OFFLINE", "PYTHONUNBUFFERED"} & set(log_variables(own, found))


def test_resolved_values_come_from_the_log() -> None:
    ready = Ready("http://127.0.0.1:1", [], {})
    assert resolved(ready, "nothing") == {}
    log = 'x\nredline-hf-ready {"flags": {"compile": false, "threads": 3}, "versions": {"torch": "2.11"}}\ny\n'
    assert resolved(ready, log) == {"compile": "false", "threads": "3", "torch-version": "2.11"}


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    """A wrong value that only the server can know: the log's last words come with the error."""
    start = Start(spec(max_model_len=10**6), TINY, tmp_path)
    with pytest.raises(EngineStartFailed) as caught:
        ENGINE.start(start, lambda line: None)
    assert "more than the 4096 positions" in caught.value.log_tail
    assert caught.value.exit_code == 4


def test_start_up_phases_are_named(tmp_path: Path) -> None:
    lines: list[str] = []
    python = sys.executable if os.access(sys.executable, os.X_OK) else ""
    server = ENGINE.start(Start(spec(python, batching="static"), TINY, tmp_path), lines.append)
    try:
        assert {phase.name for phase in PHASES} <= set(server.endpoint.startup_ms)
        assert server.endpoint.flags["batching"] == "static"
        assert server.endpoint.flags["dtype"] == "bfloat16"
        assert server.endpoint.added["--seed"] == "0"
        assert server.endpoint.max_model_len == 4096
    finally:
        server.stop()
