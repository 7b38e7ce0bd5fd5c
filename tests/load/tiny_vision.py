"""A model that sees, small enough for a test: Idefics3 around the bundled model's shape and tokenizer, without weights.

Its pictures are cut into 2 × 2 tiles of 56 × 56 pixels, beside the whole one: five times four tokens, and those that
stand around them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from redline.spec.model import ModelSpec
from redline.spec.resolve import resolve_model

SIDE, PATCH, SCALE, TILES = 56, 14, 2, 2
MARKS = (
    "<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>",
    *(f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)),
)  # fmt: skip
TEMPLATE = """{{- bos_token -}}
{%- for message in messages -%}
{{- '<|' + message['role'] + '|>' -}}
{%- if message['content'] is string -%}{{ message['content'] }}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}<image>{%- else -%}{{ part['text'] }}{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- eos_token -}}
{%- endfor -%}
{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}
"""


def tiny_vision(folder: Path) -> Path:
    """Configuration, tokenizer and processor in `folder`; to be served with `load-format: dummy`."""
    source = Path(resolve_model(ModelSpec(id="bundled:tiny")).path or "")
    text, tokenizer, settings = (
        json.loads((source / name).read_text()) for name in ("config.json", "tokenizer.json", "tokenizer_config.json")
    )
    first = max(tokenizer["model"]["vocab"].values()) + 1
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    tokenizer["added_tokens"] += [{"id": first + i, "content": mark, **plain} for i, mark in enumerate(MARKS)]
    settings |= {"additional_special_tokens": [*settings["additional_special_tokens"], *MARKS]}
    del settings["added_tokens_decoder"]
    vision = {
        "model_type": "idefics3_vision", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "image_size": SIDE, "patch_size": PATCH,
    }  # fmt: skip
    files: dict[str, dict[str, Any]] = {
        "config.json": {
            "architectures": ["Idefics3ForConditionalGeneration"], "model_type": "idefics3", "image_token_id": first,
            "scale_factor": SCALE, "dtype": "bfloat16", "vision_config": vision,
            "text_config": text | {"vocab_size": first + len(MARKS)},
        },
        "preprocessor_config.json": {
            "image_processor_type": "Idefics3ImageProcessor", "do_image_splitting": True, "do_convert_rgb": True,
            "size": {"longest_edge": SIDE * TILES}, "max_image_size": {"longest_edge": SIDE}, "do_resize": True,
            "do_pad": True, "do_rescale": True, "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
        },
        "processor_config.json": {
            "processor_class": "Idefics3Processor", "image_seq_len": (SIDE // PATCH // SCALE) ** 2,
        },
        "tokenizer.json": tokenizer,
        "tokenizer_config.json": settings | {"processor_class": "Idefics3Processor"},
        "generation_config.json": json.loads((source / "generation_config.json").read_text()),
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder
