from __future__ import annotations

import json
from pathlib import Path

import pytest

from redline.engines import profiling
from redline.engines.profiling import Wanted, profiled, profiler_fields, vllm_profiler
from redline.engines.redline import RedlineEngine
from redline.engines.transformers import TransformersEngine
from redline.engines.vllm import VllmEngine
from redline.engines.vllm_install import Install
from redline.errors import Unsupported, UsageError
from redline.spec.engine import EngineSpec

WANTED = Wanted(Path("/traces"), 8, 640)
NEW = """
@config
class ProfilerConfig:
    profiler: ProfilerKind | None = None
    torch_profiler_dir: str = ""
    torch_profiler_with_stack: bool = True
    detailed_trace_annotation: bool = False
    ignore_frontend: bool = False

    def compute_hash(self) -> str: ...
"""


def install(folder: Path, source: str | None) -> Install:
    (folder / "config").mkdir()
    if source is not None:
        (folder / "config" / "profiler.py").write_text(source)
    return Install("python", "0.30.0", "cpu", "vllm", str(folder), 0, "vllm")


def test_the_fields_that_this_vllm_has(tmp_path: Path) -> None:
    found = vllm_profiler(install(tmp_path, NEW), WANTED)
    assert found["torch_profiler_dir"] == "/traces"
    assert found["torch_profiler_with_stack"] is False
    assert found["detailed_trace_annotation"] is True
    assert "torch_profiler_use_gzip" not in found


def test_a_vllm_without_the_detailed_annotation(tmp_path: Path) -> None:
    older = NEW.replace("    detailed_trace_annotation: bool = False\n", "")
    assert "detailed_trace_annotation" not in vllm_profiler(install(tmp_path, older), WANTED)


@pytest.mark.parametrize("source", [None, "class Other: pass", "class ProfilerConfig(:"])
def test_a_vllm_without_a_profiler_config(tmp_path: Path, source: str | None) -> None:
    made = install(tmp_path, source)
    assert profiler_fields(made) == frozenset()
    with pytest.raises(Unsupported, match="no --profiler-config"):
        vllm_profiler(made, WANTED)


def test_an_outer_profiler(tmp_path: Path) -> None:
    outer = Wanted(Path("/traces"), 8, 640, outer=True)
    assert vllm_profiler(install(tmp_path, NEW), outer) == {"profiler": "cuda"}
    assert profiled(RedlineEngine(), EngineSpec(kind="redline"), outer).flags["profiler"] == "cuda"


def test_what_the_user_gave_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = install(tmp_path, NEW)
    monkeypatch.setattr(profiling, "find", lambda spec: made)
    spec = EngineSpec(kind="vllm", flags={"max_num_seqs": 3, "enforce-eager": True})
    flags = profiled(VllmEngine(), spec, WANTED).flags
    assert flags["max_num_seqs"] == 3
    assert "max-num-seqs" not in flags
    assert flags["enable-prefix-caching"] is False
    assert json.loads(str(flags["profiler-config"]))["profiler"] == "torch"


@pytest.mark.parametrize(
    ("batch", "flags", "batching"), [(1, {}, "plain"), (8, {}, "static"), (8, {"batching": "continuous"}, "continuous")]
)
def test_transformers_computes_the_batch_together(batch: int, flags: dict[str, str], batching: str) -> None:
    spec = EngineSpec(kind="transformers", flags=dict(flags))
    made = profiled(TransformersEngine(), spec, Wanted(Path("/t"), batch, 640))
    assert made.flags["batching"] == batching
    assert made.flags.get("max-batch-size", 1) == batch
    TransformersEngine().table().check(made.flags, "it")  # every flag is one that the server has


def test_plain_batching_has_no_batch() -> None:
    with pytest.raises(UsageError, match="one request at a time"):
        profiled(TransformersEngine(), EngineSpec(kind="transformers", flags={"batching": "plain"}), WANTED)


def test_flags_of_our_engine_exist() -> None:
    made = profiled(RedlineEngine(), EngineSpec(kind="redline"), WANTED)
    RedlineEngine().table().check(made.flags, "it")


def test_an_engine_of_a_plug_in() -> None:
    class Own:
        def profiled(self, spec: EngineSpec, wanted: Wanted) -> EngineSpec:
            return spec.model_copy(update={"flags": {"trace": str(wanted.folder)}})

    assert profiled(Own(), EngineSpec(kind="mine"), WANTED).flags == {"trace": "/traces"}
    with pytest.raises(Unsupported, match="does not know how to profile mine"):
        profiled(object(), EngineSpec(kind="mine"), WANTED)
