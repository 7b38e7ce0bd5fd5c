"""Which kernels run, by what the box has and what was asked for: torch, Triton, or FlashInfer over Triton."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from redline.errors import EnvironmentFault
from redline.runtime.kernels import Kernels
from redline.runtime.kernels.draw import Draw, TorchDraw

if TYPE_CHECKING:
    from redline.runtime.architecture import ModelConfig


def without(part: str) -> bool:
    """Whether REDLINE_WITHOUT, a comma-separated list, names this part. For finding out what one is worth, or whether
    it is to blame: `step` (products with what stands around them), `rope` (rotation as a part of attention), `pdl`
    (kernels that start while others run), `chunks` (graphs of steps with prompts)."""
    return part in os.environ.get("REDLINE_WITHOUT", "").split(",")


@dataclass
class Tier:
    """`why_no_graphs` is empty when a step with these kernels can be captured."""

    kernels: Kernels
    draw: Draw
    why_no_graphs: str = ""
    notes: dict[str, str] = field(default_factory=dict)


def pick_tier(
    asked: str,
    device: torch.device,
    model: ModelConfig,
    page_size: int,
    dtype: torch.dtype,
    progress: Callable[[str], None],
) -> Tier:
    """`asked` as in `EngineConfig.kernels`. Raises `EnvironmentFault` when Triton was asked for and is missing;
    FlashInfer that does not work is replaced by Triton, and the notes say why."""
    cuda = device.type == "cuda"
    if asked == "torch" or (asked == "auto" and not cuda):
        from redline.runtime.kernels.torch import TorchKernels

        return Tier(TorchKernels(), TorchDraw(), "torch kernels read lengths on the host")
    if importlib.util.find_spec("triton") is None:
        raise EnvironmentFault("Triton is not installed", fix="pip install triton, or --kernels torch (slow)")
    from redline.runtime.kernels.triton import TritonKernels
    from redline.runtime.kernels.triton_decode import TritonDraw

    processors = torch.cuda.get_device_properties(device).multi_processor_count if cuda else 4
    no_graphs = "" if cuda else "no GPU"
    alone = _why_alone(device)
    tier = Tier(TritonKernels(processors, not alone), TritonDraw(not alone), no_graphs, {"kernels": "triton"})
    tier.notes["overlap"] = alone or "kernels start while their predecessors end"
    if cuda and asked in ("auto", "flashinfer"):
        from redline.runtime.kernels.flashinfer import FlashInferKernels, why_not

        reason = why_not(model, page_size, dtype, build=asked == "flashinfer", progress=progress)
        if reason:
            tier.notes["kernels"] = f"triton ({reason})"
        else:
            tier.kernels = FlashInferKernels(processors, device, not alone)
            tier.notes["kernels"] = "triton, and FlashInfer's XQA where it was faster in decode"
    return tier


def _why_alone(device: torch.device) -> str:
    """Why kernels start only when their predecessors have ended; empty when they overlap."""
    if device.type != "cuda":
        return "no GPU"
    if without("pdl"):
        return "one after the other, as asked for"
    if torch.cuda.get_device_capability(device) < (9, 0):
        return "this GPU cannot start kernels early"
    from redline.runtime.kernels.overlap import why_not_overlap

    return why_not_overlap(device)
