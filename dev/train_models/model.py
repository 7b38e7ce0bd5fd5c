"""The Llama architecture as trained: parameter names of transformers' LlamaForCausalLM, plus dropout."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


@dataclass(frozen=True)
class Shape:
    """Sizes of one model, under the names of a Hugging Face config."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    intermediate_size: int
    head_dim: int = 64
    vocab_size: int = 4096
    max_position_embeddings: int = 4096
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0

    def asdict(self) -> dict[str, Any]:
        return asdict(self)


TARGET = Shape(384, 4, 6, 2, 1024)
DRAFT = Shape(128, 2, 2, 1, 256)
SMOKE = Shape(64, 2, 2, 1, 128, head_dim=32)


def rope(shape: Shape, device: torch.device) -> tuple[Tensor, Tensor]:
    """cos and sin, each [positions, head_dim]."""
    power = torch.arange(0, shape.head_dim, 2, device=device).float() / shape.head_dim
    angles = torch.outer(torch.arange(shape.max_position_embeddings, device=device).float(), shape.rope_theta**-power)
    both = torch.cat((angles, angles), dim=-1)
    return both.cos(), both.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    left, right = x.chunk(2, dim=-1)
    return x * cos.to(x.dtype) + torch.cat((-right, left), dim=-1) * sin.to(x.dtype)


class Norm(nn.Module):
    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(size)), eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), (x.shape[-1],), self.weight.float(), self.eps).to(x.dtype)


class Attention(nn.Module):
    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.shape = s
        self.q_proj = nn.Linear(s.hidden_size, s.num_attention_heads * s.head_dim, bias=False)
        self.k_proj = nn.Linear(s.hidden_size, s.num_key_value_heads * s.head_dim, bias=False)
        self.v_proj = nn.Linear(s.hidden_size, s.num_key_value_heads * s.head_dim, bias=False)
        self.o_proj = nn.Linear(s.num_attention_heads * s.head_dim, s.hidden_size, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, cache: Tensor | None, at: int) -> Tensor:
        """`cache` [2, batch, kv heads, positions, head_dim] is read up to `at` and written from there."""
        s, (batch, length, _) = self.shape, x.shape
        q = self.q_proj(x).view(batch, length, -1, s.head_dim).transpose(1, 2)
        k = self.k_proj(x).view(batch, length, -1, s.head_dim).transpose(1, 2)
        v = self.v_proj(x).view(batch, length, -1, s.head_dim).transpose(1, 2)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if cache is not None:
            cache[0, :, :, at : at + length], cache[1, :, :, at : at + length] = k, v
            k, v = cache[0, :, :, : at + length], cache[1, :, :, : at + length]
        group = s.num_attention_heads // s.num_key_value_heads
        k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=length > 1)
        projected: Tensor = self.o_proj(mixed.transpose(1, 2).reshape(batch, length, -1))
        return projected


class Mlp(nn.Module):
    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(s.hidden_size, s.intermediate_size, bias=False)
        self.up_proj = nn.Linear(s.hidden_size, s.intermediate_size, bias=False)
        self.down_proj = nn.Linear(s.intermediate_size, s.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        down: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return down


class Block(nn.Module):
    def __init__(self, s: Shape, dropout: float) -> None:
        super().__init__()
        self.input_layernorm = Norm(s.hidden_size, s.rms_norm_eps)
        self.self_attn = Attention(s)
        self.post_attention_layernorm = Norm(s.hidden_size, s.rms_norm_eps)
        self.mlp = Mlp(s)
        self.dropout = dropout

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, cache: Tensor | None, at: int) -> Tensor:
        mixed = self.self_attn(self.input_layernorm(x), cos, sin, cache, at)
        x = x + F.dropout(mixed, self.dropout, self.training)
        return x + F.dropout(self.mlp(self.post_attention_layernorm(x)), self.dropout, self.training)


class Decoder(nn.Module):
    def __init__(self, s: Shape, dropout: float) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(s.vocab_size, s.hidden_size)
        self.layers = nn.ModuleList(Block(s, dropout) for _ in range(s.num_hidden_layers))
        self.norm = Norm(s.hidden_size, s.rms_norm_eps)


class Llama(nn.Module):
    """A causal language model whose head is its embedding."""

    def __init__(self, shape: Shape, dropout: float = 0.0) -> None:
        super().__init__()
        self.shape, self.dropout = shape, dropout
        self.model = Decoder(shape, dropout)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                to_residual = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(weight, std=0.02 * ((2 * shape.num_hidden_layers) ** -0.5 if to_residual else 1.0))
        cos, sin = rope(shape, torch.device("cpu"))
        self.cos: Tensor
        self.sin: Tensor
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, ids: Tensor, cache: list[Tensor] | None = None, at: int = 0) -> Tensor:
        """Logits [batch, length, vocabulary] of ids [batch, length]."""
        x = F.dropout(self.model.embed_tokens(ids), self.dropout, self.training)
        cos, sin = self.cos[at : at + ids.shape[1]], self.sin[at : at + ids.shape[1]]
        for i, layer in enumerate(self.model.layers):
            x = layer(x, cos, sin, cache[i] if cache else None, at)
        return F.linear(self.model.norm(x), self.model.embed_tokens.weight)

    def empty_cache(self, batch: int, length: int) -> list[Tensor]:
        s, weight = self.shape, self.model.embed_tokens.weight
        size = (2, batch, s.num_key_value_heads, length, s.head_dim)
        return [torch.zeros(size, device=weight.device, dtype=weight.dtype) for _ in range(s.num_hidden_layers)]


@torch.no_grad()
def generate(model: Llama, prompts: Tensor, length: int, temperature: float, seed: int = 0) -> Tensor:
    """Samples until `length` ids in all; prompts [batch, n]. No stop: text after an end id starts a new document."""
    random = torch.Generator(prompts.device).manual_seed(seed)
    cache = model.empty_cache(len(prompts), length)
    ids = torch.empty((len(prompts), length), dtype=torch.long, device=prompts.device)
    at, step = prompts.shape[1], prompts
    ids[:, :at] = prompts
    logits = model(step, cache, 0)[:, -1]
    for position in range(at, length):
        if temperature == 0:
            chosen = logits.argmax(-1, keepdim=True)
        else:
            chosen = torch.multinomial(torch.softmax(logits.float() / temperature, -1), 1, generator=random)
        ids[:, position] = chosen[:, 0]
        if position + 1 < length:
            logits = model(chosen, cache, position)[:, -1]
    return ids
