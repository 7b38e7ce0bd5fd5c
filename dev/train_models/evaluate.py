"""Measures the saved checkpoints, reloaded through transformers on a CPU, and writes measured.json and the model cards.

    python -m dev.train_models.evaluate --models src/redline/recipes/models --corpus .corpus

The protocol, for every perplexity: heldout.txt tokenized once (its documents carry their own begin and end marks), no
further BOS, float32, windows of 1,024 tokens moved by 512 tokens; a token is scored once, in the first window that
holds it; the file's first token is not scored. Bits per byte divides by the UTF-8 bytes without the marks.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from dev.train_models import card, chat

WINDOW, STRIDE = 1024, 512
PROMPTS = 48
SPECULATED = 4
START = 2048  # tokens


def load(folder: Path) -> Any:
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval()


def windows(count: int) -> list[tuple[int, int, int]]:
    """(start, end, first scored) of each window over `count` tokens; scored tokens never overlap."""
    found, scored = [], 1
    for start in range(0, count, STRIDE):
        end = min(start + WINDOW, count)
        found.append((start, end, scored))
        scored = end
        if end == count:
            break
    return found


@torch.no_grad()
def heldout_losses(models: dict[str, Any], ids: Tensor) -> tuple[dict[str, float], dict[str, float]]:
    """Nats per token of each model, and how far the draft's next-token choices match the target's."""
    total = dict.fromkeys(models, 0.0)
    same = overlap = 0.0
    for start, end, first in windows(len(ids)):
        logits = {name: model(ids[None, start:end]).logits[0].float() for name, model in models.items()}
        keep = slice(first - start - 1, end - start - 1)
        wanted = ids[first:end]
        for name, value in logits.items():
            total[name] -= torch.log_softmax(value[keep], -1)[torch.arange(len(wanted)), wanted].sum().item()
        target, draft = (torch.softmax(logits[name][keep], -1) for name in ("redline-tiny", "redline-tiny-draft"))
        same += (target.argmax(-1) == draft.argmax(-1)).sum().item()
        overlap += torch.minimum(target, draft).sum().item()
    scored = len(ids) - 1
    agreement = {"greedy_agreement": same / scored, "sampled_acceptance": overlap / scored}
    return {name: value / scored for name, value in total.items()}, agreement


def start_of(models: dict[str, Any], ids: Tensor) -> dict[str, Any]:
    """The same measures over the first `START` tokens, for a check that takes seconds."""
    losses, agreement = heldout_losses(models, ids[:START])
    return {
        "tokens": START,
        "loss": {k: round(v, 4) for k, v in losses.items()},
        **{k: round(v, 4) for k, v in agreement.items()},
    }


def unigram_loss(ids: Tensor, train: np.ndarray[Any, Any]) -> float:
    """Nats per token under the training text's token frequencies, add-one smoothed."""
    counts = np.bincount(train.astype(np.int64), minlength=4096) + 1.0
    share = torch.from_numpy(np.log(counts / counts.sum()))
    return -share[ids[1:]].mean().item()


def questions(text: str) -> list[str]:
    """First questions of the held-out conversations."""
    return re.findall(re.escape(chat.BOS) + r"(?:<\|system\|>.*?<\|eos\|>)?<\|user\|>(.*?)<\|eos\|>", text, re.S)


@torch.no_grad()
def speculation(target: Any, draft: Any, prompts: list[Tensor], temperature: float) -> dict[str, float]:
    """Lets the target answer, then looks at what the draft would have proposed at each token of the answers.

    `acceptance` is the chance that one proposed token is kept (the overlap of the two distributions; greedy: equal
    choices). `tokens_per_step` is what a verification of `SPECULATED` proposals yields, the target's own token with it.
    """
    written = steps = ended = 0
    kept: list[float] = []
    for i, ids in enumerate(prompts):
        torch.manual_seed(i)
        out = target.generate(
            ids,
            max_new_tokens=256,
            pad_token_id=2,
            do_sample=temperature > 0,
            temperature=temperature or None,
            top_p=1.0,
        )
        ended += int(out[0, -1] == 1)
        p, q = (torch.softmax(model(out).logits[0, ids.shape[1] - 1 : -1].float(), -1) for model in (target, draft))
        if temperature > 0:
            kept += torch.minimum(p, q).sum(-1).tolist()
            continue
        # While the draft has been right so far its context is the target's text: one pass answers for every start.
        right = (q.argmax(-1) == p.argmax(-1)).tolist()
        kept += [float(x) for x in right]
        written += len(right)
        steps += verifications(right)
    found = {"answers": len(prompts), "answers_that_end": round(ended / len(prompts), 3), "tokens": len(kept)}
    found["acceptance"] = round(float(np.mean(kept)), 4)
    return found | ({"tokens_per_step": round(written / steps, 3)} if temperature == 0 else {})


def verifications(right: list[bool]) -> int:
    """Steps to write the tokens when runs of up to `SPECULATED` right proposals are taken with the token after them."""
    at = steps = 0
    while at < len(right):
        run = 0
        while run < SPECULATED and at + run < len(right) and right[at + run]:
            run += 1
        at, steps = at + run + 1, steps + 1
    return steps


@torch.no_grad()
def by_position(models: dict[str, Any], ids: Tensor) -> dict[str, list[float]]:
    """Nats per token in each 1,024 positions of 4,096-token windows: does the length hold?"""
    found: dict[str, list[float]] = {}
    for name, model in models.items():
        rows = []
        for start in range(0, len(ids) - 4097, 4096):
            window = ids[start : start + 4097]
            logits = model(window[None, :-1]).logits[0].float()
            rows.append(torch.nn.functional.cross_entropy(logits, window[1:], reduction="none").view(4, 1024).mean(1))
        found[name] = [round(x, 3) for x in torch.stack(rows).mean(0).tolist()]
    return found


def measure(models_at: Path, corpus: Path) -> dict[str, Any]:
    text = (models_at / "heldout" / "heldout.txt").read_text()
    raw = Tokenizer.from_file(str(models_at / "redline-tiny" / "tokenizer.json"))
    ids = torch.tensor(raw.encode(text, add_special_tokens=False).ids)
    models = {name: load(models_at / name) for name in ("redline-tiny", "redline-tiny-draft")}
    target, draft = models.values()
    tokenizer: Any = AutoTokenizer.from_pretrained(models_at / "redline-tiny")
    template = partial(tokenizer.apply_chat_template, tokenize=False, add_generation_prompt=True)
    losses, agreement = heldout_losses(models, ids)
    losses["unigram"] = unigram_loss(ids, np.load(corpus / "train.npy"))
    size = len(re.sub(r"<\|\w+\|>", "", text).encode())
    asked = ([{"role": "user", "content": question}] for question in questions(text)[:PROMPTS])
    prompts = [torch.tensor([raw.encode(ask, add_special_tokens=False).ids]) for ask in map(template, asked)]
    return {
        "heldout": {"bytes": size, "tokens": len(ids), "window": WINDOW, "stride": STRIDE},
        "loss": {name: round(loss, 4) for name, loss in losses.items()},
        "perplexity": {name: round(math.exp(loss), 3) for name, loss in losses.items()},
        "bits_per_byte": {name: round(loss * (len(ids) - 1) / size / math.log(2), 4) for name, loss in losses.items()},
        "start": start_of(models, ids),
        "loss_by_1024_positions": by_position(models, ids),
        "draft_on_heldout_text": {name: round(value, 4) for name, value in agreement.items()},
        "draft_on_greedy_answers": speculation(target, draft, prompts, 0.0),
        "draft_on_answers_at_temperature_1": speculation(target, draft, prompts, 1.0),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }


def main() -> None:
    args = argparse.ArgumentParser()
    args.add_argument("--models", type=Path, default=Path("src/redline/recipes/models"))
    args.add_argument("--corpus", type=Path, default=Path(".corpus"))
    args.add_argument("--logs", type=Path, default=Path(__file__).parent / "logs")
    args.add_argument("--cards-only", action="store_true", help="take measured.json as it is")
    opts = args.parse_args()
    at = opts.models / "heldout" / "measured.json"
    if not opts.cards_only:
        at.write_text(json.dumps(measure(opts.models, opts.corpus), indent=2) + "\n")
    measured = json.loads(at.read_text())
    print(json.dumps(measured, indent=2))
    card.write(opts.models, measured, opts.logs)


if __name__ == "__main__":
    main()
