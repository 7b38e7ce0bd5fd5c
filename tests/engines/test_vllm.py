"""The vLLM adapter: its decisions against a made-up installation, and its promises against a real one."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from redline.engines import vllm
from redline.engines.engine import Start
from redline.engines.flags import Flag, FlagTable
from redline.engines.of_python import api_key
from redline.engines.ready import Ready
from redline.engines.url import UrlEngine
from redline.engines.vllm import VllmEngine
from redline.engines.vllm_install import Install
from redline.errors import EngineStartFailed, EnvironmentFault, ModelNotFound, UsageError
from redline.spec.engine import EngineSpec
from redline.spec.model import ModelSpec
from redline.spec.resolve import resolve_model
from tests.engines.fake_vllm import fake, spec
from tests.engines.test_conformance import vllm_python
from tests.engines.test_process import until

__all__ = ["fake"]

TABLE = FlagTable(
    [
        Flag("max-num-seqs", type="int"),
        Flag("seed", type="int"),
        Flag("load-format"),
        Flag("dtype", choices=("auto", "bfloat16")),
        Flag("enforce-eager", ("no-enforce-eager",), "toggle"),
        Flag("kv-cache-memory-bytes"),
        Flag("served-model-name", kind="list"),
        Flag("model"),
    ]
)


def test_a_cuda_build_without_a_gpu_is_skipped(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Install(str(fake), "0.26.0", "cuda", "m", "/f", 1, "vllm")
    monkeypatch.setattr(vllm, "find", lambda spec: gpu)
    monkeypatch.setattr(vllm, "gpu_present", lambda: False)
    skipped = VllmEngine().available(spec(fake))
    assert skipped
    assert "CUDA build" in skipped.reason
    monkeypatch.setattr(vllm, "gpu_present", lambda: True)
    assert VllmEngine().available(spec(fake)) is None


@pytest.mark.parametrize("flag", ["port", "host", "model", "served_model_name", "api-key"])
def test_flags_with_a_field_of_their_own_are_refused(fake: Path, flag: str) -> None:
    with pytest.raises(UsageError, match="field"):
        VllmEngine().check(spec(fake, flags={flag: "1"}), ModelSpec(id="bundled:tiny"))


def test_other_refusals(fake: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="dtype is given twice"):
        VllmEngine().check(spec(fake, flags={"dtype": "half"}), ModelSpec(id="bundled:tiny", dtype="float16"))
    with pytest.raises(ModelNotFound):
        VllmEngine().check(spec(fake), ModelSpec(id=str(tmp_path / "nope")))


def flags_of(model: ModelSpec, seed: int = 3, **more: Any) -> tuple[list[str], dict[str, str]]:
    start = Start(spec(**more), model, Path(), seed=seed)
    flags, added = vllm._flags(start, resolve_model(model), TABLE)
    return TABLE.arguments(flags), added


def test_the_model_on_the_command_line() -> None:
    arguments, added = flags_of(ModelSpec(id="bundled:tiny", dtype="bfloat16", name="t"))
    folder = str(resolve_model(ModelSpec(id="bundled:tiny")).path)
    assert arguments == ["--model", folder, "--served-model-name", "t", "--dtype", "bfloat16", "--seed", "3"]
    assert added == {"--seed": "3"}


def test_random_weights_and_the_users_own_seed() -> None:
    arguments, added = flags_of(ModelSpec(id="bundled:tiny", random_weights=True), flags={"seed": 9})
    assert arguments[-2:] == ["--load-format", "dummy"]
    assert "--seed" not in arguments
    assert added == {}


def test_old_versions_are_told_not_to_log_prompts() -> None:
    start = Start(spec(), ModelSpec(id="bundled:tiny"), Path())
    old = FlagTable([Flag("disable-log-requests", kind="switch"), Flag("seed", type="int")])
    assert vllm._flags(start, resolve_model(start.model), old)[1] == {"--seed": "0", "--disable-log-requests": "true"}
    new = FlagTable([Flag("disable-log-requests", kind="switch"), Flag("enable-log-requests", kind="toggle")])
    assert vllm._flags(start, resolve_model(start.model), new)[1] == {}


def variables(build: str, monkeypatch: pytest.MonkeyPatch, **more: Any) -> dict[str, str]:
    for name in ("PYTHONUNBUFFERED", "PYTHONFAULTHANDLER", "HF_HUB_OFFLINE", "VLLM_CPU_KVCACHE_SPACE"):
        monkeypatch.delenv(name, raising=False)
    install = Install("p", "1", build, "m", "/f", 1, "vllm")
    return vllm._variables(spec(**more), install, resolve_model(ModelSpec(id="bundled:tiny")))


def test_variables_that_redline_adds(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = variables("cuda", monkeypatch)
    assert cuda == {"PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1", "HF_HUB_OFFLINE": "1"}
    assert variables("cpu", monkeypatch)["VLLM_CPU_KVCACHE_SPACE"] in ("1", "4")
    assert "VLLM_CPU_KVCACHE_SPACE" not in variables("cpu", monkeypatch, env={"VLLM_CPU_KVCACHE_SPACE": "2"})
    assert "VLLM_CPU_KVCACHE_SPACE" not in variables("cpu", monkeypatch, flags={"gpu_memory_utilization": 0.2})
    assert "HF_HUB_OFFLINE" not in variables("cuda", monkeypatch, flags={"speculative-config": "{}"})


def test_an_api_key_is_never_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "s3cret")
    assert api_key(spec(api_key_env="MY_KEY")) == "s3cret"
    with pytest.raises(EnvironmentFault, match="OTHER_KEY is not set"):
        api_key(spec(api_key_env="OTHER_KEY"))


# --- a real vLLM ---


@pytest.fixture
def real() -> str:
    if not Path(vllm_python()).exists():
        pytest.skip(f"no vLLM at {vllm_python()}: `make vllm` installs its CPU build; or set REDLINE_VLLM_PYTHON")
    return vllm_python()


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_real_death_of_the_engine_core_is_noticed(real: str, tmp_path: Path) -> None:
    flags = {"enforce-eager": True, "max-model-len": 512, "max-num-seqs": 4}
    start = Start(spec(real, flags=flags), ModelSpec(id="bundled:tiny", dtype="bfloat16"), tmp_path)
    server = VllmEngine().start(start, lambda line: None)
    try:
        endpoint = server.endpoint
        assert endpoint.flags["max-model-len"] == "512"
        assert endpoint.flags["enforce-eager"] == "true"
        assert endpoint.flags["max-num-seqs"] == "4"
        assert endpoint.flags["dtype"] == "bfloat16"
        assert int(endpoint.flags["kv-cache-tokens"]) > 0
        assert endpoint.max_model_len == 512
        seen = (
            UrlEngine()
            .start(
                Start(EngineSpec(kind="url", url=endpoint.base_url), ModelSpec(id="tiny"), tmp_path), lambda line: None
            )
            .endpoint
        )
        assert (seen.engine, seen.dialect) == ("vllm", endpoint.dialect), "the dialect that is claimed is the real one"
        assert seen.flags["kv-cache-tokens"] == endpoint.flags["kv-cache-tokens"]
        titles = {p.pid: Path(f"/proc/{p.pid}/cmdline").read_bytes() for p in server.process.tree()}
        core = next(pid for pid, title in titles.items() if title.startswith(b"VLLM::EngineCore"))
        os.kill(core, signal.SIGKILL)
        assert until(lambda: not server.alive(), 5)
    finally:
        server.stop()
    assert not any(Path(f"/proc/{pid}").exists() for pid in endpoint.pids)


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_real_refusal_of_an_architecture(real: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(resolve_model(ModelSpec(id="bundled:tiny")).path or "", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["NopeForCausalLM"]}))
    with pytest.raises(EngineStartFailed) as caught:
        VllmEngine().start(Start(spec(real), ModelSpec(id=str(folder)), tmp_path), lambda line: None)
    assert caught.value.diagnosis == "unsupported-architecture"
    assert "NopeForCausalLM" in caught.value.why
    assert caught.value.exit_code == 4


def test_metrics_that_do_not_answer_are_no_failure() -> None:
    assert vllm._metrics(Ready("http://127.0.0.1:9", [], {}), {}) == ""
