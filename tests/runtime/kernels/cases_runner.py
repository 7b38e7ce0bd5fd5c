"""Run by `test_against_torch.py` with TRITON_INTERPRET=1: the engine on Triton kernels says what plain torch says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from triton.runtime import build

from redline.runtime.architecture import read_config
from redline.runtime.chunk_graphs import ChunkGraphs, ChunkStep
from redline.runtime.config import EngineConfig
from redline.runtime.gpu import GpuRunner
from redline.runtime.graph import Decoder
from redline.runtime.kernels.choose import Call, Chooser
from redline.runtime.kernels.triton import TritonKernels, few
from redline.runtime.kernels.triton_decode import TritonDraw
from redline.runtime.kernels.triton_linear import candidates
from redline.runtime.kernels.triton_step import DecodeStep, suits
from redline.runtime.kernels.warm import Start, first_launches, keep_launchers_apart, one_sequence, run_all
from redline.runtime.layout import Layout
from redline.runtime.linear import FP8, Plain
from redline.runtime.model import Model
from redline.runtime.step import Chunk
from tests.runtime.answers import CASES, answers, right_answers, small_checkpoint

TINY = Path(__file__).resolve().parents[3] / "src/redline/recipes/models/redline-tiny"


@pytest.mark.parametrize("padded", [False, True])
def test_same_text(padded: bool, tmp_path: Path) -> None:
    """`padded`: steps with prompts as they are captured on a GPU."""
    small_checkpoint(tmp_path)
    config = EngineConfig(
        model=tmp_path,
        dtype="float32",
        device="cpu",
        kernels="triton",
        page_size=8,
        kv_cache_tokens=120,
        max_num_seqs=3,
        max_num_batched_tokens=24,
        max_model_len=64,
        run_ahead=1,
    )
    runner = GpuRunner(config)
    assert runner.resolved()["kernels"] == "triton"
    ran: list[int] = []
    if padded:
        runner.chunks = ChunkGraphs(runner.decoder, 32, 3)
        runner.chunks.prepare()
        fits = runner.chunks.fits

        def counted(chunks: Sequence[Chunk], layout: Layout) -> ChunkStep | None:
            found = fits(chunks, layout)
            ran.append(found.size.tokens if found else 0)
            return found

        runner.chunks.fits = counted  # type: ignore[method-assign]
    cases = CASES[:4]
    right = right_answers(runner.model, cases)
    assert answers(runner, config, cases) == right
    assert set(ran) == ({16, 32} if padded else set())


def test_a_part_of_a_prompt_needs_no_products_of_its_last_layer(tmp_path: Path) -> None:
    small_checkpoint(tmp_path)
    config = EngineConfig(model=tmp_path, dtype="float32", device="cpu", kernels="triton", kv_cache_tokens=256)
    runner = GpuRunner(replace(config, page_size=8, max_num_seqs=2, max_model_len=64))
    assert few(0) == 0
    batch = replace(one_sequence(5, torch.device("cpu")), logits_at=torch.empty(0, dtype=torch.int64))
    assert runner.model.forward(batch, runner.setup.kv).shape == (0, 64)


def own_weights(model: Model) -> None:
    """On a CPU weights are packed for it; these are as on a GPU."""
    for layer in model.layers:
        layer.qkv, layer.o, layer.gate_up, layer.down = (
            Plain(one.dequantized().contiguous()) for one in (layer.qkv, layer.o, layer.gate_up, layer.down)
        )
    model.head = Plain(model.head.dequantized().contiguous())


def test_the_fastest_way_is_taken(tmp_path: Path) -> None:
    """Times are made up here; that every candidate runs and computes the same is not."""
    small_checkpoint(tmp_path)
    config = EngineConfig(model=tmp_path, dtype="float32", device="cpu", kernels="triton", kv_cache_tokens=2048)
    runner = GpuRunner(replace(config, page_size=16, max_num_seqs=2, max_model_len=256))
    kernels, model = runner.kernels, runner.model
    assert isinstance(kernels, TritonKernels)
    own_weights(model)
    assert suits(model)
    step = DecodeStep(model, kernels)
    seen: list[str] = []

    def timer(call: Call, count: int) -> float:
        call(0)
        call(count - 1)
        seen.append("")
        return 1.0 / len(seen)  # the later, the faster

    chooser = Chooser(kernels, model, step, timer=timer, budget_s=1e9)
    chooser.choose(runner.setup.kv, [1, 2, 3], 16, runner.limits.pages, 256)
    assert {tokens for _, tokens in step.ways} == {1, 16}
    assert {what for what, _ in step.ways} == {"qkv", "o", "gate_up", "down", "head"}
    assert {key[0] for key in kernels.products} == {16}
    assert set(kernels.attending) == {1, 2, 3}
    assert kernels.attending[3] == kernels.attending[2]
    assert "attention (2 rows, context 256)" in chooser.notes
    x = torch.randn(2, 64, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(kernels.linear(x, model.layers[0].qkv), model.layers[0].qkv.apply(x), atol=1e-5)
    late = Chooser(kernels, model, timer=timer, budget_s=-1.0)
    assert late.best("anything", {"usual": lambda i: i, "other": lambda i: i}, 1) == "usual"
    assert "no time" in late.notes["anything"]


@pytest.mark.parametrize(
    ("rows", "own"),
    [(1, "none"), (1, "all"), (3, "all"), (3, "o and head"), (3, "gate_up and qkv"), (3, "without norms"), (16, "all")],
)
def test_a_decode_step_is_the_models_forward_pass(rows: int, own: str, tmp_path: Path) -> None:
    """With every mixture of own products and the library's."""
    small_checkpoint(tmp_path)
    config = EngineConfig(model=tmp_path, dtype="float32", device="cpu", kernels="triton", kv_cache_tokens=2048)
    runner = GpuRunner(replace(config, page_size=16, max_num_seqs=32, max_model_len=64))
    model, kernels = runner.model, runner.kernels
    assert isinstance(kernels, TritonKernels)
    own_weights(model)
    step = DecodeStep(model, kernels)
    for what in ("qkv", "o", "gate_up", "down", "head"):
        weight = model.head if what == "head" else getattr(model.layers[0], what)
        assert isinstance(weight, Plain)
        *_, way = candidates(rows, weight).values()
        if own in ("all", "without norms") or what in own:
            norms = what not in ("o", "down") and rows < 17 and own != "without norms"
            step.ways[what, few(rows)] = way._replace(norms=norms)
    decoder = Decoder(model, runner.setup.draw, runner.tables, runner.setup.kv, 64)
    batch = decoder.batch(rows)
    batch.ids.copy_(torch.arange(rows))
    batch.seq_lens.fill_(1)
    batch.page_tables[:, 0] = torch.arange(1, rows + 1)
    batch.slots.copy_(batch.page_tables[:, 0] * 16)
    found = torch.empty(rows, model.config.vocab_size)
    with torch.inference_mode():
        step.logits(batch, runner.setup.kv, found)
        right = model.logits(model.forward(decoder.batch(rows), runner.setup.kv))
    assert torch.allclose(found, right, atol=2e-5)


def test_first_launches_all_run() -> None:
    model = replace(read_config(TINY), num_layers=2, window=(None, 16), vocab_size=3000)
    cpu, seen = torch.device("cpu"), []
    start = Start(16, 4, 64, torch.float32, FP8, cpu, fp8=True, fused=True)
    for call in first_launches(TritonKernels(), TritonDraw(), model, start):
        seen.append(call)
        call()
    assert len(seen) >= 8 + 4 + 5
    wait = run_all(cpu, [lambda: seen.clear(), lambda: 1 / 0])
    wait()
    assert not seen


def test_a_launcher_is_its_own_however_many_load_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules of one name share their functions, as extension modules do."""
    shared = SimpleNamespace()

    def load(name: str, path: str) -> SimpleNamespace:
        shared.launch = path
        return shared

    monkeypatch.setattr(build, "_load_module_from_path", load)
    keep_launchers_apart.__wrapped__()
    first, second = (build._load_module_from_path("launcher", path) for path in ("a", "b"))
    assert (first.launch, second.launch) == ("a", "b")
