"""What vLLM says it resolved: read back from its log, its /metrics and its API, never from what was asked for."""

from __future__ import annotations

import re

from redline.engines.ready import Phase

PHASES = (
    Phase(
        "config", "reading the model's configuration", re.compile(r"non-default args|API server version|Resolved arch")
    ),
    Phase("core", "starting the engine core", re.compile(r"Initializing a V\d LLM engine")),
    Phase(
        "weights",
        "loading weights",
        re.compile(r"Starting to load model|Loading model from scratch|Loading safetensors"),
    ),
    Phase("compile", "compiling and profiling", re.compile(r"Loading (?:model )?weights took|Model loading took")),
    Phase("kv_cache", "laying out the KV cache and warming up", re.compile(r"KV cache size:|GPU blocks:")),
    Phase("graphs", "capturing CUDA graphs", re.compile(r"Capturing CUDA graph|Graph capturing")),
    Phase("serve", "starting the HTTP server", re.compile(r"init engine \(profile")),
)

CONFIG_NAMES = {
    "dtype": "dtype",
    "max_seq_len": "max-model-len",
    "load_format": "load-format",
    "tensor_parallel_size": "tensor-parallel-size",
    "pipeline_parallel_size": "pipeline-parallel-size",
    "data_parallel_size": "data-parallel-size",
    "quantization": "quantization",
    "enforce_eager": "enforce-eager",
    "kv_cache_dtype": "kv-cache-dtype",
    "device_config": "device",
    "seed": "seed",
    "enable_prefix_caching": "enable-prefix-caching",
    "enable_chunked_prefill": "enable-chunked-prefill",
    "chunked_prefill_enabled": "enable-chunked-prefill",
    "speculative_config": "speculative-config",
}
"""From the engine's own one-line dump to the flag's name."""

CACHE_NAMES = {
    "block_size": "block-size",
    "cache_dtype": "kv-cache-dtype",
    "enable_prefix_caching": "enable-prefix-caching",
    "gpu_memory_utilization": "gpu-memory-utilization",
    "kv_cache_memory_bytes": "kv-cache-memory-bytes",
    "kv_cache_max_concurrency": "kv-cache-max-concurrency",
    "kv_cache_size_tokens": "kv-cache-tokens",
    "num_gpu_blocks": "kv-cache-blocks",
}
"""From the labels of `vllm:cache_config_info`."""

LINES: dict[str, str] = {
    "attention-backend": r"Using (?:AttentionBackendEnum\.)?([A-Z][A-Z0-9_]+) (?:attention )?backend",
    "max-num-batched-tokens": r"max_num_batched_tokens=(\d+)",
    "kv-cache-tokens": r"KV cache size: ([\d,]+) tokens",
    "kv-cache-gib": r"Available KV cache memory: ([\d.]+) GiB",
    "kv-cache-max-concurrency": r"Maximum concurrency for [\d,]+ tokens per request: ([\d.]+)x",
    "flash-attention-version": r"Using FlashAttention version (\d+)",
    "weights-gib": r"Model loading took ([\d.]+) Gi?B",
    "graph-capture-s": r"Graph capturing finished in ([\d.]+) secs",
    "compile-s": r"torch\.compile (?:takes|took) ([\d.]+) s in total",
    "init-engine-s": r"init engine \(profile[^)]*\) took ([\d.]+) s",
    "architecture": r"Resolved architecture: (\w+)",
    "cpu-cores": r"local_rank=0, core ids=(\[[\d, ]*\])",
}

NOT_RESOLVED = {"host", "port", "model", "served-model-name", "tokenizer", "api-key"}
"""Told elsewhere in the endpoint, or secret."""


def resolved(log: str, metrics: str) -> dict[str, str]:
    """Resolved values by flag name; later sources win: asked-for flags, engine dump, log lines, /metrics."""
    values = {name.replace("_", "-"): _word(value) for name, value in _asked(log).items()}
    dump = _engine_dump(log)
    values |= {flag: _word(dump[name]) for name, flag in CONFIG_NAMES.items() if name in dump}
    for name in ("cudagraph_mode", "mode"):
        if found := re.search(rf"'{name}': <\w+\.(\w+): ", dump.get("compilation_config", "")):
            values["compilation-mode" if name == "mode" else "cudagraph-mode"] = found[1].lower()
    for flag, pattern in LINES.items():
        if found := re.search(pattern, log):
            values[flag] = found[1].replace(",", "") if flag.startswith("kv-") else found[1]
    labels = cache_labels(metrics)
    values |= {flag: _word(labels[name]) for name, flag in CACHE_NAMES.items() if labels.get(name, "None") != "None"}
    return {name: value for name, value in values.items() if name not in NOT_RESOLVED}


def cache_labels(metrics: str) -> dict[str, str]:
    """The labels of vLLM's `vllm:cache_config_info` gauge."""
    found = re.search(r"^vllm:cache_config_info\{(.*)\} ", metrics, re.M)
    return dict(re.findall(r'(\w+)="([^"]*)"', found[1])) if found else {}


def _asked(log: str) -> dict[str, str]:
    """vLLM's own list of the flags that differ from its defaults, as text: some values are no Python literals."""
    found = re.search(r"non-default args: \{(.*)\}", log)
    pairs = (part.partition(": ") for part in _split(found[1])) if found else ()
    return {name.strip("'"): value for name, _, value in pairs}


def _engine_dump(log: str) -> dict[str, str]:
    """`key=value, key=value` of the line that the engine core prints, as text; brackets and quotes are kept whole."""
    found = re.search(r"Initializing a V\d LLM engine \([^)]*\) with config: (.*)", log)
    return dict(part.split("=", 1) for part in _split(found[1]) if "=" in part) if found else {}


def _split(text: str) -> list[str]:
    """Splits at commas outside brackets and quotes."""
    parts, depth, quote, start = [], 0, "", 0
    for index, char in enumerate(text):
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
        elif char == "," and depth == 0:
            parts.append(text[start:index].strip())
            start = index + 1
    return [*parts, text[start:].strip()]


def _word(value: object) -> str:
    """As YAML would have it: `true`, `none`, `bfloat16` without its module."""
    text = str(value).strip("'\"").removeprefix("torch.")
    return text.lower() if text in ("True", "False", "None") else text
