"""What a config.json says that decides speed: layers, heads, experts, windows, and how large each part is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

UNGATED = ("gpt2", "opt", "gpt_neox", "phi", "bloom", "falcon", "gpt_bigcode", "starcoder2")
"""Families whose feed-forward part has two matrices, not three."""
PATTERNS = {"gemma2": 2, "gemma3_text": 6, "cohere2": 4}
"""Every so many layers of a family one has no window, where its config.json leaves that to the code."""


@dataclass(frozen=True)
class Architecture:
    """A decoder. Counts are of parameters; per layer where the name does not say otherwise.

    `window` is the sliding window of `windowed` of the layers; 0 none. `latent` is MLA's compressed key and value
    together with the rope part, in elements per token and layer; 0 for ordinary attention.
    """

    layers: int
    hidden: int
    vocab: int
    heads: int
    kv_heads: int
    head: int
    """Size of a query and key head."""
    value_head: int
    attention_parameters: int
    dense_layers: int
    dense_parameters: int
    experts: int
    experts_per_token: int
    expert_parameters: int
    shared_parameters: int
    """Router and shared experts of a layer with experts."""
    head_parameters: int
    """The matrix that makes logits."""
    embedding_parameters: int
    """Read as rows, not as a whole; 0 when tied to the head."""
    window: int = 0
    windowed: int = 0
    latent: int = 0
    latent_rank: int = 0
    kv_copies: float = 1.0
    """How often the cards together hold and read the KV cache."""
    layer_fixed_state: int = 0
    """Layers with linear attention or state spaces, whose state does not grow."""

    @property
    def expert_layers(self) -> int:
        return self.layers - self.dense_layers

    @property
    def parameters(self) -> int:
        """All of them, norms aside."""
        experts = self.expert_layers * (self.experts * self.expert_parameters + self.shared_parameters)
        dense = self.dense_layers * self.dense_parameters
        return (
            self.layers * self.attention_parameters + dense + experts + self.head_parameters + self.embedding_parameters
        )

    @property
    def active_body(self) -> int:
        """Parameters that one token is multiplied with, the head aside."""
        per_expert_layer = self.experts_per_token * self.expert_parameters + self.shared_parameters
        return (
            self.layers * self.attention_parameters
            + self.dense_layers * self.dense_parameters
            + self.expert_layers * per_expert_layer
        )

    def experts_hit(self, tokens: float) -> float:
        """Expected number of a layer's experts that so many tokens reach, routed evenly: E·(1-(1-a/E)^tokens)."""
        if not self.experts:
            return 0.0
        missed: float = (1.0 - self.experts_per_token / self.experts) ** tokens
        return self.experts * (1.0 - missed)

    def read_body(self, tokens: float) -> float:
        """Parameters read for a step of so many tokens, the head aside: of the experts, those that are hit."""
        hit = self.experts_hit(tokens) * self.expert_parameters + self.shared_parameters
        return (
            self.layers * self.attention_parameters
            + self.dense_layers * self.dense_parameters
            + self.expert_layers * hit
        )

    @property
    def kv_elements(self) -> float:
        """Elements of KV cache per token of one layer."""
        return (self.latent or self.kv_heads * (self.head + self.value_head)) * self.kv_copies

    def over(self, cards: int) -> Architecture:
        """Tensor parallel: every card has KV heads of its own, more of them than there are only as copies; MLA's latent
        is the same for all heads, so each card has it whole."""
        return replace(self, kv_copies=float(cards) if self.latent else max(1.0, cards / self.kv_heads))

    def seen(self, context: float) -> float:
        """Tokens read from the cache for one new token, summed over the layers."""
        full = self.layers - self.windowed - self.layer_fixed_state
        return full * context + self.windowed * (min(context, self.window) if self.window else context)

    def causal(self, length: float) -> float:
        """Pairs of query and key of a prompt, summed over the layers; half of the square, less outside a window."""
        full = length * length / 2.0
        width = min(length, self.window) if self.window else length
        inside = length * width - width * width / 2.0
        layers = self.layers - self.windowed - self.layer_fixed_state
        return layers * full + self.windowed * inside

    @property
    def pair_flops(self) -> float:
        """FLOPs of attention for one query and one key of one layer: scores and weighted sum.

        MLA is counted absorbed, as engines decode it: every head works in the compressed space.
        """
        if self.latent:
            return 2.0 * self.heads * (self.latent + self.latent_rank)
        return 2.0 * self.heads * (self.head + self.value_head)


def architecture(config: Mapping[str, Any]) -> Architecture | None:
    """From a config.json of Hugging Face's; None when it lacks what is needed. Multimodal ones give their text part."""
    inner = config.get("text_config") or config.get("llm_config")
    config = {**config, **inner} if isinstance(inner, Mapping) else config
    try:
        return _architecture(config)
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None


def _architecture(config: Mapping[str, Any]) -> Architecture:
    hidden, layers = _whole(config, "hidden_size", "n_embd"), _whole(config, "num_hidden_layers", "n_layer")
    heads, vocab = _whole(config, "num_attention_heads", "n_head"), _whole(config, "vocab_size")
    kv_heads = int(config.get("num_key_value_heads") or heads)
    head = int(config.get("head_dim") or hidden // heads)
    latent = int(config.get("kv_lora_rank") or 0)
    attention = _mla(config, hidden, heads) if latent else hidden * head * (2 * heads + 2 * kv_heads)
    rope = int(config.get("qk_rope_head_dim") or 0)
    matrices = 2 if config.get("model_type") in UNGATED else 3
    inter = int(config.get("intermediate_size") or config.get("n_inner") or 4 * hidden)
    experts = int(_first(config, "num_experts", "num_local_experts", "n_routed_experts") or 0)
    width = int(config.get("moe_intermediate_size") or inter)
    window, windowed = _window(config, layers)
    tied = bool(config.get("tie_word_embeddings"))
    return Architecture(
        layers=layers,
        hidden=hidden,
        vocab=vocab,
        heads=heads,
        kv_heads=kv_heads,
        head=int(config.get("qk_nope_head_dim") or 0) + rope if latent else head,
        value_head=int(config.get("v_head_dim") or head) if latent else head,
        attention_parameters=attention,
        dense_layers=_dense_layers(config, layers) if experts else layers,
        dense_parameters=matrices * hidden * int(config.get("intermediate_size_mlp") or inter),
        experts=experts,
        experts_per_token=int(_first(config, "num_experts_per_tok", "experts_per_token") or 1) if experts else 0,
        expert_parameters=matrices * hidden * width,
        shared_parameters=hidden * experts + matrices * hidden * _shared_width(config, width) if experts else 0,
        head_parameters=vocab * hidden,
        embedding_parameters=0 if tied else vocab * hidden,
        window=window,
        windowed=windowed,
        latent=latent + rope if latent else 0,
        latent_rank=latent,
        layer_fixed_state=_fixed_state(config),
    )


def _mla(config: Mapping[str, Any], hidden: int, heads: int) -> int:
    """Multi-head latent attention: down and up projections of queries, keys and values, and the output."""
    rank, rope = int(config["kv_lora_rank"]), int(config["qk_rope_head_dim"])
    nope, value = int(config["qk_nope_head_dim"]), int(config["v_head_dim"])
    q_rank = int(config.get("q_lora_rank") or 0)
    query = heads * (nope + rope)
    queries = hidden * q_rank + q_rank * query if q_rank else hidden * query
    return queries + hidden * (rank + rope) + rank * heads * (nope + value) + heads * value * hidden


def _dense_layers(config: Mapping[str, Any], layers: int) -> int:
    """Layers of a model with experts that have none."""
    first = int(config.get("first_k_dense_replace") or 0)
    only = config.get("mlp_only_layers") or []
    step = int(_first(config, "decoder_sparse_step", "moe_layer_freq", "interleave_moe_layer_step") or 1)
    sparse = [i for i in range(first, layers) if i not in only and (step == 1 or (i + 1) % step == 0)]
    return layers - len(sparse)


def _shared_width(config: Mapping[str, Any], width: int) -> int:
    """Of the experts that every token passes; Llama 4 has one, which its config.json does not name."""
    count = int(config.get("n_shared_experts") or str(config.get("model_type")).startswith("llama4"))
    return int(config.get("shared_expert_intermediate_size") or 0) or count * width


def _window(config: Mapping[str, Any], layers: int) -> tuple[int, int]:
    """(window, layers that have it)."""
    window = int(config.get("sliding_window") or 0)
    if not window or config.get("use_sliding_window") is False:
        return 0, 0
    kinds = config.get("layer_types")
    if isinstance(kinds, list):
        return window, sum("sliding" in str(kind) for kind in kinds)
    pattern = int(config.get("sliding_window_pattern") or PATTERNS.get(str(config.get("model_type")), 0))
    if pattern > 1:  # every so many layers one sees everything
        return window, layers - layers // pattern
    below = config.get("max_window_layers")
    return window, layers - int(below) if below is not None and config.get("use_sliding_window") else layers


def _fixed_state(config: Mapping[str, Any]) -> int:
    kinds = config.get("layer_types")
    return sum("linear" in str(kind) or "mamba" in str(kind) for kind in kinds) if isinstance(kinds, list) else 0


def _first(config: Mapping[str, Any], *names: str) -> Any:
    return next((config[name] for name in names if config.get(name)), None)


def _whole(config: Mapping[str, Any], *names: str) -> int:
    found = _first(config, *names)
    if found is None:
        raise KeyError(names[0])
    return int(found)
