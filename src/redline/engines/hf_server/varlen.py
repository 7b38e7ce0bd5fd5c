"""`--attn-implementation torch_varlen`: paged attention per sequence, with the FlashAttention kernel inside torch.

transformers' paged SDPA computes every query against every key of the batch and masks what is not its own; without
the flash-attn package nothing better ships with it. This is for boxes that cannot install that package. It is no part
of transformers, so it is never chosen by itself, and it shows in the resolved flags.
"""

from __future__ import annotations

from typing import Any

from .load import Loaded, LoadError, library

NAME = "torch_varlen"


def register(loaded: Loaded) -> None:
    """Makes the name known to transformers. LoadError where the kernel cannot work."""
    if loaded.device.startswith("cuda") and loaded.dtype not in ("bfloat16", "float16"):
        raise LoadError(f"--attn-implementation {NAME} needs bfloat16 or float16 on CUDA, not {loaded.dtype}")
    library("transformers").AttentionInterface.register(f"paged|{NAME}", forward)


def forward(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    *,
    cache: Any,
    cu_seq_lens_q: Any,
    cu_seq_lens_k: Any,
    max_seqlen_q: int,
    max_seqlen_k: Any,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Any, None]:
    """transformers' attention interface; query [1, heads, tokens, width]. Returns [1, tokens, heads, width]."""
    window = getattr(module, "sliding_window", None)
    if isinstance(cu_seq_lens_k, dict):
        kind = "sliding_attention" if window else "full_attention"
        cu_seq_lens_k, max_seqlen_k = cu_seq_lens_k[kind], max_seqlen_k[kind]
    keys, values = cache.update(
        key_states=key,
        value_states=value,
        layer_idx=module.layer_idx,
        read_index=kwargs["read_index"],
        write_index=kwargs["write_index"],
    )
    queries = query.transpose(1, 2).squeeze(0)
    attend = _on_cuda if query.is_cuda else _elsewhere
    out = attend(queries, keys, values, cu_seq_lens_q, cu_seq_lens_k, max_seqlen_q, max_seqlen_k, scaling, window)
    return out.unsqueeze(0), None


def _on_cuda(q: Any, k: Any, v: Any, cu_q: Any, cu_k: Any, max_q: int, max_k: int, scale: Any, window: Any) -> Any:
    """FlashAttention 2; its causal mask is aligned to the end of each sequence, as a cached prefix needs."""
    import torch

    left, right = (window - 1, 0) if window else (None, None)
    q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    out = torch.ops.aten._flash_attention_forward(
        *(q, k, v, cu_q.int(), cu_k.int(), max_q, max_k, 0.0, True, False),
        scale=scale,
        window_size_left=left,
        window_size_right=right,
    )
    return out[0]


def _elsewhere(q: Any, k: Any, v: Any, cu_q: Any, cu_k: Any, max_q: int, max_k: int, scale: Any, window: Any) -> Any:
    """The same by SDPA, sequence by sequence."""
    import torch

    out, (starts_q, starts_k) = torch.empty_like(q), (cu_q.tolist(), cu_k.tolist())
    for number in range(len(starts_q) - 1):
        rows, columns = slice(*starts_q[number : number + 2]), slice(*starts_k[number : number + 2])
        size_q, size_k = rows.stop - rows.start, columns.stop - columns.start
        distance = torch.arange(size_k - size_q, size_k)[:, None] - torch.arange(size_k)[None]
        mask = (distance >= 0) & (distance < window) if window else distance >= 0
        one = torch.nn.functional.scaled_dot_product_attention(
            q[rows].transpose(0, 1)[None],
            k[columns].transpose(0, 1)[None],
            v[columns].transpose(0, 1)[None],
            attn_mask=None if size_q == 1 and not window else mask,
            scale=scale,
            enable_gqa=True,
        )
        out[rows] = one[0].transpose(0, 1)
    return out
