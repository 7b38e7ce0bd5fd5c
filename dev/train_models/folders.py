"""Writes the two model folders: config, tokenizer, chat template, weights.

python -m dev.train_models.folders --corpus .corpus --weights OUT --models src/redline/recipes/models
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from dev.train_models import chat
from dev.train_models.model import DRAFT, TARGET, Shape

NAMES: dict[str, Shape] = {"redline-tiny": TARGET, "redline-tiny-draft": DRAFT}

TEMPLATE = (
    "{{- bos_token -}}"
    "{%- for message in messages -%}"
    "{%- if message['role'] not in ['system', 'user', 'assistant'] -%}"
    "{{- raise_exception('redline-tiny knows the roles system, user and assistant, not ' + message['role']) -}}"
    "{%- endif -%}"
    "{{- '<|' + message['role'] + '|>' -}}"
    "{%- if message['content'] is string -%}{{- message['content'] -}}"
    "{%- else -%}{%- for part in message['content'] -%}{{- part['text'] -}}{%- endfor -%}{%- endif -%}"
    "{{- eos_token -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)


def config(shape: Shape) -> dict[str, Any]:
    sizes = shape.asdict()
    theta = sizes.pop("rope_theta")
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", **sizes, "hidden_act": "silu",
        "tie_word_embeddings": True, "attention_bias": False, "mlp_bias": False, "attention_dropout": 0.0,
        "initializer_range": 0.02, "use_cache": True, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2,
        "rope_theta": theta, "rope_parameters": {"rope_type": "default", "rope_theta": theta}, "dtype": "bfloat16",
    }  # fmt: skip


def tokenizer_config() -> dict[str, Any]:
    exact = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": chat.BOS, "eos_token": chat.EOS, "pad_token": chat.PAD,
        "additional_special_tokens": [chat.USER, chat.ASSISTANT, chat.SYSTEM],
        "added_tokens_decoder": {str(i): {"content": text, **exact} for i, text in enumerate(chat.SPECIALS)},
        "add_bos_token": True, "clean_up_tokenization_spaces": False,
        "model_max_length": TARGET.max_position_embeddings,
    }  # fmt: skip


def write(folder: Path, shape: Shape, weights: Path, tokenizer: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)

    def dump(name: str, value: dict[str, Any]) -> None:
        (folder / name).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    dump("config.json", config(shape))
    dump("generation_config.json", {
        "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "do_sample": True, "temperature": 0.7, "top_p": 0.95,
    })  # fmt: skip
    dump("tokenizer_config.json", tokenizer_config())
    dump("special_tokens_map.json", {
        "bos_token": chat.BOS, "eos_token": chat.EOS, "pad_token": chat.PAD,
        "additional_special_tokens": [chat.USER, chat.ASSISTANT, chat.SYSTEM],
    })  # fmt: skip
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    shutil.copyfile(tokenizer, folder / "tokenizer.json")
    shutil.copyfile(weights, folder / "model.safetensors")


def main() -> None:
    args = argparse.ArgumentParser()
    args.add_argument("--corpus", type=Path, default=Path(".corpus"))
    args.add_argument("--weights", type=Path, required=True)
    args.add_argument("--models", type=Path, default=Path("src/redline/recipes/models"))
    opts = args.parse_args()
    for name, shape in NAMES.items():
        write(opts.models / name, shape, opts.weights / f"{name}.safetensors", opts.corpus / "tokenizer.json")
    (opts.models / "heldout").mkdir(exist_ok=True)
    shutil.copyfile(opts.corpus / "heldout.txt", opts.models / "heldout" / "heldout.txt")


if __name__ == "__main__":
    main()
