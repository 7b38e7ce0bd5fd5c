"""What a checkpoint is: config.json, read strictly. What the engine would compute wrongly is refused by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from redline.errors import ModelNotFound, Unsupported
from redline.runtime.quant_config import Quantization, read_quantization
from redline.runtime.rope import Rope, read_rope

FAMILIES = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
}
_DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {"max_position_embeddings": 2048},
    "mistral": {"max_position_embeddings": 131072},
    "qwen2": {"max_position_embeddings": 32768},
    "qwen3": {"max_position_embeddings": 32768},
}
_SAME = {"rms_norm_eps": 1e-6, "tie_word_embeddings": False, "sliding_window": 4096}
_FOREIGN = ("vision_config", "audio_config", "text_config", "num_local_experts", "num_experts", "n_routed_experts")
DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class ModelConfig:
    """The numbers of one decoder of the Llama family. `window` has one entry per layer: tokens seen, None for all.

    `parameters` counts weights of the true shape, a tied head once. `dtype` is the checkpoint's.
    """

    family: str
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    max_position: int
    rms_norm_eps: float
    rope: Rope
    window: tuple[int | None, ...]
    qk_norm: bool
    qkv_bias: bool
    o_bias: bool
    mlp_bias: bool
    tied: bool
    dtype: str
    eos_ids: frozenset[int]
    bos_id: int | None = None
    quantization: Quantization | None = None

    @property
    def layer_parameters(self) -> int:
        """Weights of one layer's matrices."""
        heads = self.num_heads * 2 + self.num_kv_heads * 2
        return self.hidden_size * (heads * self.head_dim + 3 * self.intermediate_size)

    @property
    def parameters(self) -> int:
        ends = self.vocab_size * self.hidden_size * (1 if self.tied else 2)
        return self.num_layers * self.layer_parameters + ends

    def kv_bytes(self, itemsize: int) -> int:
        """Bytes of K and V of one token in all layers."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim * itemsize


def read_config(folder: Path) -> ModelConfig:
    """The model in `folder`. Raises `ModelNotFound`, or `Unsupported` naming what is missing."""
    config = _json(folder / "config.json")
    if config is None:
        raise ModelNotFound(f"{folder} has no config.json", fix="name a folder with a Hugging Face checkpoint")
    return parse_config(config, _json(folder / "generation_config.json") or {})


def parse_config(config: dict[str, Any], generation: dict[str, Any]) -> ModelConfig:
    """`config` and `generation` are the contents of config.json and generation_config.json."""
    family = _family(config)
    given = {**_SAME, **_DEFAULTS[family], **{key: value for key, value in config.items() if value is not None}}
    if "sliding_window" in config:  # null turns it off, a missing key does not
        given["sliding_window"] = config["sliding_window"]
    activation = given.get("hidden_act", "silu")
    if activation != "silu":
        raise Unsupported(f"activation {activation}: redline's engine has silu")
    heads, hidden = _whole(given, "num_attention_heads"), _whole(given, "hidden_size")
    layers = _whole(given, "num_hidden_layers")
    head_dim = int(given.get("head_dim") or (128 if family == "qwen3" else hidden // heads))
    kv_heads = int(given.get("num_key_value_heads") or heads)
    if heads % kv_heads or head_dim % 2:
        raise Unsupported(f"{heads} query heads over {kv_heads} of keys, head_dim {head_dim}")
    rope, position = _rope(given)
    bias = bool(given.get("attention_bias", False)) and family in ("llama", "qwen3")
    return ModelConfig(
        family=family,
        hidden_size=hidden,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate_size=_whole(given, "intermediate_size"),
        vocab_size=_whole(given, "vocab_size"),
        max_position=position,
        rms_norm_eps=float(given["rms_norm_eps"]),
        rope=rope,
        window=_windows(given, family, layers),
        qk_norm=family == "qwen3",
        qkv_bias=bias or family == "qwen2",
        o_bias=bias,
        mlp_bias=bool(given.get("mlp_bias", False)) and family == "llama",
        tied=bool(given["tie_word_embeddings"]),
        dtype=_dtype(given),
        eos_ids=_ids(generation.get("eos_token_id")) or _ids(config.get("eos_token_id")),
        bos_id=min(_ids(config.get("bos_token_id")), default=None),
        quantization=read_quantization(given),
    )


def _rope(given: dict[str, Any]) -> tuple[Rope, int]:
    """(rope, positions); yarn's factor makes more of them than config.json says."""
    position = _whole(given, "max_position_embeddings")
    rope = read_rope(given, position)
    return rope, max(position, int(rope.original * rope.factor)) if rope.kind == "yarn" else position


def _family(config: dict[str, Any]) -> str:
    names = config.get("architectures") or []
    known = f"redline's engine has {', '.join(FAMILIES)}"
    fix = "--engine vllm or --engine transformers may have it"
    if len(names) != 1 or names[0] not in FAMILIES:
        raise Unsupported(f"architecture {', '.join(names) or 'not named in config.json'}: {known}", fix=fix)
    foreign = next((key for key in _FOREIGN if config.get(key)), None)
    if foreign:
        raise Unsupported(f"{foreign} in a {names[0]}: {known}, without experts and other modalities", fix=fix)
    return FAMILIES[names[0]]


def _windows(given: dict[str, Any], family: str, layers: int) -> tuple[int | None, ...]:
    size = given["sliding_window"]
    if family == "llama" or (family.startswith("qwen") and not given.get("use_sliding_window", False)):
        size = None
    kinds = given.get("layer_types") if family.startswith("qwen") else None
    if kinds is not None:
        strange = sorted(set(kinds) - {"full_attention", "sliding_attention"})
        if strange or len(kinds) != layers:
            raise Unsupported(f"layer_types {', '.join(strange) or len(kinds)}: full_attention or sliding_attention")
        return tuple(size if kind == "sliding_attention" else None for kind in kinds)
    first = int(given.get("max_window_layers", 28)) if family.startswith("qwen") else 0
    return tuple(size if layer >= first else None for layer in range(layers))


def _dtype(given: dict[str, Any]) -> str:
    name = str(given.get("dtype", given.get("torch_dtype", "float32"))).removeprefix("torch.")
    if name not in DTYPES:
        raise Unsupported(f"dtype {name}: redline's engine has {', '.join(DTYPES)}")
    return name


def _whole(given: dict[str, Any], key: str) -> int:
    value = given.get(key)
    if not isinstance(value, int) or value <= 0:
        raise Unsupported(f"config.json: {key} is {value!r}, a positive number is needed")
    return value


def _ids(value: Any) -> frozenset[int]:
    return frozenset(value) if isinstance(value, list) else frozenset() if value is None else frozenset((int(value),))


def _json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        found: dict[str, Any] = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as wrong:
        raise Unsupported(f"{path}: {wrong}") from None
    return found
