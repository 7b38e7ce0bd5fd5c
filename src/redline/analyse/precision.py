"""Bytes per element of weights, KV cache and head, and over how many cards a step goes, from what an engine says that
it runs with and what the checkpoint's config.json says of its quantisation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from redline.analyse.roofline import Precision

BYTES = {
    "float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "half": 2.0, "float": 4.0,
    "fp8": 1.0, "fp8_e4m3": 1.0, "fp8_e5m2": 1.0, "int8": 1.0,
    # of KV caches alone; scales of 1 byte for 16 values, and DeepSeek's 656 bytes for 576 elements
    "fp8_inc": 1.0, "fp8_per_token_head": 1.0, "int8_per_token_head": 1.0, "int4_per_token_head": 0.5,
    "nvfp4": 0.5625, "nvfp4_4over6": 0.5625, "fp8_ds_mla": 656 / 576,
}  # fmt: skip
ONE_BYTE = ("fp8", "int8", "mxfp8", "w8a8", "w8a16")
HALF_BYTE = ("awq", "gptq", "nvfp4", "mxfp4", "modelopt_fp4", "w4a16", "int4")


@dataclass(frozen=True)
class Stored:
    """What a checkpoint says of itself; None where it does not. `product` is the type that matrices are multiplied in
    where that is not the plain one."""

    weights: float | None = None
    kv: float | None = None
    product: str = ""


def precision(flags: Mapping[str, object], dtype: str, config: Mapping[str, Any] = {}) -> Precision:
    """`flags` by name with dashes or without; `dtype` is the model's, where they name none. The head keeps the plain
    type: it is rarely quantised."""
    words, stored = _words(flags), stored_as(config)
    plain = _size(words, "weights", "dtype") or BYTES.get(dtype, 2.0)
    method = words.get("quantization", "")
    weights = 1.0 if any(word in method for word in ONE_BYTE) else plain
    weights = 0.5 if any(word in method for word in HALF_BYTE) else weights
    cache = _size(words, "kv-cache-dtype") or stored.kv or _size(words, "activations", "dtype") or BYTES.get(dtype, 2.0)
    return Precision(stored.weights or weights, cache, plain)


def computed_in(flags: Mapping[str, object], dtype: str, config: Mapping[str, Any] = {}) -> str:
    """The type in which matrices are multiplied, as a ceiling is named after."""
    words, stored = _words(flags), stored_as(config)
    if stored.product or "fp8" in words.get("quantization", ""):
        return stored.product or "fp8"
    found = next((word for name in ("activations", "dtype") if (word := _first(words, name)) in BYTES), dtype)
    return {"half": "float16", "float": "float32"}.get(found, found)


def stored_as(config: Mapping[str, Any]) -> Stored:
    """From `quantization_config` as AutoAWQ, GPTQ, compressed-tensors, ModelOpt, FP8 and MXFP4 checkpoints write it."""
    told = config.get("quantization_config")
    if not isinstance(told, Mapping):
        return Stored()
    method, algorithm = str(told.get("quant_method") or "").lower(), str(told.get("quant_algo") or "").lower()
    groups = [one for one in (told.get("config_groups") or {}).values() if isinstance(one, Mapping)]
    weights = [one["weights"] for one in groups if isinstance(one.get("weights"), Mapping)]
    bits = [float(one["num_bits"]) for one in weights if one.get("num_bits")]
    if told.get("bits") or bits:
        size: float | None = float(told.get("bits") or max(bits)) / 8
    elif "4" in algorithm or method == "mxfp4" or told.get("load_in_4bit"):
        size = 0.5
    else:
        size = 1.0 if "fp8" in (method, algorithm) or told.get("load_in_8bit") else None
    inputs = [one.get("input_activations") for one in groups]
    floats = bool(groups) and all(_is_fp8(one) for one in (*weights, *inputs))
    scheme = told.get("kv_cache_scheme")
    kv = 1.0 if _is_fp8(scheme) or str(told.get("kv_cache_quant_algo") or "").lower() == "fp8" else None
    return Stored(size, kv, "fp8" if floats or "fp8" in (method, algorithm) else "")


def _is_fp8(scheme: object) -> bool:
    return isinstance(scheme, Mapping) and scheme.get("num_bits") == 8 and scheme.get("type") == "float"


def cards_of(flags: Mapping[str, object]) -> tuple[int, int]:
    """(cards that share the work of each step, groups of them that each have a part of the batch): tensor parallel;
    data parallel and pipelines. A CPU is one card however it is cut."""
    words = _words(flags)
    if words.get("device") == "cpu":
        return 1, 1
    tensor, data, pipeline = (_count(words, f"{kind}-parallel-size") for kind in ("tensor", "data", "pipeline"))
    return tensor, data * pipeline


def _count(words: Mapping[str, str], name: str) -> int:
    word = words.get(name, "")
    return max(1, int(word)) if word.isdigit() else 1


def _words(flags: Mapping[str, object]) -> dict[str, str]:
    return {name.replace("_", "-"): str(value).lower() for name, value in flags.items()}


def _size(words: Mapping[str, str], *names: str) -> float | None:
    return next((BYTES[word] for name in names if (word := _first(words, name)) in BYTES), None)


def _first(words: Mapping[str, str], name: str) -> str:
    """`bfloat16 (what the CPU multiplies fastest)` begins with the type."""
    return words.get(name, "").split(" ")[0].removeprefix("torch.")
