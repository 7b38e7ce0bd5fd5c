"""Trains redline-tiny on the corpus, then distils redline-tiny-draft from it.

    python -m dev.train_models.train --corpus .corpus --out OUT        # one H200: about five minutes
    python -m dev.train_models.train --corpus .corpus --out OUT --smoke  # a CPU: under a minute, a useless model

Needs torch, numpy and safetensors. Writes redline-tiny.safetensors, redline-tiny-draft.safetensors (bf16) and train.json.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from safetensors.torch import save_file
from torch import Tensor

from dev.train_models.model import DRAFT, SMOKE, TARGET, Llama, Shape, generate

BOS = 0


@dataclass(frozen=True)
class Recipe:
    """What one training run does; times bound it, so that a lease is never overrun."""

    seconds: float
    tokens_per_step: int = 65536
    length: int = 2048
    long_length: int = 4096
    long_share: float = 0.2  # of the steps, at the end
    learning_rate: float = 3e-3
    weight_decay: float = 0.1
    warmup_share: float = 0.03
    max_epochs: float = 40.0


@dataclass
class Log:
    """The curve and the facts of a run, for the model card."""

    facts: dict[str, Any] = field(default_factory=dict)
    curve: list[dict[str, float]] = field(default_factory=list)

    def point(self, **values: float) -> None:
        self.curve.append(values)
        print(" ".join(f"{name}={value:.4g}" for name, value in values.items()), flush=True)


class Stream:
    """Random windows of a stream of ids, on the device; every other window starts where a document does."""

    def __init__(self, ids: Tensor, seed: int) -> None:
        self.ids = ids
        self.starts = (ids == BOS).nonzero()[:, 0]
        self.random = torch.Generator(ids.device).manual_seed(seed)

    def windows(self, count: int, length: int) -> Tensor:
        """[count, length + 1] ids."""
        device, last = self.ids.device, len(self.ids) - length - 1
        anywhere = torch.randint(last, (count,), device=device, generator=self.random)
        chosen = torch.randint(len(self.starts), (count,), device=device, generator=self.random)
        start = torch.where(torch.arange(count, device=device) % 2 == 0, self.starts[chosen].clamp(max=last), anywhere)
        return self.ids[start[:, None] + torch.arange(length + 1, device=device)].long()


def optimizers(model: Llama, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for the embedding and the norms."""
    named = list(model.named_parameters())
    matrices = [p for name, p in named if p.ndim == 2 and "embed" not in name]
    embedding = [p for name, p in named if "embed" in name]
    norms = [p for _, p in named if p.ndim == 1]
    fused = next(model.parameters()).is_cuda
    return [
        torch.optim.Muon(matrices, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(
            [{"params": embedding, "weight_decay": recipe.weight_decay}, {"params": norms, "weight_decay": 0.0}],
            lr=recipe.learning_rate, betas=(0.9, 0.95), fused=fused,
        ),
    ]  # fmt: skip


def fit(
    model: Llama, recipe: Recipe, loss_of: Callable[[int, int], Tensor], evaluate: Callable[[], float], unique: int, log: Log
) -> None:
    """Steps until the time or the epochs are spent; cosine to zero over whichever comes first."""
    device = next(model.parameters()).device
    steppers = optimizers(model, recipe)
    started, step, seen, next_report = time.monotonic(), 0, 0, 0.0
    allowed = recipe.max_epochs * unique
    while True:
        progress = max((time.monotonic() - started) / recipe.seconds, seen / allowed)
        if progress >= 1:
            break
        length = recipe.long_length if progress >= 1 - recipe.long_share else recipe.length
        scale = min(1.0, progress / recipe.warmup_share) if progress < recipe.warmup_share else 0.5 * (1 + math.cos(math.pi * progress))
        for stepper in steppers:
            for group in stepper.param_groups:
                group["lr"] = recipe.learning_rate * max(scale, 1e-3)
        with torch.autocast(device.type, torch.bfloat16):
            loss = loss_of(max(1, recipe.tokens_per_step // length), length)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for stepper in steppers:
            stepper.step()
            stepper.zero_grad(set_to_none=True)
        step, seen = step + 1, seen + max(1, recipe.tokens_per_step // length) * length
        if step % 8 == 0:
            loss.item()  # keep the queue short, so that the clock above is the device's
        if progress >= next_report:
            next_report = math.floor(progress / 0.05 + 1) * 0.05
            log.point(step=step, epochs=seen / unique, train_loss=loss.item(), val_loss=evaluate(), seconds=time.monotonic() - started)
    log.point(step=step, epochs=seen / unique, train_loss=loss.item(), val_loss=evaluate(), seconds=time.monotonic() - started)
    log.facts |= {"steps": step, "tokens_seen": seen, "epochs": round(seen / unique, 2), "seconds": round(time.monotonic() - started, 1)}


@torch.no_grad()
def mean_loss(model: Llama, ids: Tensor, length: int = 2048, batch: int = 16) -> float:
    """Nats per token over `ids` in separate windows."""
    was = model.training
    model.eval()
    count = (len(ids) - 1) // length
    rows = ids[: count * length + 1]
    total = 0.0
    for start in range(0, count, batch):
        index = torch.arange(start, min(start + batch, count), device=ids.device) * length
        window = rows[index[:, None] + torch.arange(length + 1, device=ids.device)].long()
        with torch.autocast(ids.device.type, torch.bfloat16):
            logits = model(window[:, :-1])
        total += F.cross_entropy(logits.float().flatten(0, 1), window[:, 1:].flatten(), reduction="sum").item()
    model.train(was)
    return total / (count * length)


def train_target(shape: Shape, recipe: Recipe, train: Tensor, val: Tensor, dropout: float, log: Log) -> Llama:
    model = Llama(shape, dropout).to(train.device).train()
    stream = Stream(train, seed=1)

    def loss_of(count: int, length: int) -> Tensor:
        window = stream.windows(count, length)
        return F.cross_entropy(model(window[:, :-1]).float().flatten(0, 1), window[:, 1:].flatten())

    fit(model, recipe, loss_of, lambda: mean_loss(model, val), len(train), log)
    return model


def own_text(target: Llama, train: Tensor, tokens: int, length: int) -> Tensor:
    """A stream of text that the target wrote, from the openings of training documents; half cool, half at 1.0."""
    stream, batch = Stream(train, seed=5), min(2048, max(2, tokens // length))
    parts = []
    for i in range(max(1, tokens // (batch * length))):
        prompts = stream.windows(batch * 2, 15)[::2]
        parts.append(generate(target, prompts, length, (1.0, 0.7, 1.0, 0.3)[i % 4], seed=i).flatten())
    return torch.cat(parts).to(train.dtype)


def train_draft(
    shape: Shape, recipe: Recipe, target: Llama, train: Tensor, val: Tensor, own: Tensor, log: Log
) -> Llama:
    """Distils: the draft's distribution against the target's, half on training text, half on the target's own."""
    model = Llama(shape).to(train.device).train()
    streams = Stream(train, seed=2), Stream(own, seed=3)

    def loss_of(count: int, length: int) -> Tensor:
        half = max(1, count // 2)
        ids = torch.cat([stream.windows(half, length)[:, :-1] for stream in streams])
        with torch.no_grad():
            wanted = torch.softmax(target(ids).float(), -1)
        return -(wanted * torch.log_softmax(model(ids).float(), -1)).sum(-1).mean()

    fit(model, recipe, loss_of, lambda: mean_loss(model, val), len(train) + len(own), log)
    return model


def save(model: Llama, path: Path) -> Llama:
    """Writes bf16 weights without the tied head; returns the model as written."""
    model = model.to(torch.bfloat16).eval()
    weights = {name: weight.detach().cpu().contiguous() for name, weight in model.state_dict().items()}
    save_file(weights, str(path), metadata={"format": "pt"})
    print(path, path.stat().st_size, "bytes", sum(w.numel() for w in weights.values()), "parameters", flush=True)
    return model


def main() -> None:
    args = argparse.ArgumentParser()
    args.add_argument("--corpus", type=Path, default=Path(".corpus"))
    args.add_argument("--out", type=Path, required=True)
    args.add_argument("--seconds", type=float, default=170, help="for the target")
    args.add_argument("--draft-seconds", type=float, default=70)
    args.add_argument("--dropout", type=float, default=0.1)
    args.add_argument("--lr", type=float, default=3e-3)
    args.add_argument("--smoke", action="store_true")
    opts = args.parse_args()
    opts.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    train, val = (torch.from_numpy(np.load(opts.corpus / f"{n}.npy").astype(np.int16)).to(device) for n in ("train", "val"))
    target_recipe = Recipe(opts.seconds, learning_rate=opts.lr)
    draft_recipe = Recipe(opts.draft_seconds, length=1024, long_length=2048, max_epochs=60, learning_rate=opts.lr)
    shapes, own_tokens = (TARGET, DRAFT), 6_000_000
    if opts.smoke:
        small = {"tokens_per_step": 512, "length": 128, "long_length": 256}
        target_recipe, draft_recipe = Recipe(15, **small), Recipe(8, **small)  # type: ignore[arg-type]
        shapes, val, own_tokens = (SMOKE, SMOKE), val[:8193], 4096
    log, draft_log = Log(), Log()
    target = save(train_target(shapes[0], target_recipe, train, val, opts.dropout, log), opts.out / "redline-tiny.safetensors")
    (opts.out / "train.json").write_text(json.dumps({"target": vars(log)}))
    started = time.monotonic()
    own = own_text(target, train, own_tokens, 128 if opts.smoke else 512)
    print(f"{len(own):,} ids of its own text in {time.monotonic() - started:.1f} s", flush=True)
    if opts.smoke:
        own = own.repeat(4)
    draft = train_draft(shapes[1], draft_recipe, target, train, val, own, draft_log)
    save(draft, opts.out / "redline-tiny-draft.safetensors")
    facts = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu", "torch": torch.__version__,
        "dropout": opts.dropout, "train_tokens": len(train), "own_tokens": len(own), "smoke": opts.smoke,
        "recipes": {"target": vars(target_recipe), "draft": vars(draft_recipe)},
    }  # fmt: skip
    (opts.out / "train.json").write_text(json.dumps({"facts": facts, "target": vars(log), "draft": vars(draft_log)}, indent=1))


if __name__ == "__main__":
    main()
