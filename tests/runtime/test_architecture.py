"""config.json: what is read, and what is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from redline.errors import ModelNotFound, Unsupported
from redline.runtime.architecture import parse_config, read_config
from redline.runtime.rope import Rope

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "vocab_size": 100,
    "eos_token_id": 2,
}
SCALING = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def parsed(generation: dict[str, Any] | None = None, **more: Any) -> Any:
    return parse_config({**LLAMA, **more}, generation or {})


def test_a_llama_of_before_grouped_queries() -> None:
    model = parsed()
    assert (model.num_kv_heads, model.head_dim, model.max_position) == (4, 16, 2048)
    assert model.rope == Rope(10000.0)
    assert model.window == (None, None, None)
    assert (model.dtype, model.tied, model.eos_ids) == ("float32", False, frozenset({2}))


def test_parameters_are_counted() -> None:
    assert parsed(num_key_value_heads=2).parameters == 3 * 64 * (2 * 64 + 2 * 32 + 3 * 128) + 2 * 100 * 64
    assert parsed(tie_word_embeddings=True).parameters == 3 * 64 * (4 * 64 + 3 * 128) + 100 * 64


@pytest.mark.parametrize(
    "given",
    [
        {"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", **SCALING}},
        {"rope_theta": 5e5, "rope_scaling": {"type": "llama3", **SCALING}},
        {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, **SCALING}},
    ],
)
def test_rope_in_its_old_and_new_forms(given: dict[str, Any]) -> None:
    assert parsed(**given).rope == Rope(5e5, "llama3", 8.0, 8192, 1.0, 4.0)


def test_yarn_makes_the_context_longer() -> None:
    scaling = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048}
    model = parsed(rope_scaling=scaling)
    assert model.max_position == 8192
    assert model.rope.attention_factor == pytest.approx(1.1386294)


@pytest.mark.parametrize(
    ("more", "windows"),
    [
        ({"architectures": ["MistralForCausalLM"]}, [4096] * 3),
        ({"architectures": ["MistralForCausalLM"], "sliding_window": None}, [None] * 3),
        ({"architectures": ["MistralForCausalLM"], "sliding_window": 8}, [8] * 3),
        ({"architectures": ["Qwen2ForCausalLM"], "sliding_window": 8}, [None] * 3),
        (
            {
                "architectures": ["Qwen2ForCausalLM"],
                "use_sliding_window": True,
                "sliding_window": 8,
                "max_window_layers": 2,
            },
            [None, None, 8],
        ),
        ({"sliding_window": 8}, [None] * 3),
    ],
)
def test_windows(more: dict[str, Any], windows: list[int | None]) -> None:
    assert list(parsed(**more).window) == windows


def test_end_of_sequence_comes_from_the_generation_config() -> None:
    assert parsed({"eos_token_id": [7, 8]}).eos_ids == {7, 8}


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"architectures": ["MixtralForCausalLM"]}, "MixtralForCausalLM"),
        ({"architectures": []}, "not named"),
        ({"num_local_experts": 8}, "num_local_experts"),
        ({"vision_config": {"depth": 2}}, "vision_config"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "dynamic"),
        ({"rope_scaling": {"type": "longrope", "factor": 2.0}}, "longrope"),
        ({"rope_scaling": {"type": "linear"}}, "factor"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"num_key_value_heads": 3}, "over 3"),
        ({"dtype": "float64"}, "float64"),
        ({"hidden_size": None}, "hidden_size"),
        (
            {
                "architectures": ["Qwen2ForCausalLM"],
                "layer_types": ["full_attention", "linear_attention", "full_attention"],
            },
            "linear_attention",
        ),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "bitsandbytes"),
        ({"quantization_config": {"quant_method": "awq", "bits": 4, "version": "gemv"}}, "gemv"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 3}}, "3 bits"),
        ({"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}, "128"),
    ],
)
def test_what_is_missing_is_named(more: dict[str, Any], named: str) -> None:
    with pytest.raises(Unsupported, match=named):
        parsed(**more)


def test_a_folder_without_a_config(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"config\.json"):
        read_config(tmp_path)


def test_a_config_that_is_no_json(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(Unsupported, match=r"config\.json"):
        read_config(tmp_path)


def test_a_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": 9}))
    assert read_config(tmp_path).eos_ids == {9}
