"""The command line of redline's own server. Standard library only: an experiment is checked against it here.

The flags of the engine are the fields of `redline.runtime.config.EngineConfig`, with dashes; a test keeps them alike.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

KEY_VARIABLE = "REDLINE_API_KEY"


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="redline.runtime.serve",
        description="OpenAI-compatible server of redline's own engine",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    _model_flags(top.add_argument_group("model"))
    _memory_flags(top.add_argument_group("memory and batches"))
    _speed_flags(top.add_argument_group("how it computes"))
    _server_flags(top.add_argument_group("server"))
    return top


def _model_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--model", required=True, help="folder or hub id")
    group.add_argument("--served-model-name", default="", help="name in the API; --model when empty")
    group.add_argument("--tokenizer", default=None, help="folder or hub id of the tokenizer; --model when absent")
    group.add_argument("--revision", default=None, help="hub revision of the model")
    group.add_argument("--load-format", choices=("auto", "random"), default="auto", help="random: seeded weights")
    group.add_argument("--dtype", choices=("auto", "float32", "bfloat16", "float16"), default="auto", help="of weights")
    group.add_argument(
        "--quantization", choices=("auto", "none", "int8", "fp8"), default="auto", help="auto: as the checkpoint is"
    )
    group.add_argument("--max-model-len", type=int, default=0, help="prompt + answer; 0 is the model's own limit")
    group.add_argument(
        "--generation-config",
        choices=("auto", "none"),
        default="auto",
        help="auto: the checkpoint's temperature, top-p and top-k stand in for those that a request leaves out",
    )
    group.add_argument("--seed", type=int, default=0, help="of random weights")


def _memory_flags(group: argparse._ArgumentGroup) -> None:
    yes_no = argparse.BooleanOptionalAction
    group.add_argument("--kv-cache-dtype", choices=("auto", "fp8"), default="auto", help="of keys and values")
    group.add_argument("--page-size", type=int, default=0, help="tokens per KV page; 0 chooses")
    group.add_argument("--kv-cache-tokens", type=int, default=0, help="room for so many tokens; 0 takes memory-share")
    group.add_argument("--memory-share", type=float, default=0.9, help="of the GPU (CPU: of a quarter of free memory)")
    group.add_argument("--max-num-seqs", type=int, default=0, help="requests computed together; 0 chooses")
    group.add_argument("--max-num-batched-tokens", type=int, default=0, help="tokens of one step; 0 chooses")
    group.add_argument("--enable-prefix-caching", action=yes_no, default=True, help="reuse KV of shared prefixes")
    group.add_argument(
        "--itl-target-ms", type=float, default=None, help="prefill in chunks that keep a step within this"
    )


def _speed_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: cuda if there is one")
    group.add_argument(
        "--kernels", choices=("auto", "torch", "triton", "flashinfer"), default="auto", help="auto: measured at start"
    )
    group.add_argument("--run-ahead", type=int, default=None, help="steps launched before their input is known here")
    group.add_argument(
        "--speculation",
        type=speculation,
        default=None,
        help='ngram, or JSON: {"method": "draft", "draft_model": "DIR", "tokens": 4}',
    )
    group.add_argument("--threads", type=int, default=0, help="CPU threads of torch; 0 chooses")


def _server_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--host", default="127.0.0.1", help="address to listen on")
    group.add_argument("--port", type=int, default=8000, help="0 lets the system pick one")
    group.add_argument("--api-key-env", default=KEY_VARIABLE, help="environment variable with the key to ask for")
    group.add_argument("--max-body-bytes", type=int, default=32 * 2**20, help="largest request body")
    group.add_argument("--max-waiting", type=int, default=4096, help="refuse (429) when so many wait; 0 never does")
    group.add_argument("--drain-s", type=float, default=10.0, help="after SIGTERM, time for streams to end")
    group.add_argument("--stall-s", type=float, default=5.0, help="unhealthy at the latest after so long in one step")
    group.add_argument("--flush-ms", type=float, default=15.0, help="a stream is written at most so often")
    group.add_argument("--alone", type=int, default=8, help="up to so many open streams are written at every step")
    group.add_argument(
        "--otlp-traces-endpoint", default="", help="URL for OpenTelemetry spans (OTLP, HTTP); off if empty"
    )
    group.add_argument("--profile-dir", default="", help="folder for traces of /start_profile; off when empty")


def speculation(text: str) -> dict[str, Any] | None:
    """The fields of `SpeculationConfig`: a bare method, or JSON. ValueError for anything else."""
    if text in ("", "none"):
        return None
    value = json.loads(text) if text.lstrip().startswith("{") else {"method": text}
    if value.get("method") not in ("ngram", "draft"):
        raise ValueError(f"method must be ngram or draft, not {value.get('method')!r}")
    known = {"method", "tokens", "draft_model", "ngram_min", "ngram_max", "adaptive"}
    if unknown := sorted(set(value) - known):
        raise ValueError(f"unknown: {', '.join(unknown)}; known: {', '.join(sorted(known))}")
    if value["method"] == "draft" and not value.get("draft_model"):
        raise ValueError("method draft needs draft_model")
    if value.get("draft_model"):
        value["draft_model"] = Path(value["draft_model"])
    return dict(value)
