"""The compiled pass against the torch tier, which other tests hold against transformers."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
import torch

from redline import compiled
from redline.compiled import NoCompiler
from redline.runtime.assemble import assemble
from redline.runtime.batch import Batch
from redline.runtime.config import EngineConfig
from redline.runtime.cpu import CpuRunner
from redline.runtime.kernels import KV
from redline.runtime.kernels.compiled import library
from redline.runtime.kernels.native import PAIRS, NativePass, Unfit
from redline.runtime.kernels.torch import TorchKernels
from redline.runtime.model import Model
from redline.runtime.request import Request
from redline.runtime.step import Chunk, Step
from tests.runtime.families import FAMILIES, asked, loaded, prompt, saved

PAGE = 4


@pytest.fixture(scope="session")
def built() -> None:
    try:
        library()
    except NoCompiler as why:
        pytest.skip(f"{why}; install a C compiler, e.g. apt-get install gcc")


def halved(folder: Path) -> Model:
    """Weights in bfloat16, the rest in float32, as a CPU computes small models."""
    options = {"dtype": torch.bfloat16, "activations": torch.float32, "kernels": TorchKernels(torch.bfloat16)}
    return loaded(folder, **options)


def requests(lengths: list[int]) -> list[Request]:
    pages = list(range(1, 128))
    random.Random(0).shuffle(pages)
    return [asked(prompt(n, i), [pages.pop() for _ in range(24)]) for i, n in enumerate(lengths)]


def batch_of(*chunks: Chunk) -> Batch:
    return assemble(Step(0, chunks, sum(chunk.length for chunk in chunks)), PAGE)[0]


def on_both(model: Model, native: NativePass, kv: tuple[list[KV], list[KV]], batch: Batch) -> None:
    with torch.inference_mode():
        wanted, found = model.logits(model.forward(batch, kv[0])), native.logits(batch)
        assert found.shape == wanted.shape
        scale = wanted.std() if len(wanted) else torch.ones(())
        assert torch.allclose(found, wanted, atol=0.1 * float(scale)), (found - wanted).abs().max() / scale
        for one, other in zip(*kv, strict=True):
            for side in (0, 1):
                scale = one[side].std()
                assert torch.allclose(other[side], one[side], atol=0.1 * float(scale)), "K and V"
                one[side].copy_(other[side])  # so that roundings of one step do not add up to those of the next


@pytest.mark.parametrize("family", FAMILIES)
def test_against_torch(built: None, family: str, tmp_path: Path) -> None:
    """Prompts in chunks, decodes beside them, a draft to verify; nine sequences, so every width of tile is used."""
    saved(family, tmp_path)
    model = halved(tmp_path)
    kv = model.allocate_kv(128, PAGE, "cpu"), model.allocate_kv(128, PAGE, "cpu")
    native = NativePass(model, kv[1])
    first, second, third = requests([13, 40, 7])
    on_both(model, native, kv, batch_of(Chunk(first, 0, 13, True), Chunk(second, 0, 9, False)))
    first.tokens.append(5)
    on_both(
        model, native, kv, batch_of(Chunk(first, 13, 1, True), Chunk(second, 9, 31, True), Chunk(third, 0, 7, True))
    )
    on_both(model, native, kv, batch_of(Chunk(second, 0, 20, False)))
    for one in (first, second, third):
        one.tokens.append(9)
    draft = Chunk(second, 40, 4, True, (4, 8, 15))
    on_both(model, native, kv, batch_of(Chunk(first, 14, 1, True), Chunk(third, 7, 1, True), draft))


def test_the_context_alone_is_read(built: None, tmp_path: Path) -> None:
    """NaN that another request left in the same page is not seen; NaN in the context is."""
    saved("llama-gqa", tmp_path)
    model = halved(tmp_path)
    kv = model.allocate_kv(128, PAGE, "cpu")
    native = NativePass(model, kv)
    (one,) = requests([6])
    kv[0][0][one.pages[1], 2:] = float("nan")
    assert native.logits(batch_of(Chunk(one, 0, 6, True))).isfinite().all()
    kv[0][1][one.pages[0], 1] = float("nan")
    assert native.logits(batch_of(Chunk(one, 5, 1, True))).isnan().all()


def test_long_prompts_are_left_to_torch(built: None, tmp_path: Path) -> None:
    saved("llama-gqa", tmp_path)
    model = halved(tmp_path)
    native = NativePass(model, model.allocate_kv(128, PAGE, "cpu"))
    batch = batch_of(Chunk(requests([40])[0], 0, 40, True))
    assert native.suits(batch)
    batch.host_seq_lens = [PAIRS]
    assert not native.suits(batch)
    decode = batch_of(Chunk(requests([41])[0], 40, 1, True))
    decode.host_seq_lens = [PAIRS * 2]
    assert native.suits(decode)


def test_what_it_cannot_compute_is_refused(tmp_path: Path) -> None:
    saved("llama-gqa", tmp_path)
    for more, why in (({}, "bfloat16"), ({"quantization": "int8"}, "Int8")):
        model = (
            loaded(tmp_path) if not more else loaded(tmp_path, dtype=torch.bfloat16, activations=torch.float32, **more)
        )
        with pytest.raises(Unfit, match=why):
            NativePass(model, model.allocate_kv(8, PAGE, "cpu"))


def test_it_is_compiled_once(built: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library(tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    monkeypatch.setattr(compiled, "_compile", None)
    library(tmp_path)
    monkeypatch.setattr(compiled, "cpu", lambda: "another CPU")
    with pytest.raises(TypeError):
        library(tmp_path)


def test_without_a_compiler_torch_does_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved("llama-gqa", tmp_path / "model")
    config = EngineConfig(model=tmp_path / "model", kv_cache_tokens=64, dtype="bfloat16")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for found, why in ((None, "no C compiler"), ("/bin/false", "/bin/false")):
        monkeypatch.setattr(shutil, "which", lambda name, found=found: found)
        runner = CpuRunner(config)
        assert why in runner.resolved()["kernels"]
        one = asked(prompt(5), range(1, 5))
        assert runner.collect(runner.launch(Step(0, [Chunk(one, 0, 5, True)], 5)))[0].tokens
