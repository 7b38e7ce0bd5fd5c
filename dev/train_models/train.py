"""Trains redline-tiny on the corpus, then distils redline-tiny-draft from it.

    python -m dev.train_models.train --corpus .corpus --out OUT        # one H200: about five minutes
    python -m dev.train_models.train --corpus .corpus --out OUT --smoke  # a CPU: under a minute, a useless model

Needs torch, numpy and safetensors. Writes redline-tiny.safetensors, redline-tiny-draft.safetensors (bf16) and, for the
model card, train-target.json and train-draft.json. `--target FILE` distils from weights that are there already.
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
from safetensors.torch import load_file, save_file
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
    started: float = field(default_factory=time.monotonic)

    def point(self, **values: float) -> None:
        values["seconds"] = round(time.monotonic() - self.started, 1)
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
    rate, decay = recipe.learning_rate, recipe.weight_decay
    groups = [{"params": embedding, "weight_decay": decay}, {"params": norms, "weight_decay": 0.0}]
    return [
        torch.optim.Muon(matrices, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95), fused=fused),
    ]


def rate_at(progress: float, warmup: float) -> float:
    """Linear warmup, then cosine to zero."""
    return max(1e-3, progress / warmup if progress < warmup else 0.5 * (1 + math.cos(math.pi * progress)))


def fit(
    model: Llama, recipe: Recipe, loss_of: Callable[[int, int], Tensor], evaluate: Callable[[], float], unique: int
) -> Log:
    """Steps until the time or the epochs are spent, whichever comes first."""
    device, log = next(model.parameters()).device, Log()
    steppers = optimizers(model, recipe)
    step, seen, next_report = 0, 0, 0.0
    while (progress := max((time.monotonic() - log.started) / recipe.seconds, seen / unique / recipe.max_epochs)) < 1:
        length = recipe.long_length if progress >= 1 - recipe.long_share else recipe.length
        rows = max(1, recipe.tokens_per_step // length)
        for stepper in steppers:
            for group in stepper.param_groups:
                group["lr"] = recipe.learning_rate * rate_at(progress, recipe.warmup_share)
        with torch.autocast(device.type, torch.bfloat16):
            loss = loss_of(rows, length)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for stepper in steppers:
            stepper.step()
            stepper.zero_grad(set_to_none=True)
        step, seen = step + 1, seen + rows * length
        if step % 8 == 0:
            loss.item()  # keep the queue short, so that the clock above is the device's
        if progress >= next_report:
            next_report = math.floor(progress / 0.05 + 1) * 0.05
            log.point(step=step, epochs=seen / unique, train_loss=loss.item(), val_loss=evaluate())
    log.point(step=step, epochs=seen / unique, train_loss=loss.item(), val_loss=evaluate())
    device_name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    log.facts = {"device": device_name, "torch": torch.__version__, "unique_tokens": unique, "tokens_seen": seen}
    log.facts |= {"recipe": vars(recipe), "dropout": model.dropout}
    return log


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


def train_target(shape: Shape, recipe: Recipe, train: Tensor, val: Tensor, dropout: float) -> tuple[Llama, Log]:
    model = Llama(shape, dropout).to(train.device).train()
    stream = Stream(train, seed=1)

    def loss_of(count: int, length: int) -> Tensor:
        window = stream.windows(count, length)
        return F.cross_entropy(model(window[:, :-1]).float().flatten(0, 1), window[:, 1:].flatten())

    return model, fit(model, recipe, loss_of, lambda: mean_loss(model, val), len(train))


def own_text(target: Llama, train: Tensor, tokens: int, length: int) -> Tensor:
    """A stream of text that the target wrote, from the openings of training documents; half cool, half at 1.0."""
    stream, batch = Stream(train, seed=5), min(2048, max(2, tokens // length))
    parts = []
    for i in range(max(1, tokens // (batch * length))):
        prompts = stream.windows(batch * 2, 15)[::2]
        parts.append(generate(target, prompts, length, (1.0, 0.7, 1.0, 0.3)[i % 4], seed=i).flatten())
    return torch.cat(parts).to(train.dtype)


def train_draft(
    shape: Shape, recipe: Recipe, target: Llama, train: Tensor, val: Tensor, own: Tensor
) -> tuple[Llama, Log]:
    """Distils: the draft's distribution against the target's, half on training text, half on the target's own."""
    model = Llama(shape).to(train.device).train()
    streams = Stream(train, seed=2), Stream(own, seed=3)

    def loss_of(count: int, length: int) -> Tensor:
        half = max(1, count // 2)
        ids = torch.cat([stream.windows(half, length)[:, :-1] for stream in streams])
        with torch.no_grad():
            wanted = torch.softmax(target(ids).float(), -1)
        return -(wanted * torch.log_softmax(model(ids).float(), -1)).sum(-1).mean()

    return model, fit(model, recipe, loss_of, lambda: mean_loss(model, val), len(train) + len(own))


def save(model: Llama, path: Path) -> Llama:
    """Writes bf16 weights without the tied head; returns the model as written."""
    model = model.to(torch.bfloat16).eval()
    weights = {name: weight.detach().cpu().contiguous() for name, weight in model.state_dict().items()}
    save_file(weights, str(path), metadata={"format": "pt"})
    print(path, path.stat().st_size, "bytes", sum(w.numel() for w in weights.values()), "parameters", flush=True)
    return model


def options() -> argparse.Namespace:
    args = argparse.ArgumentParser()
    args.add_argument("--corpus", type=Path, default=Path(".corpus"))
    args.add_argument("--out", type=Path, required=True)
    args.add_argument("--target", type=Path, help="trained weights: only distil the draft")
    args.add_argument("--seconds", type=float, default=200, help="for the target")
    args.add_argument("--draft-seconds", type=float, default=80)
    args.add_argument("--smoke", action="store_true")
    return args.parse_args()


def main() -> None:
    opts = options()
    opts.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    train, val = (
        torch.from_numpy(np.load(opts.corpus / f"{name}.npy").astype(np.int16)).to(device) for name in ("train", "val")
    )
    shapes, recipe, own_tokens, own_length = (TARGET, DRAFT), Recipe(opts.seconds), 3_200_000, 512
    draft_recipe = Recipe(opts.draft_seconds, length=4096, max_epochs=60)
    if opts.smoke:
        shapes, val, own_tokens, own_length = (SMOKE, SMOKE), val[:8193], 8192, 128
        recipe = draft_recipe = Recipe(8, tokens_per_step=512, length=128, long_length=256)
    if opts.target:
        target = Llama(shapes[0]).to(device)
        target.load_state_dict(load_file(opts.target, device=str(device)))
    else:
        target, log = train_target(shapes[0], recipe, train, val, dropout=0.1)
        (opts.out / "train-target.json").write_text(json.dumps(vars(log), indent=1))
    target = save(target, opts.out / "redline-tiny.safetensors")
    started = time.monotonic()
    own = own_text(target, train, own_tokens, own_length)
    print(f"{len(own):,} ids of its own text in {time.monotonic() - started:.1f} s", flush=True)
    draft, log = train_draft(shapes[1], draft_recipe, target, train, val, own)
    save(draft, opts.out / "redline-tiny-draft.safetensors")
    (opts.out / "train-draft.json").write_text(json.dumps(vars(log), indent=1))


if __name__ == "__main__":
    main()
