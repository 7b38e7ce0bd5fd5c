"""Which engine answers behind an OpenAI-compatible URL: by what it says about itself, never by guessing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from redline.engines.http import try_fetch
from redline.engines.vllm_log import CACHE_NAMES, cache_labels

OWNERS = {
    "vllm": "vllm",
    "sglang": "sglang",
    "llamacpp": "llama.cpp",
    "tensorrt_llm": "tensorrt-llm",
    "lmdeploy": "lmdeploy",
    "library": "ollama",
    "transformers": "transformers",
    "redline": "redline",
}
"""What engines write as `owned_by` on /v1/models."""

SGLANG_FLAGS = (
    "dtype", "quantization", "kv_cache_dtype", "tp_size", "dp_size", "pp_size", "mem_fraction_static", "context_length",
    "max_running_requests", "max_total_tokens", "chunked_prefill_size", "attention_backend", "disable_radix_cache",
    "disable_cuda_graph", "random_seed", "schedule_policy",
)  # fmt: skip
"""By name: the rest of its answer may hold an API key."""
TGI_FLAGS = (
    "model_dtype", "model_device_type", "max_concurrent_requests", "max_input_tokens", "max_input_length",
    "max_total_tokens", "max_batch_total_tokens", "max_client_batch_size", "sha",
)  # fmt: skip


@dataclass(frozen=True)
class Identity:
    """`engine` is "openai-compatible" when it does not say; `flags` what it tells about its configuration."""

    engine: str
    version: str = ""
    flags: dict[str, str] = field(default_factory=dict)
    max_model_len: int | None = None


def identify(root_url: str, model: Mapping[str, Any], headers: Mapping[str, str], metrics: str = "") -> Identity:
    """Asks up to five GETs. `model` is the entry of /v1/models that is served."""

    def ask(path: str) -> dict[str, Any]:
        reply = try_fetch(root_url + path, headers=headers)
        found = reply.json() if reply and reply.ok else None
        return found if isinstance(found, dict) else {}

    longest = _number(model.get("max_model_len"))
    owner = OWNERS.get(str(model.get("owned_by", "")).lower(), "")
    version = ask("/version")
    if owner == "redline":
        flags = {name: str(value) for name, value in dict(version.get("flags") or {}).items()}
        return Identity("redline", str(version.get("version", "")), flags, longest)
    if owner == "vllm" or "vllm:" in metrics:
        labels = cache_labels(metrics)
        flags = {flag: labels[name] for name, flag in CACHE_NAMES.items() if labels.get(name, "None") != "None"}
        return Identity("vllm", str(version.get("version", "")), flags, longest)
    if owner == "sglang" or (not owner and ask("/get_model_info").get("model_path")):
        info = ask("/get_server_info") or ask("/server_info")
        flags = _pick(info, SGLANG_FLAGS)
        return Identity("sglang", str(info.get("version", "")), flags, longest or _number(info.get("context_length")))
    if owner == "llama.cpp" or (not owner and ask("/props").get("build_info")):
        return _llama_cpp(ask("/props"), model)
    if not owner and (info := ask("/info")).get("version") and info.get("model_id"):
        return Identity("tgi", str(info["version"]), _pick(info, TGI_FLAGS), _number(info.get("max_total_tokens")))
    if not owner or owner == "ollama":
        ollama = ask("/api/version")
        if ollama.get("version"):
            return Identity("ollama", str(ollama["version"]), {}, longest)
    name = owner or str(version.get("engine", "")) or "openai-compatible"
    return Identity(name, str(version.get("version", "")), {}, longest)


def _llama_cpp(props: Mapping[str, Any], model: Mapping[str, Any]) -> Identity:
    settings = props.get("default_generation_settings")
    context = _number(settings.get("n_ctx")) if isinstance(settings, dict) else None
    flags = {"slots": str(props["total_slots"])} if "total_slots" in props else {}
    flags |= {"ctx-size": str(context)} if context else {}
    meta = model.get("meta")
    trained = _number(meta.get("n_ctx_train")) if isinstance(meta, dict) else None
    return Identity("llama.cpp", str(props.get("build_info", "")), flags, context or trained)


def _pick(info: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, str]:
    return {name.replace("_", "-"): str(info[name]) for name in names if info.get(name) is not None}


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and value > 0 else None
