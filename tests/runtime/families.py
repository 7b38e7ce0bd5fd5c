"""Small random checkpoints of every family, and a driver that feeds a model by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from redline.runtime.architecture import read_config
from redline.runtime.assemble import assemble
from redline.runtime.kernels.torch import TorchKernels
from redline.runtime.model import Model
from redline.runtime.request import Request, Sampling
from redline.runtime.step import Chunk, Step
from redline.runtime.weights import load_model

SMALL = {
    "vocab_size": 199,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "eos_token_id": 3,
    "bos_token_id": 1,
    "pad_token_id": 0,
}


def _llama(**more: Any) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(**{**SMALL, **more})


def _mistral(**more: Any) -> Any:
    from transformers import MistralConfig

    return MistralConfig(**{**SMALL, **more})


def _qwen2(**more: Any) -> Any:
    from transformers import Qwen2Config

    return Qwen2Config(**{**SMALL, **more})


def _qwen3(**more: Any) -> Any:
    from transformers import Qwen3Config

    return Qwen3Config(**{**SMALL, **more})


def _rope(kind: str, **more: Any) -> dict[str, Any]:
    return {"rope_type": kind, "rope_theta": 10000.0, **more}


_LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
FAMILIES: dict[str, Callable[[], Any]] = {
    "llama-gqa": lambda: _llama(),
    "llama-mha-tied": lambda: _llama(num_key_value_heads=4, tie_word_embeddings=True),
    "llama-3-rope": lambda: _llama(rope_parameters=_rope("llama3", **_LLAMA3)),
    "llama-linear-rope-biases": lambda: _llama(
        rope_parameters=_rope("linear", factor=4.0), attention_bias=True, mlp_bias=True
    ),
    "llama-yarn-rope": lambda: _llama(
        rope_parameters=_rope("yarn", factor=8.0, original_max_position_embeddings=64), head_dim=32
    ),
    "llama-head-dim-20": lambda: _llama(hidden_size=48, head_dim=20, num_attention_heads=6, num_key_value_heads=1),
    "mistral-window": lambda: _mistral(sliding_window=11),
    "mistral-full": lambda: _mistral(sliding_window=None, head_dim=24),
    "qwen2-bias": lambda: _qwen2(tie_word_embeddings=True),
    "qwen2-upper-windows": lambda: _qwen2(use_sliding_window=True, sliding_window=9, max_window_layers=1),
    "qwen3-qk-norm": lambda: _qwen3(head_dim=32),
    "qwen3-layer-types": lambda: _qwen3(
        head_dim=16,
        attention_bias=True,
        use_sliding_window=True,
        sliding_window=7,
        layer_types=["full_attention", "sliding_attention", "full_attention"],
    ),
}


def reference(family: str) -> Any:
    """transformers' model in float32. Weights are wide and norms and biases are not trivial, so mistakes show."""
    import transformers

    torch.manual_seed(len(family))
    auto: Any = transformers.AutoModelForCausalLM
    model = auto.from_config(FAMILIES[family](), dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.normal_(1.0, 0.2) if "norm" in name else value.normal_(0.0, 0.15)
    return model.eval()


def saved(family: str, folder: Path) -> Any:
    """The reference model, written as a checkpoint."""
    model = reference(family)
    model.save_pretrained(folder)
    return model


def loaded(folder: Path, **more: Any) -> Model:
    options = {"dtype": torch.float32, "device": "cpu", "quantization": "auto", "seed": 0, "kernels": TorchKernels()}
    return load_model(read_config(folder), folder, **{**options, **more})


@dataclass
class Driver:
    """Feeds chunks of sequences to a model over pages of four tokens and returns the logits of every token."""

    model: Model
    page_size: int = 4
    pages: int = 256
    steps: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.kv = self.model.allocate_kv(self.pages, self.page_size, "cpu")

    def feed(self, *chunks: tuple[Request, int]) -> list[torch.Tensor]:
        """(request, tokens) each; logits [tokens, vocab] per chunk."""
        step = Step(self.steps, [Chunk(r, r.computed, n, samples=True) for r, n in chunks], sum(n for _, n in chunks))
        batch, _ = assemble(step, self.page_size)
        batch.logits_at = torch.arange(len(batch.ids))
        with torch.inference_mode():
            logits = self.model.logits(self.model.forward(batch, self.kv))
        self.steps += 1
        for request, n in chunks:
            request.computed += n
        return list(logits.split_with_sizes([n for _, n in chunks]))

    def decode(self, request: Request, tokens: int) -> torch.Tensor:
        """Greedy, appended to the request; logits [tokens, vocab] that chose them. Its prompt is fed as a whole."""
        found = []
        for _ in range(tokens):
            found.append(self.feed((request, len(request.tokens) - request.computed))[0][-1])
            request.tokens.append(int(found[-1].argmax()))
        return torch.stack(found)


def asked(tokens: Sequence[int], pages: Sequence[int], **sampling: Any) -> Request:
    request = Request("test", list(tokens), Sampling(temperature=0, **sampling), lambda _: None)
    request.pages = list(pages)
    return request


def prompt(length: int, seed: int = 0) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return [int(x) for x in torch.randint(4, 199, (length,), generator=generator)]
