"""Writes the model cards from the measurements and the training logs: no measured number in them is typed by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from dev.train_models.model import DRAFT, TARGET, Shape


def write(models: Path, measured: dict[str, Any], logs: Path) -> None:
    """README.md of both model folders."""
    corpus, target, draft = (json.loads((logs / f"{name}.json").read_text()) for name in ("corpus", "target", "draft"))
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True)
    template = environment.from_string((Path(__file__).parent / "card.md.j2").read_text())
    for name, shape, log in (("redline-tiny", TARGET, target), ("redline-tiny-draft", DRAFT, draft)):
        points = log["curve"]
        text = template.render(
            name=name,
            draft=name.endswith("draft"),
            shape=shape,
            parameters=parameters(shape),
            models={
                "redline-tiny": "redline-tiny",
                "redline-tiny-draft": "redline-tiny-draft",
                "unigram": "token frequencies of the training text",
            },
            on_text=measured["draft_on_heldout_text"],
            greedy=measured["draft_on_greedy_answers"],
            warm=measured["draft_on_answers_at_temperature_1"],
            unique=target["facts"]["unique_tokens"],
            overlap=f"{corpus['heldout_overlap']:.1%}",
            facts=log["facts"],
            recipe=log["facts"]["recipe"],
            end=points[-1],
            curve=[points[i] for i in range(0, len(points) - 1, 3)] + [points[-1]],
            **measured,
        )
        (models / name / "README.md").write_text(text)


def parameters(s: Shape) -> int:
    """Weights of the model, the tied head counted once."""
    attention = 2 * s.hidden_size * s.head_dim * (s.num_attention_heads + s.num_key_value_heads)
    layer = attention + 3 * s.hidden_size * s.intermediate_size + 2 * s.hidden_size
    return s.vocab_size * s.hidden_size + s.num_hidden_layers * layer + s.hidden_size
