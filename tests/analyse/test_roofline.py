"""Floors against numbers worked out by hand for the same shapes and ceilings (H200: 4.3 TB/s, 788 TFLOP/s bf16)."""

from __future__ import annotations

import math
from typing import Any

import pytest

from redline.analyse.architecture import Architecture, architecture
from redline.analyse.precision import cards_of, computed_in, precision
from redline.analyse.roofline import (
    Limits,
    Precision,
    curve,
    decode,
    kv_bytes,
    kv_bytes_per_token,
    linear_flip,
    longest_flip,
    prefill,
    standing,
    whole_flip,
)
from redline.spec.shapes import parameter_count, shape_config, shape_names

H200 = Limits(4.3e12, 788e12)
H200_FP8 = Limits(4.3e12, 1450e12)
BF16, FP8 = Precision(), Precision(1.0, 1.0, 2.0)
DEEPSEEK_V3: dict[str, Any] = {
    "hidden_size": 7168, "num_hidden_layers": 61, "vocab_size": 129280, "num_attention_heads": 128,
    "num_key_value_heads": 128, "kv_lora_rank": 512, "q_lora_rank": 1536, "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64, "v_head_dim": 128, "intermediate_size": 18432, "moe_intermediate_size": 2048,
    "n_routed_experts": 256, "num_experts_per_tok": 8, "n_shared_experts": 1, "first_k_dense_replace": 3,
}  # fmt: skip
QWEN3_30B_A3B: dict[str, Any] = {
    "hidden_size": 2048, "num_hidden_layers": 48, "vocab_size": 151936, "num_attention_heads": 32,
    "num_key_value_heads": 4, "head_dim": 128, "intermediate_size": 6144, "moe_intermediate_size": 768,
    "num_experts": 128, "num_experts_per_tok": 8, "decoder_sparse_step": 1, "mlp_only_layers": [],
}  # fmt: skip
GEMMA_LIKE: dict[str, Any] = {
    "hidden_size": 1024, "num_hidden_layers": 12, "vocab_size": 1000, "num_attention_heads": 8,
    "num_key_value_heads": 4, "head_dim": 64, "intermediate_size": 4096, "sliding_window": 512,
    "sliding_window_pattern": 6, "tie_word_embeddings": True,
}  # fmt: skip


def shape(name: str) -> Architecture:
    found = architecture(shape_config(name))
    assert found is not None
    return found


LLAMA = shape("llama-3-8b")


@pytest.mark.parametrize(
    ("context", "batch", "ms", "ms_fp8"),
    [
        (512, 1, 3.51, 1.88), (512, 8, 3.62, 1.93), (512, 64, 4.49, 2.37), (512, 256, 8.87, 4.65),
        (1024, 1, 3.52, 1.88), (1024, 8, 3.74, 1.99), (1024, 64, 5.49, 2.87), (1024, 256, 12.9, 6.65),
        (4096, 1, 3.62, 1.93), (4096, 8, 4.49, 2.37), (4096, 64, 11.5, 5.86), (4096, 256, 36.8, 18.6),
    ],
)  # fmt: skip
def test_against_hand_computed_decode_floors(context: int, batch: int, ms: float, ms_fp8: float) -> None:
    assert decode(LLAMA, BF16, batch, context).floor_s(H200) * 1e3 == pytest.approx(ms, rel=3e-3)
    assert decode(LLAMA, FP8, batch, context).floor_s(H200_FP8) * 1e3 == pytest.approx(ms_fp8, rel=4e-3)


@pytest.mark.parametrize(("length", "ms"), [(512, 9.2), (1024, 18.5), (4096, 78.0), (8192, 167.0)])
def test_against_hand_computed_prefill_floors(length: int, ms: float) -> None:
    assert prefill(LLAMA, BF16, 1, length).floor_s(H200) * 1e3 == pytest.approx(ms, rel=6e-3)


@pytest.mark.parametrize(
    ("config", "precision_", "expected"),
    [
        (shape_config("llama-3-8b"), BF16, 131_072),
        (shape_config("llama-3-8b"), FP8, 65_536),
        (shape_config("llama-3-70b"), BF16, 327_680),
        (shape_config("qwen2.5-7b"), BF16, 57_344),
        (DEEPSEEK_V3, BF16, 70_272),
    ],
)
def test_against_published_kv_bytes(config: dict[str, Any], precision_: Precision, expected: float) -> None:
    found = architecture(config)
    assert found is not None
    assert kv_bytes_per_token(found, precision_) == expected


@pytest.mark.parametrize("name", shape_names())
def test_parameters_against_the_exact_count(name: str) -> None:
    """Norms and biases are left out: less than a thousandth."""
    exact = parameter_count(shape_config(name))
    assert shape(name).parameters == pytest.approx(exact, rel=2e-3)


def test_experts_latents_and_active_parameters() -> None:
    deepseek, qwen = architecture(DEEPSEEK_V3), architecture(QWEN3_30B_A3B)
    assert deepseek is not None
    assert qwen is not None
    assert deepseek.parameters == pytest.approx(671e9, rel=2e-3)
    assert deepseek.active_body + deepseek.head_parameters == pytest.approx(37e9, rel=2e-2)
    assert qwen.parameters == pytest.approx(30.5e9, rel=1e-2)
    assert qwen.active_body + qwen.head_parameters == pytest.approx(3.0e9, rel=0.05)
    assert qwen.experts_hit(1) == pytest.approx(8)
    assert qwen.experts_hit(16) == pytest.approx(128 * (1 - (1 - 8 / 128) ** 16))
    assert qwen.experts_hit(1e5) == pytest.approx(128)
    one, many = decode(qwen, BF16, 1, 100), decode(qwen, BF16, 64, 100)
    assert many.linear.bytes > 6 * one.linear.bytes  # weights read grow with the batch: the experts that it hits


@pytest.mark.parametrize(
    ("config", "parameters", "active"),
    [
        (
            {"model_type": "gpt_oss", "hidden_size": 2880, "num_hidden_layers": 36, "vocab_size": 201088,
             "head_dim": 64, "num_attention_heads": 64, "num_key_value_heads": 8, "intermediate_size": 2880,
             "num_local_experts": 128, "num_experts_per_tok": 4},
            116.8e9, 5.1e9,
        ),
        (
            {"model_type": "llama4_text", "hidden_size": 5120, "num_hidden_layers": 48, "vocab_size": 202048,
             "head_dim": 128, "num_attention_heads": 40, "num_key_value_heads": 8, "intermediate_size": 8192,
             "intermediate_size_mlp": 16384, "num_local_experts": 16, "num_experts_per_tok": 1,
             "interleave_moe_layer_step": 1},
            107.8e9, 16.1e9,
        ),
        (
            {"model_type": "llama4_text", "hidden_size": 5120, "num_hidden_layers": 48, "vocab_size": 202048,
             "head_dim": 128, "num_attention_heads": 40, "num_key_value_heads": 8, "intermediate_size": 8192,
             "intermediate_size_mlp": 16384, "num_local_experts": 128, "num_experts_per_tok": 1,
             "interleave_moe_layer_step": 2},
            400.7e9, 16.1e9,
        ),
    ],
    ids=["gpt-oss-120b", "Llama 4 Scout", "Llama 4 Maverick"],
)  # fmt: skip
def test_parameters_as_published(config: dict[str, Any], parameters: float, active: float) -> None:
    """Llama 4's without its vision part; active ones with the head and without the embedding."""
    found = architecture(config)
    assert found is not None
    assert found.parameters == pytest.approx(parameters, rel=0.01)
    assert found.active_body + found.head_parameters == pytest.approx(active, rel=0.01)


def test_a_sliding_window_ends_the_growth() -> None:
    found = architecture(GEMMA_LIKE)
    assert found is not None
    assert (found.window, found.windowed) == (512, 10)
    per_layer = 4 * 2 * 64 * 2.0
    assert kv_bytes(found, BF16, 512) == 12 * per_layer * 512
    assert kv_bytes(found, BF16, 4096) == 2 * per_layer * 4096 + 10 * per_layer * 512
    assert found.causal(512) == 12 * 512 * 512 / 2
    assert found.causal(2048) == 2 * 2048**2 / 2 + 10 * (2048 * 512 - 512 * 512 / 2)


def test_where_the_regime_flips() -> None:
    assert linear_flip(LLAMA, BF16, H200) == pytest.approx(183, abs=1)
    ridge = Limits(4.8e12, 989e12)
    longest = longest_flip(LLAMA, BF16, ridge)
    assert 500 < longest < 620
    assert whole_flip(LLAMA, BF16, ridge, longest * 0.9) is not None
    assert whole_flip(LLAMA, BF16, ridge, longest * 1.1) is None
    flip = whole_flip(LLAMA, BF16, ridge, 100)
    assert flip is not None
    assert decode(LLAMA, BF16, flip, 100).intensity >= ridge.ridge > decode(LLAMA, BF16, flip - 1, 100).intensity
    bounds = [point.bound for point in curve(LLAMA, BF16, H200, 128, (1, 64, 512))]
    assert bounds == ["memory-bound", "memory-bound", "compute-bound"]


@pytest.mark.parametrize(
    ("measured_ms", "gap_ms", "regime"),
    [
        (3.9, 0.1, "memory-bound"),
        (3.9, None, "memory-bound"),
        (20.0, 15.0, "host-bound"),
        (8.0, 3.0, "host-bound"),
        (8.0, 0.4, "below the ceiling"),
        (8.0, None, "below the ceiling"),
        (2.0, 0.0, "unknown"),
        (math.nan, None, "unknown"),
        (0.0, None, "unknown"),
    ],
)
def test_what_holds_a_step(measured_ms: float, gap_ms: float | None, regime: str) -> None:
    cost = decode(LLAMA, BF16, 1, 1024)
    found = standing(cost, H200, measured_ms / 1e3, None if gap_ms is None else gap_ms / 1e3)
    assert found.regime == regime
    assert found.why


def test_a_prefill_is_compute_bound() -> None:
    assert standing(prefill(LLAMA, BF16, 1, 4096), H200, 0.09, 0.001).regime == "compute-bound"


@pytest.mark.parametrize("config", [{}, {"hidden_size": 5}, {"hidden_size": "x", "num_hidden_layers": 2}])
def test_a_config_that_says_too_little(config: dict[str, Any]) -> None:
    assert architecture(config) is None


def test_the_text_part_of_a_multimodal_config() -> None:
    found = architecture({"model_type": "vlm", "text_config": shape_config("llama-3-8b")})
    assert found == LLAMA


@pytest.mark.parametrize(
    ("flags", "expected", "kind"),
    [
        ({}, Precision(2, 2, 2), "bfloat16"),
        ({"dtype": "float32"}, Precision(4, 4, 4), "float32"),
        ({"quantization": "fp8", "dtype": "bfloat16"}, Precision(1, 2, 2), "fp8"),
        ({"quantization": "awq", "kv_cache_dtype": "fp8"}, Precision(0.5, 1, 2), "bfloat16"),
        ({"weights": "bfloat16 (why)", "activations": "float32"}, Precision(2, 4, 2), "float32"),
        ({"quantization": "none", "kv-cache-dtype": "auto"}, Precision(2, 2, 2), "bfloat16"),
    ],
)
def test_bytes_from_what_an_engine_says(flags: dict[str, object], expected: Precision, kind: str) -> None:
    assert precision(flags, "bfloat16") == expected
    assert computed_in(flags, "bfloat16") == kind


W8A8 = {"weights": {"num_bits": 8, "type": "float"}, "input_activations": {"num_bits": 8, "type": "float"}}
W4A16 = {"weights": {"num_bits": 4, "type": "int"}, "input_activations": None}


@pytest.mark.parametrize(
    ("method", "told", "expected", "kind"),
    [
        ("gptq_marlin", {"quant_method": "gptq", "bits": 8}, Precision(1, 2, 2), "bfloat16"),
        ("awq_marlin", {"quant_method": "awq", "bits": 4}, Precision(0.5, 2, 2), "bfloat16"),
        ("compressed-tensors", {"config_groups": {"group_0": W4A16}}, Precision(0.5, 2, 2), "bfloat16"),
        ("compressed-tensors", {"config_groups": {"group_0": W8A8}}, Precision(1, 2, 2), "fp8"),
        (
            "compressed-tensors",
            {"config_groups": {"group_0": W8A8}, "kv_cache_scheme": {"num_bits": 8, "type": "float"}},
            Precision(1, 1, 2), "fp8",
        ),
        ("modelopt", {"quant_method": "modelopt", "quant_algo": "FP8"}, Precision(1, 2, 2), "fp8"),
        ("modelopt_fp4", {"quant_method": "modelopt", "quant_algo": "NVFP4"}, Precision(0.5, 2, 2), "bfloat16"),
        ("fp8", {"quant_method": "fp8", "weight_block_size": [128, 128]}, Precision(1, 2, 2), "fp8"),
        ("mxfp4", {"quant_method": "mxfp4"}, Precision(0.5, 2, 2), "bfloat16"),
        ("none", {"quant_method": "bitsandbytes", "load_in_4bit": True}, Precision(0.5, 2, 2), "bfloat16"),
    ],
)  # fmt: skip
def test_bytes_from_what_the_checkpoint_says(method: str, told: dict[str, Any], expected: Precision, kind: str) -> None:
    """compressed-tensors names no number of bits, gptq is 4 or 8."""
    config = {"quantization_config": told}
    assert precision({"quantization": method, "kv-cache-dtype": "auto"}, "bfloat16", config) == expected
    assert computed_in({"quantization": method}, "bfloat16", config) == kind


def test_a_cache_of_deepseeks_own_layout_is_not_taken_for_the_plain_type() -> None:
    found = architecture(DEEPSEEK_V3)
    assert found is not None
    stored = precision({"kv-cache-dtype": "fp8_ds_mla"}, "bfloat16")
    assert kv_bytes_per_token(found, stored) == pytest.approx(61 * 656)


def test_several_cards_share_a_step() -> None:
    assert cards_of({"tensor_parallel_size": 4, "data-parallel-size": "2", "pipeline-parallel-size": "2"}) == (4, 4)
    assert cards_of({"tensor-parallel-size": "2", "device": "cpu"}) == (1, 1)
    assert cards_of({}) == (1, 1)
    seventy = shape("llama-3-70b")
    one = decode(seventy, BF16, 8, 4096).floor_s(H200)
    assert decode(seventy.over(4), BF16, 8, 4096).floor_s(H200.times(4)) == pytest.approx(one / 4)
    # 8 KV heads: beyond 8 cards each holds one that others hold too; all of MLA's latent is on every card
    assert kv_bytes_per_token(seventy.over(16), BF16) == 2 * 327_680
    deepseek = architecture(DEEPSEEK_V3)
    assert deepseek is not None
    assert kv_bytes_per_token(deepseek.over(8), BF16) == 8 * 70_272


def test_windows_that_a_config_leaves_to_the_code() -> None:
    """google/gemma-2-9b says nothing but `sliding_window`: every second of its 42 layers has it."""
    gemma2 = {**GEMMA_LIKE, "model_type": "gemma2", "num_hidden_layers": 42}
    del gemma2["sliding_window_pattern"]
    found = architecture(gemma2)
    assert found is not None
    assert found.windowed == 21
