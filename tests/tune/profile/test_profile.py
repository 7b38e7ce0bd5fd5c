"""Real engines on a CPU, profiled at an exact batch and context."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from redline.analyse.profile.record import Profile, profile_from
from redline.cli.profile_files import write_profile
from redline.errors import UsageError
from redline.spec.engine import EngineSpec
from redline.spec.model import ModelSpec
from redline.store.ceilings import Ceilings, card_of, keep
from redline.tune.profile.profile import Options, Profiled, profile

pytest.importorskip("torch")
VLLM = Path(os.environ.get("REDLINE_VLLM_PYTHON") or Path(__file__).parents[3] / ".venv-vllm" / "bin" / "python")
TINY = ModelSpec(id="bundled:tiny")


@pytest.fixture(scope="module")
def redline(tmp_path_factory: pytest.TempPathFactory) -> tuple[Profiled, Path]:
    """Our engine through torch's kernels, so that each operator is seen."""
    from redline.node.facts import facts

    folder = tmp_path_factory.mktemp("profile")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        card, driver = card_of(facts())
        keep(Ceilings(card, driver, "2.13", 40e9, 30e9, {"fp32": 2e11, "bf16": 4e11}))
        spec = EngineSpec(kind="redline", flags={"kernels": "torch", "threads": 1})
        made = profile(TINY, [spec], folder / "out", Options(batches=(3,), contexts=(64,), steps=6))
    return made, folder / "out"


def test_a_decode_step_and_a_prefill_step(redline: tuple[Profiled, Path]) -> None:
    (engine,) = redline[0].profile.engines
    assert engine.failed == engine.skipped == ""
    assert [(one.phase, one.batch, one.asked) for one in engine.phases] == [("decode", 3, 64), ("prefill", 1, 64)]
    decode, prefill = (one.breakdown for one in engine.phases)
    assert decode is not None
    assert prefill is not None
    assert (decode.generated, decode.requests, decode.prompt_tokens) == (3, 3, 0)
    assert (prefill.prompt_tokens, prefill.generated) == (64, 0)
    for part in (decode, prefill):
        assert sum(part.by_class.values()) == pytest.approx(part.busy_us)
        assert part.busy_us + part.gap_us == pytest.approx(part.step_us)
        assert {"matrix product", "attention", "norm and elementwise"} <= set(part.by_class)
        assert not part.device
    assert decode.steps >= 3
    assert engine.phases[0].context > 64
    assert engine.phases[0].step_ms > 0


def test_the_kv_cache_is_what_the_formula_says(redline: tuple[Profiled, Path]) -> None:
    (one,) = redline[0].profile.engines[0].memory
    assert one.measured_bytes is not None
    assert one.sequences == 3
    pages = 3 * 64 * one.formula_bytes / (one.sequences * one.tokens)  # each sequence fills its last page in part
    assert one.formula_bytes * 0.95 <= one.measured_bytes <= one.formula_bytes + 2 * pages


def test_what_holds_it_is_told(redline: tuple[Profiled, Path]) -> None:
    for one in redline[0].profile.engines[0].phases:
        assert one.standing is not None
        assert one.standing.floor_s > 0
        assert one.standing.why
        assert one.host_ms is not None


def test_its_files(redline: tuple[Profiled, Path], tmp_path: Path) -> None:
    made, folder = redline
    names = {path.name for path in write_profile(made, tmp_path)}
    assert names == {"notes.md", "profile.json", "timeline.html"}
    text = (tmp_path / "notes.md").read_text()
    for part in ("Where a step goes: decode, batch 3, context 64", "What holds it", "KV cache", "matrix product"):
        assert part in text
    for line in text.splitlines():
        if line.startswith("!["):
            assert (tmp_path / line.partition("](")[2].rstrip(")")).is_file()
    back: Profile = profile_from(json.loads((tmp_path / "profile.json").read_text()))
    assert back.engines[0].phases[0].breakdown == made.profile.engines[0].phases[0].breakdown
    page = (tmp_path / "timeline.html").read_text()
    assert "http://" not in page
    assert "https://" not in page
    assert len(json.loads(page.partition('type="application/json">')[2].partition("</script>")[0])["panels"]) == 2
    assert sorted(path.name for path in (folder / "redline").glob("*.gz")) == [
        "decode-b3-c64.trace.json.gz",
        "prefill-b1-c64.trace.json.gz",
    ]


def test_transformers(tmp_path: Path) -> None:
    """Static batching holds the batch together; every forward pass is a step."""
    options = Options(batches=(2,), contexts=(48,), prefill_batches=(2,), steps=4, repeats=1, keep_traces=False)
    (engine,) = profile(
        TINY, [EngineSpec(kind="transformers", flags={"threads": 1})], tmp_path, options
    ).profile.engines
    assert engine.failed == ""
    decode, prefill = (one.breakdown for one in engine.phases)
    assert decode is not None
    assert prefill is not None
    assert (decode.generated, prefill.prompt_tokens) == (2, 96)
    assert "attention" in decode.by_class
    assert engine.backend == "sdpa"
    assert not list(tmp_path.rglob("*.trace.json*"))


def test_a_context_that_leaves_no_room(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="leaves no room"):
        profile(TINY, [EngineSpec(kind="redline")], tmp_path, Options(contexts=(4090,)))


def test_an_engine_that_does_not_start_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    dead = EngineSpec(kind="redline", name="dead", flags={"max-model-len": 10**7})
    nowhere = EngineSpec(kind="url", name="nowhere", url="http://127.0.0.1:9/v1")
    found = profile(TINY, [dead, nowhere], tmp_path, Options(contexts=(32,), phases=("prefill",), repeats=1))
    assert [bool(one.failed) for one in found.profile.engines] == [True, True]
    assert "no server answers" in found.profile.engines[1].failed


@pytest.mark.parametrize(
    "wrong",
    [{"batches": ()}, {"contexts": (0,)}, {"steps": 1}, {"repeats": 0}, {"phases": ("decoding",)}, {"phases": ()}],
)
def test_options_that_make_no_sense(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Options(**wrong)  # type: ignore[arg-type]


@pytest.mark.vllm
@pytest.mark.timeout(600)
@pytest.mark.skipif(not VLLM.exists(), reason=f"no vLLM at {VLLM}; get it with `make vllm`")
def test_vllm(tmp_path: Path) -> None:
    spec = EngineSpec(kind="vllm", python=str(VLLM), flags={"enforce-eager": True})
    options = Options(batches=(2,), contexts=(64,), steps=4, repeats=1)
    (engine,) = profile(ModelSpec(id="bundled:tiny", dtype="bfloat16"), [spec], tmp_path, options).profile.engines
    assert engine.failed == engine.skipped == ""
    decode, prefill = (one.breakdown for one in engine.phases)
    assert decode is not None
    assert prefill is not None
    assert (decode.generated, prefill.prompt_tokens) == (2, 64)
    assert decode.kv_tokens > 2 * 64  # its annotation says how long the sequences are
    assert "vLLM CPU attention" in engine.backends()
    assert engine.memory[0].measured_bytes
