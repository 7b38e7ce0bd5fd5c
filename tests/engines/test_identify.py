"""Servers are told apart by what they say; the answers are shortened from the engines' documentation and source."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from redline.engines import identify as module
from redline.engines.http import Reply
from redline.engines.identify import Identity, identify

LLAMA_CPP = {"default_generation_settings": {"n_ctx": 65536}, "total_slots": 4, "build_info": "b8681-Debian"}
TGI = {"model_id": "m", "version": "3.3.4", "model_dtype": "torch.float16", "max_total_tokens": 8192, "router": "r"}
SGLANG = {
    "version": "0.5.9", "model_path": "m", "tp_size": 2, "dtype": "auto", "context_length": 4096,
    "api_key": "s3cret", "mem_fraction_static": 0.86, "quantization": None,
}  # fmt: skip
METRICS = '# TYPE vllm:x gauge\nvllm:cache_config_info{block_size="16",cache_dtype="auto",num_gpu_blocks="9"} 1.0\n'

CASES = [
    (
        {"owned_by": "vllm", "max_model_len": 2048}, {"/version": {"version": "0.30.0"}}, METRICS,
        Identity("vllm", "0.30.0", {"block-size": "16", "kv-cache-dtype": "auto", "kv-cache-blocks": "9"}, 2048),
    ),
    (
        {"owned_by": "my-proxy"}, {"/version": {"version": "0.30.0"}}, METRICS,
        Identity("vllm", "0.30.0", {"block-size": "16", "kv-cache-dtype": "auto", "kv-cache-blocks": "9"}),
    ),
    (
        {"owned_by": "sglang"}, {"/server_info": SGLANG}, "",
        Identity("sglang", "0.5.9", {"dtype": "auto", "tp-size": "2", "mem-fraction-static": "0.86",
                                     "context-length": "4096"}, 4096),
    ),
    (
        {}, {"/get_model_info": {"model_path": "m"}, "/get_server_info": SGLANG}, "",
        Identity("sglang", "0.5.9", {"dtype": "auto", "tp-size": "2", "mem-fraction-static": "0.86",
                                     "context-length": "4096"}, 4096),
    ),
    (
        {"owned_by": "llamacpp", "meta": {"n_ctx_train": 131072}}, {"/props": LLAMA_CPP}, "",
        Identity("llama.cpp", "b8681-Debian", {"slots": "4", "ctx-size": "65536"}, 65536),
    ),
    (
        {"owned_by": "m"}, {"/info": TGI}, "",
        Identity("tgi", "3.3.4", {"model-dtype": "torch.float16", "max-total-tokens": "8192"}, 8192),
    ),
    ({"owned_by": "library"}, {"/api/version": {"version": "0.9.0"}}, "", Identity("ollama", "0.9.0")),
    ({"owned_by": "tensorrt_llm"}, {"/version": {"version": "1.2"}}, "", Identity("tensorrt-llm", "1.2")),
    ({"owned_by": "transformers"}, {"/version": {"version": "5.17.0"}}, "", Identity("transformers", "5.17.0")),
    (
        {"owned_by": "redline", "max_model_len": 4096},
        {"/version": {"version": "0.1.0", "engine": "redline", "flags": {"dtype": "bfloat16", "page-size": 16}}},
        METRICS,  # it speaks vLLM's names
        Identity("redline", "0.1.0", {"dtype": "bfloat16", "page-size": "16"}, 4096),
    ),
    ({"owned_by": "someone"}, {}, "", Identity("openai-compatible")),
    ({}, {"/version": {"version": "7", "engine": "mine"}}, "", Identity("mine", "7")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("model", "pages", "metrics", "expected"), CASES, ids=lambda value: getattr(value, "engine", "")
)
def test_identify(
    monkeypatch: pytest.MonkeyPatch, model: dict[str, Any], pages: dict[str, Any], metrics: str, expected: Identity
) -> None:
    def answer(url: str, **_: object) -> Reply:
        page = pages.get(url.removeprefix("http://h"))
        return Reply(200, {}, orjson.dumps(page)) if page else Reply(404, {}, b'{"detail": "Not Found"}')

    monkeypatch.setattr(module, "try_fetch", answer)
    found = identify("http://h", model, {}, metrics)
    assert found == expected
    assert "s3cret" not in repr(found)
