"""The operations of the model that have more than one implementation, and the contract that all of them keep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch

    from redline.runtime.batch import Batch

KV = tuple["torch.Tensor", "torch.Tensor"]
"""K and V pages of one layer, each [pages, page_size, kv_heads, head_dim]."""


class Kernels(Protocol):
    """All take and give contiguous tensors of the model's dtype; T tokens, H query heads, K kv heads, D head_dim.
    Only q, k and v of `rope_append` may be slices of one projection: heads are dense, tokens may be strided.

    Accumulation is in float32. Nothing here reads a tensor on the host, so every call can be captured in a CUDA graph
    (`attention` with `batch.host_*` None).
    """

    name: str

    def rms_norm(self, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        """[..., N] -> [..., N]; also per head for q and k norms."""
        ...

    def add_rms_norm(
        self, x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, eps: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(norm(x + residual), x + residual); may write into its arguments."""
        ...

    def rope_append(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        cos_sin: torch.Tensor,
        batch: Batch,
        kv: KV,
    ) -> torch.Tensor:
        """Rotates q [T, H, D] and k [T, K, D] by `cos_sin` [positions, D] (cosines, then sines; "neox" halves),
        writes k and v to the pages at `batch.slots`, and gives the rotated q."""
        ...

    def attention(self, q: torch.Tensor, kv: KV, batch: Batch, scale: float, window: int | None) -> torch.Tensor:
        """Causal attention over the pages. [T, H, D] -> [T, H * D]. `window`: the last so many tokens only."""
        ...

    def silu_mul(self, x: torch.Tensor) -> torch.Tensor:
        """[T, 2 N] -> [T, N]: silu of the first half times the second."""
        ...

    def linear(self, x: torch.Tensor, weight: Any) -> torch.Tensor:
        """[T, in] -> [T, out]; `weight` is one of the classes in `runtime/linear.py` (plain, int8, fp8, 4 bits)."""
        ...
