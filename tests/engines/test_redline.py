from __future__ import annotations

import stat
from pathlib import Path

import pytest

from redline.engines.engine import Start
from redline.engines.ready import Ready
from redline.engines.redline import OURS, PHASES, RedlineEngine, _flags, flag_table, resolved
from redline.engines.redline_flags import parser
from redline.errors import EngineStartFailed, EnvironmentFault, ModelNotFound, Unsupported, UsageError
from redline.hooks import load_engine
from redline.spec.engine import EngineSpec, FlagValue
from redline.spec.model import ModelSpec
from redline.spec.resolve import resolve_model
from redline.testing.engine_suite import EngineSuite

ENGINE = RedlineEngine()
TINY = ModelSpec(id="bundled:tiny")
SMALL: dict[str, FlagValue] = {"threads": 1, "kv-cache-tokens": 16384}


def spec(python: str = "", **flags: FlagValue) -> EngineSpec:
    return EngineSpec(kind="redline", python=python, flags={k.replace("_", "-"): v for k, v in flags.items()})


class TestRedline(EngineSuite):
    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls) -> RedlineEngine:
        return ENGINE

    @pytest.fixture(scope="class")
    @classmethod
    def spec(cls) -> EngineSpec:
        return EngineSpec(kind="redline", flags=SMALL)

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls) -> ModelSpec:
        return TINY

    def test_what_it_resolved_is_read_back(self, server: object, lines: list[str]) -> None:
        endpoint = server.endpoint  # type: ignore[attr-defined]
        assert {phase.name for phase in PHASES} <= set(endpoint.startup_ms)
        assert endpoint.flags["device"] == "cpu"
        assert endpoint.flags["torch-version"]
        assert endpoint.added["--seed"] == "3"
        assert endpoint.max_model_len == 4096


def test_it_is_known_by_its_name() -> None:
    assert load_engine("redline") is RedlineEngine


def fake_python(folder: Path, script: str) -> str:
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_redline_must_be_installed_in_the_interpreter(tmp_path: Path) -> None:
    versions = (
        '{"redline": "", "torch": "2.13", "tokenizers": "", "safetensors": "1", "starlette": "1", "uvicorn": "1"}'
    )
    python = fake_python(tmp_path, f"echo '{versions}'")
    skipped = ENGINE.available(spec(python))
    assert skipped is not None
    assert skipped.reason == f"redline, tokenizers are not installed in {python}"
    assert skipped.how_to_get_it == f"{python} -m pip install 'redline[engine]'"
    with pytest.raises(Unsupported, match="redline, tokenizers"):
        ENGINE.version(spec(python))


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"max_num_seq": 4}, "Did you mean --max-num-seqs"),
        ({"kernels": "cutlass"}, "cannot be 'cutlass'"),
        ({"threads": "many"}, "needs a number"),
        ({"enable_prefix_caching": "yes"}, "true or false"),
        ({"speculation": '{"method": "magic"}'}, "method must be ngram or draft"),
        ({"speculation": '{"method": "draft"}'}, "needs draft_model"),
        ({"speculation": "{"}, "--speculation"),
        *((({name: "x"}), "Use the") for name in OURS),
    ],
)
def test_wrong_flags(flags: dict[str, FlagValue], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        ENGINE.check(EngineSpec(kind="redline", flags=flags), TINY)


def test_what_cannot_be_said_twice_or_at_all() -> None:
    with pytest.raises(UsageError, match="dtype is given twice"):
        ENGINE.check(spec(dtype="float32"), ModelSpec(id="bundled:tiny", dtype="bfloat16"))
    with pytest.raises(ModelNotFound):
        ENGINE.check(spec(), ModelSpec(id="./no/such/folder"))


def test_the_command_line_can_be_read_back() -> None:
    model = ModelSpec(id="bundled:tiny", name="it", dtype="float32", random_weights=True)
    wanted = EngineSpec(
        kind="redline",
        flags={"enable-prefix-caching": False, "itl-target-ms": 20, "speculation": {"method": "ngram", "tokens": 3}},
    )
    ENGINE.check(wanted, ModelSpec(id="bundled:tiny"))
    ours, added = _flags(Start(wanted, model, Path(), seed=5), resolve_model(model))
    args = parser().parse_args(flag_table().arguments({**ours, **wanted.flags}))
    assert (args.served_model_name, Path(args.model).name) == ("it", "redline-tiny")
    assert (args.dtype, args.load_format, args.seed) == ("float32", "random", 5)
    assert (args.enable_prefix_caching, args.itl_target_ms) == (False, 20.0)
    assert args.speculation == {"method": "ngram", "tokens": 3}
    assert added == {"--seed": "5"}


def test_resolved_values_come_from_the_log() -> None:
    ready = Ready("http://127.0.0.1:1", [], {})
    assert resolved(ready, "nothing") == {}
    log = 'x\nredline-engine-ready {"flags": {"a": false, "threads": 3}, "versions": {"torch": "2.11"}}\ny\n'
    assert resolved(ready, log) == {"a": "false", "threads": "3", "torch-version": "2.11"}


def test_a_key_that_is_not_set(tmp_path: Path) -> None:
    wanted = EngineSpec(kind="redline", flags=SMALL, api_key_env="NO_SUCH_KEY")
    with pytest.raises(EnvironmentFault, match="NO_SUCH_KEY is not set"):
        ENGINE.start(Start(wanted, TINY, tmp_path), lambda line: None)


def test_a_server_that_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a key, which is not in the record."""
    monkeypatch.setenv("MY_KEY", "s3cret")
    wanted = EngineSpec(kind="redline", flags={**SMALL, "max-model-len": 10**6}, api_key_env="MY_KEY")
    with pytest.raises(EngineStartFailed) as caught:
        ENGINE.start(Start(wanted, TINY, tmp_path), lambda line: None)
    assert "4096" in caught.value.log_tail
    assert "s3cret" not in (tmp_path / "engine.log").read_text() + str(caught.value)
