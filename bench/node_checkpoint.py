"""A checkpoint on disk in a published shape with random weights, so that loading can be timed without a download."""

from __future__ import annotations

import json
import shutil
from pathlib import Path


def write(shape: str, folder: str) -> None:
    """Weights in bf16, in shards of about 1 GB, with the shape's own config and tokenizer. What is there stays."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModelForCausalLM

    from redline.spec.model import ModelSpec
    from redline.spec.resolve import resolve_model

    into = Path(folder)
    if (into / "model.safetensors.index.json").exists():
        return
    source = Path(str(resolve_model(ModelSpec(id=f"shape:{shape}")).path))
    shutil.rmtree(into, ignore_errors=True)
    shutil.copytree(source, into)
    device = "cuda" if torch.cuda.is_available() else "cpu"  # drawing a billion numbers takes a CPU half a minute
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(source))
    tied = bool(getattr(model.config, "tie_word_embeddings", False))
    shards: list[dict[str, torch.Tensor]] = [{}]
    size = 0
    for name, weight in model.state_dict().items():
        if tied and name == "lm_head.weight":
            continue
        made = torch.empty(weight.shape, dtype=torch.bfloat16, device=device).normal_(0, 0.02).cpu()
        size += made.numel() * 2
        if size > 1 << 30:
            shards, size = [*shards, {}], made.numel() * 2
        shards[-1][name] = made
    where: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, into / file, metadata={"format": "pt"})
        where |= dict.fromkeys(shard, file)
    index = {"metadata": {"total_size": sum(w.numel() * 2 for shard in shards for w in shard.values())}}
    (into / "model.safetensors.index.json").write_text(json.dumps({**index, "weight_map": where}))
