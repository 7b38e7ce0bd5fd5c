"""The tensors a plain checkpoint of a model has, by name and shape, and how they are fused."""

from __future__ import annotations

from typing import NamedTuple

from redline.runtime.architecture import ModelConfig


class Part(NamedTuple):
    """One linear layer of the checkpoint, [out, inputs]; several of them side by side make a fused one."""

    module: str
    out: int
    inputs: int
    bias: bool


def fused_parts(model: ModelConfig, layer: int) -> dict[str, list[Part]]:
    at, hidden, inner = f"model.layers.{layer}.", model.hidden_size, model.intermediate_size
    queries, keys = model.num_heads * model.head_dim, model.num_kv_heads * model.head_dim
    sizes = (("q_proj", queries), ("k_proj", keys), ("v_proj", keys))
    return {
        "qkv": [Part(f"{at}self_attn.{name}", out, hidden, model.qkv_bias) for name, out in sizes],
        "o": [Part(f"{at}self_attn.o_proj", hidden, queries, model.o_bias)],
        "gate_up": [Part(f"{at}mlp.{name}", inner, hidden, model.mlp_bias) for name in ("gate_proj", "up_proj")],
        "down": [Part(f"{at}mlp.down_proj", hidden, inner, model.mlp_bias)],
    }


def parts_of(model: ModelConfig) -> list[Part]:
    """All linear layers, the head left out."""
    return [part for layer in range(model.num_layers) for parts in fused_parts(model, layer).values() for part in parts]


def plain_shapes(model: ModelConfig) -> dict[str, tuple[int, ...]]:
    """All tensors but those of `parts_of`: embedding, norms, and the head where it is not tied."""
    hidden = (model.hidden_size,)
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (model.vocab_size, model.hidden_size),
        "model.norm.weight": hidden,
    }
    if not model.tied:
        shapes["lm_head.weight"] = (model.vocab_size, model.hidden_size)
    for layer in range(model.num_layers):
        at = f"model.layers.{layer}."
        shapes[at + "input_layernorm.weight"] = shapes[at + "post_attention_layernorm.weight"] = hidden
        if model.qk_norm:
            shapes[at + "self_attn.q_norm.weight"] = shapes[at + "self_attn.k_norm.weight"] = (model.head_dim,)
    return shapes


def part_shapes(part: Part) -> dict[str, tuple[int, ...]]:
    """A plain part's tensors."""
    found: dict[str, tuple[int, ...]] = {part.module + ".weight": (part.out, part.inputs)}
    if part.bias:
        found[part.module + ".bias"] = (part.out,)
    return found
