"""How weights are stored when they are not plain: `quantization_config` of config.json, read strictly."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from redline.errors import Unsupported

Layout = Literal["awq", "gptq", "packed", "fp8"]
"""`packed` is compressed-tensors' pack-quantized; `fp8` is float8_e4m3fn weights with `weight_scale`."""


@dataclass(frozen=True)
class Quantization:
    """One layout for all linear layers that `ignored` does not name.

    `group_size` counts inputs that share a scale; 0 means all of them. `zero_offset` is what GPTQ's first format left
    out of its stored zero points. `ignored` are module names, parts of names, or regular expressions after `re:`.
    """

    layout: Layout
    bits: int
    group_size: int = 0
    symmetric: bool = True
    act_order: bool = False
    zero_offset: int = 0
    ignored: tuple[str, ...] = ()

    def skips(self, module: str) -> bool:
        """True when the module, such as `model.layers.0.self_attn.q_proj`, is stored plain."""
        return any(_names(pattern, module) for pattern in self.ignored)


def _names(pattern: str, module: str) -> bool:
    if pattern.startswith("re:"):
        return re.match(pattern[3:], module) is not None
    return module == pattern or f".{pattern}." in f".{module}."


def read_quantization(config: dict[str, Any]) -> Quantization | None:
    """None for a plain checkpoint. Raises `Unsupported` with the name of what is missing."""
    given = config.get("quantization_config") or config.get("compression_config")
    if not given:
        return None
    method = str(given.get("quant_method", "")).lower()
    readers = {"awq": _awq, "gptq": _gptq, "compressed-tensors": _compressed, "fp8": _fp8}
    if method not in readers:
        raise Unsupported(
            f"quantization {method or 'without quant_method'}: redline's engine reads {', '.join(sorted(readers))}",
            fix="take an unquantized checkpoint of the same model; --quantization int8 or fp8 quantizes it at start",
        )
    return readers[method](given)


def _four(bits: Any, where: str) -> int:
    if bits != 4:
        raise Unsupported(f"{where} with {bits} bits: only 4 are read")
    return 4


def _awq(given: dict[str, Any]) -> Quantization:
    version = str(given.get("version", "gemm")).lower()
    if version != "gemm":
        raise Unsupported(f"AWQ version {version}: only gemm is read")
    bits = _four(given.get("bits", given.get("w_bit")), "AWQ")
    size = int(given.get("group_size", given.get("q_group_size", 128)))
    ignored = tuple(given.get("modules_to_not_convert") or ())
    return Quantization(
        "awq", bits, max(size, 0), symmetric=not given.get("zero_point", True), ignored=(*ignored, "lm_head")
    )


def _gptq(given: dict[str, Any]) -> Quantization:
    form = given.get("checkpoint_format", "gptq")
    if form not in ("gptq", "gptq_v2"):
        raise Unsupported(f"GPTQ checkpoint_format {form}: only gptq and gptq_v2 are read")
    if given.get("dynamic"):
        raise Unsupported("GPTQ with dynamic per-module settings")
    return Quantization(
        "gptq",
        _four(given.get("bits"), "GPTQ"),
        max(int(given.get("group_size", 128)), 0),
        symmetric=bool(given.get("sym", True)),
        act_order=bool(given.get("desc_act", False)),
        zero_offset=1 if form == "gptq" else 0,
        ignored=() if given.get("lm_head") else ("lm_head",),
    )


def _fp8(given: dict[str, Any]) -> Quantization:
    if given.get("weight_block_size"):
        raise Unsupported(f"fp8 in blocks of {given['weight_block_size']}: only scales per tensor or channel are read")
    ignored = (*(given.get("modules_to_not_convert") or ()), *(given.get("ignored_layers") or ()), "lm_head")
    return Quantization("fp8", 8, ignored=ignored)


def _compressed(given: dict[str, Any]) -> Quantization:
    if (given.get("sparsity_config") or {}).get("format", "dense") != "dense":
        raise Unsupported(f"compressed-tensors sparsity {given['sparsity_config']['format']}")
    groups = list((given.get("config_groups") or {}).values())
    if len(groups) != 1 or groups[0].get("targets") != ["Linear"]:
        raise Unsupported("compressed-tensors with more than one group of targets")
    weights, form = groups[0].get("weights") or {}, groups[0].get("format") or given.get("format")
    ignored = tuple(given.get("ignore") or ())
    strategy = weights.get("strategy")
    if form == "float-quantized" and weights.get("type") == "float" and weights.get("num_bits") == 8:
        if strategy not in ("tensor", "channel"):
            raise Unsupported(f"compressed-tensors fp8 with scales per {strategy}: only per tensor or channel")
        return Quantization("fp8", 8, ignored=ignored)
    if form != "pack-quantized" or weights.get("type") != "int":
        raise Unsupported(f"compressed-tensors format {form} ({weights.get('type')})")
    if groups[0].get("input_activations"):
        raise Unsupported("compressed-tensors pack-quantized with quantized activations")
    if strategy not in ("group", "channel"):
        raise Unsupported(f"compressed-tensors 4 bits with scales per {strategy}: only per group or channel")
    return Quantization(
        "packed",
        _four(weights.get("num_bits"), "compressed-tensors"),
        int(weights.get("group_size") or 0) if strategy == "group" else 0,
        symmetric=bool(weights.get("symmetric", True)),
        act_order=weights.get("actorder") in ("group", "static", True),
        ignored=ignored,
    )
