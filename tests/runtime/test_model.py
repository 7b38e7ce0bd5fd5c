"""The model in float32 against transformers, and against itself: alone, in batches, in chunks, over any pages."""

from __future__ import annotations

import json
import random
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch

from redline.runtime.kernels.torch import TorchKernels
from redline.runtime.model import Model
from redline.runtime.weights import load_model
from tests.runtime.families import FAMILIES, Driver, asked, loaded, prompt, saved

TEXT = 256
CLOSE = 1e-5
REPEATED = ("llama-gqa", "mistral-window", "qwen3-layer-types")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    """The families that are compared with themselves."""
    found = {}
    for family in REPEATED:
        folder = tmp_path_factory.mktemp(family)
        saved(family, folder)
        found[family] = loaded(folder)
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_against_transformers(family: str, tmp_path: Path) -> None:
    """Greedy text of 256 tokens after a prompt longer than any window. That every token is the reference's arg max
    given those before it says that the reference would have written the same text."""
    reference = saved(family, tmp_path)
    driver = Driver(loaded(tmp_path))
    request = asked(prompt(40), range(1, 90))
    logits = torch.cat((driver.feed((request, 39))[0], driver.decode(request, TEXT)))
    with torch.inference_mode():
        wanted = reference(torch.tensor([request.tokens[:-1]])).logits[0]
    assert (logits - wanted).abs().max() <= 1e-4
    assert request.tokens[40:] == wanted.argmax(-1)[39:].tolist()
    assert len(set(request.tokens[40:])) > 8  # a text that repeats one token would compare little


def test_against_transformers_bundled() -> None:
    """The bundled model's loss over the start of the held-out text is the one that transformers gave."""
    folder = Path(str(files("redline") / "recipes" / "models"))
    measured = json.loads((folder / "heldout" / "measured.json").read_text())["start"]
    losses = {name: _heldout_loss(folder, name, measured["tokens"]) for name in measured["loss"]}
    assert losses == pytest.approx(measured["loss"], abs=2e-4)


@pytest.mark.parametrize(("quantization", "allowed"), [("none", 0.003), ("int8", 0.006), ("fp8", 0.03)])
def test_rounded_weights_cost_little(quantization: str, allowed: float) -> None:
    """As the CPU runs it: weights in bfloat16 or less, activations in float32. Nats per token on held-out text."""
    folder = Path(str(files("redline") / "recipes" / "models"))
    measured = json.loads((folder / "heldout" / "measured.json").read_text())["start"]
    rounded = {"dtype": torch.bfloat16, "activations": torch.float32, "kernels": TorchKernels(torch.bfloat16)}
    loss = _heldout_loss(folder, "redline-tiny", measured["tokens"], quantization=quantization, **rounded)
    assert 0 < abs(loss - measured["loss"]["redline-tiny"]) < allowed


def _heldout_loss(folder: Path, name: str, tokens: int, **more: Any) -> float:
    """Nats per token, over windows of 1,024 moved by 512; each token scored once, in the first window that has it."""
    from tokenizers import Tokenizer

    text = (folder / "heldout" / "heldout.txt").read_text()
    encoded = Tokenizer.from_file(str(folder / name / "tokenizer.json")).encode(text, add_special_tokens=False)
    ids, driver = encoded.ids[:tokens], Driver(loaded(folder / name, **more), page_size=16, pages=65)
    total, scored = 0.0, 1
    for start in range(0, tokens, 512):
        end = min(start + 1024, tokens)
        logits = driver.feed((asked(ids[start:end], range(1, 65)), end - start))[0]
        chosen = torch.log_softmax(logits[scored - start - 1 : end - start - 1], -1)
        total -= chosen.gather(1, torch.tensor(ids[scored:end])[:, None]).sum().item()
        scored = end
        if end == tokens:
            break
    return total / (tokens - 1)


@pytest.mark.parametrize("family", REPEATED)
class TestSameAsAlone:
    """The text is the same and the logits are within 1e-5: matrix products of other shapes may round differently."""

    def alone(self, model: Model, length: int = 30, seed: int = 0) -> tuple[list[int], torch.Tensor]:
        request = asked(prompt(length, seed), range(1, 30))
        logits = Driver(model).decode(request, 24)
        return request.tokens, logits

    def same(self, request: Any, logits: torch.Tensor, wanted: tuple[list[int], torch.Tensor]) -> None:
        assert request.tokens == wanted[0]
        assert (logits - wanted[1]).abs().max() <= CLOSE

    @pytest.mark.parametrize("sizes", [[1] * 30, [7, 1, 13, 9], [29, 1]])
    def test_in_chunks(self, models: dict[str, Model], family: str, sizes: list[int]) -> None:
        request, driver = asked(prompt(30), range(1, 30)), Driver(models[family])
        for size in sizes[:-1]:
            driver.feed((request, size))
        self.same(request, driver.decode(request, 24), self.alone(models[family]))

    def test_over_pages_in_any_order(self, models: dict[str, Model], family: str) -> None:
        pages = random.Random(3).sample(range(1, 256), 20)
        request = asked(prompt(30), pages)
        self.same(request, Driver(models[family]).decode(request, 24), self.alone(models[family]))

    def test_with_pages_of_another_size(self, models: dict[str, Model], family: str) -> None:
        request = asked(prompt(30), (9, 2, 5, 1))
        driver = Driver(models[family], page_size=16)
        self.same(request, driver.decode(request, 24), self.alone(models[family]))

    def test_with_a_shared_prefix(self, models: dict[str, Model], family: str) -> None:
        driver = Driver(models[family])
        driver.decode(asked(prompt(30), range(1, 30)), 1)
        request = asked(prompt(30), (*range(1, 7), *range(100, 120)))
        request.computed = 24
        self.same(request, driver.decode(request, 24), self.alone(models[family]))

    def test_beside_others(self, models: dict[str, Model], family: str) -> None:
        """Decodes of three sequences of other lengths, while a fourth is prefilled in chunks."""
        driver = Driver(models[family])
        lengths = (30, 5, 17)
        requests = [asked(prompt(n, n), range(1 + 40 * i, 41 + 40 * i)) for i, n in enumerate(lengths)]
        fourth = asked(prompt(64, 9), range(130, 150))
        logits: list[list[torch.Tensor]] = [[], [], []]
        for step in range(24):
            chunks = [(r, len(r.tokens) - r.computed) for r in requests]
            fed = driver.feed(*chunks, *([(fourth, 8)] if step < 8 else []))
            for request, kept, got in zip(requests, logits, fed, strict=False):
                kept.append(got[-1])
                request.tokens.append(int(got[-1].argmax()))
        for n, request, kept in zip(lengths, requests, logits, strict=True):
            self.same(request, torch.stack(kept), self.alone(models[family], n, n))


def test_attention_sees_the_window_and_no_more(models: dict[str, Model]) -> None:
    """A token outside of all layers' reach changes nothing; one inside does."""
    model = models["mistral-window"]
    reach = 3 * (11 - 1)
    tokens = prompt(60)
    wanted = Driver(model).feed((asked(tokens, range(1, 30)), 60))[0][-1]
    for at, same in ((59 - reach - 1, True), (59 - reach, False)):
        changed = [*tokens[:at], tokens[at] % 100 + 50, *tokens[at + 1 :]]
        logits = Driver(model).feed((asked(changed, range(1, 30)), 60))[0][-1]
        assert bool((logits - wanted).abs().max() <= 1e-7) is same


def test_random_weights_follow_the_seed(tmp_path: Path) -> None:
    saved("qwen3-qk-norm", tmp_path)
    model = loaded(tmp_path).config

    def logits(seed: int) -> torch.Tensor:
        made = load_model(
            model, None, dtype=torch.float32, device="cpu", quantization="auto", seed=seed, kernels=TorchKernels()
        )
        return Driver(made).feed((asked(prompt(20), range(1, 9)), 20))[0]

    first = logits(1)
    assert first.isfinite().all()
    assert torch.equal(first, logits(1))
    assert not torch.equal(first, logits(2))
