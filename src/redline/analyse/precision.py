"""Bytes per element of weights, KV cache and head, from what an engine says that it runs with."""

from __future__ import annotations

from collections.abc import Mapping

from redline.analyse.roofline import Precision

BYTES = {
    "float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "half": 2.0, "float": 4.0,
    "fp8": 1.0, "fp8_e4m3": 1.0, "fp8_e5m2": 1.0, "int8": 1.0,
}  # fmt: skip
ONE_BYTE = ("fp8", "int8", "mxfp8", "w8a8", "w8a16")
HALF_BYTE = ("awq", "gptq", "nvfp4", "mxfp4", "w4a16", "int4")


def precision(flags: Mapping[str, object], dtype: str) -> Precision:
    """`flags` by name with dashes or without; `dtype` is the model's, where they name none. The head keeps the plain
    type: it is rarely quantised."""
    words = {name.replace("_", "-"): str(value).lower() for name, value in flags.items()}
    plain = _size(words, "weights", "dtype") or BYTES.get(dtype, 2.0)
    method = words.get("quantization", "")
    weights = 1.0 if any(word in method for word in ONE_BYTE) else plain
    weights = 0.5 if any(word in method for word in HALF_BYTE) else weights
    cache = _size(words, "kv-cache-dtype", "activations", "dtype") or BYTES.get(dtype, 2.0)
    return Precision(weights, cache, plain)


def computed_in(flags: Mapping[str, object], dtype: str) -> str:
    """The type in which matrices are multiplied, as a ceiling is named after."""
    words = {name.replace("_", "-"): str(value).lower() for name, value in flags.items()}
    if "fp8" in words.get("quantization", ""):
        return "fp8"
    found = next((word for name in ("activations", "dtype") if (word := _first(words, name)) in BYTES), dtype)
    return {"half": "float16", "float": "float32"}.get(found, found)


def _size(words: Mapping[str, str], *names: str) -> float | None:
    return next((BYTES[word] for name in names if (word := _first(words, name)) in BYTES), None)


def _first(words: Mapping[str, str], name: str) -> str:
    """`bfloat16 (what the CPU multiplies fastest)` begins with the type."""
    return words.get(name, "").split(" ")[0].removeprefix("torch.")
