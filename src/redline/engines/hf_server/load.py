"""The model in memory: from a checkpoint or with random weights, with its tokenizer and its limits."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Phase = Callable[[str], None]


class LoadError(Exception):
    """Wrong flags or a model that cannot be served; the message is meant for the user."""


@dataclass(frozen=True)
class Loaded:
    model: Any
    tokenizer: Any
    decode: Callable[[Sequence[int]], str]
    """Token ids to text, special tokens left out."""
    name: str
    max_model_len: int
    vocab_size: int
    eos_ids: frozenset[int]
    sampling_defaults: dict[str, float]
    device: str
    dtype: str
    threads: int


def load(args: argparse.Namespace, phase: Phase) -> Loaded:
    """Slow. `phase` hears what is going on."""
    phase("importing torch and transformers")
    import torch

    transformers = library("transformers")
    threads = set_threads(args.threads, args.device)
    torch.manual_seed(args.seed)
    device = pick_device(args.device)
    phase("reading the tokenizer")
    source, revision = args.tokenizer or args.model, None if args.tokenizer else args.revision
    remote = {"trust_remote_code": True} if args.trust_remote_code else {}
    tokenizer = transformers.AutoTokenizer.from_pretrained(source, revision=revision, **remote)
    config = transformers.AutoConfig.from_pretrained(args.model, revision=args.revision, **remote)
    dtype, max_model_len = pick_dtype(args.dtype, config), context_length(config, args.max_model_len)
    phase("initialising random weights" if args.random_weights else "loading weights")
    # Continuous batching puts a paged one in place later.
    own_choice = args.attn_implementation != "auto" and args.batching != "continuous"
    attention = args.attn_implementation if own_choice else None
    if args.random_weights:
        model = random_model(config, device, dtype, attention, remote)
        model.generation_config = _generation_config(args, model.generation_config)
    else:
        model = read_model(args, device, dtype, attention, remote)
    model.eval()
    return Loaded(
        model=model,
        tokenizer=tokenizer,
        decode=decoder(tokenizer),
        name=args.served_model_name or args.model,
        max_model_len=max_model_len,
        vocab_size=model.get_input_embeddings().weight.shape[0],
        eos_ids=eos_ids(model.generation_config, tokenizer),
        sampling_defaults=take_sampling_defaults(model),
        device=str(model.device),
        dtype=str(model.dtype).removeprefix("torch."),
        threads=threads,
    )


def library(name: str) -> Any:
    """A package that is imported only here and that type checkers need not know."""
    return importlib.import_module(name)


def usable_cores() -> int:
    """Cores of this process: its affinity, and its cgroup's CPU quota where there is one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass
    return max(1, cores)


def set_threads(wanted: int, device: str) -> int:
    """One core stays free for the event loop: OpenMP threads that wait for a descheduled one spin, 10× slower."""
    import torch

    on_cpu = device == "cpu" or (device == "auto" and not torch.cuda.is_available())
    if wanted or on_cpu:
        torch.set_num_threads(wanted or max(1, usable_cores() - 1))
    return int(torch.get_num_threads())


def pick_device(wanted: str) -> str:
    import torch

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise LoadError(f"--device {wanted}: torch {torch.__version__} sees no CUDA device")
    return wanted


def pick_dtype(wanted: str, config: Any) -> Any:
    """The torch dtype; auto is the checkpoint's own, float32 when it does not say."""
    import torch

    if wanted == "auto":
        text = config.get_text_config()
        found = getattr(config, "dtype", None) or getattr(text, "dtype", None) or torch.float32
        return getattr(torch, found) if isinstance(found, str) else found
    dtype = getattr(torch, wanted, None)
    if not isinstance(dtype, torch.dtype):
        raise LoadError(f"--dtype {wanted}: no such dtype")
    return dtype


def read_model(args: argparse.Namespace, device: str, dtype: Any, attention: str | None, remote: dict[str, Any]) -> Any:
    # With accelerate the weights go straight to the device, without a copy of the model in host memory.
    direct = device != "cpu" and importlib.util.find_spec("accelerate") is not None
    extra = {"device_map": device} if direct else {}
    model = library("transformers").AutoModelForCausalLM.from_pretrained(
        args.model, revision=args.revision, dtype=dtype, attn_implementation=attention, **extra, **remote
    )
    return model if direct else model.to(device)


def random_model(config: Any, device: str, dtype: Any, attention: str | None, remote: dict[str, Any]) -> Any:
    """The architecture with the initialisation that its family trains from, made on the device in its final dtype."""
    import torch

    with torch.device(device), torch.no_grad():
        model = library("transformers").AutoModelForCausalLM.from_config(
            config, dtype=dtype, attn_implementation=attention, **remote
        )
    return model.to(device)


def _generation_config(args: argparse.Namespace, fallback: Any) -> Any:
    try:
        return library("transformers").GenerationConfig.from_pretrained(args.model, revision=args.revision)
    except (OSError, ValueError):
        return fallback


def context_length(config: Any, wanted: int) -> int:
    own = getattr(config.get_text_config(), "max_position_embeddings", None) or 0
    if wanted and own and wanted > own:
        raise LoadError(f"--max-model-len {wanted} is more than the {own} positions that the model has")
    return int(wanted or own or 2048)


def eos_ids(generation_config: Any, tokenizer: Any) -> frozenset[int]:
    found = generation_config.eos_token_id
    listed = found if isinstance(found, list) else [found]
    return frozenset(int(one) for one in [*listed, tokenizer.eos_token_id] if one is not None and one >= 0)


def take_sampling_defaults(model: Any) -> dict[str, float]:
    """Moves the checkpoint's sampling settings out of the model: `generate()` would fill a request's gaps with them."""
    own = model.generation_config
    found = {name: getattr(own, name, None) for name in ("temperature", "top_p", "top_k")}
    sampled = bool(own.do_sample)
    pad = own.pad_token_id if own.pad_token_id is not None else 0
    model.generation_config = library("transformers").GenerationConfig(pad_token_id=pad)
    # Without do_sample transformers is greedy whatever else is set, and some checkpoints say nothing at all.
    return {name: float(value) for name, value in found.items() if value is not None} if sampled else {}


def decoder(tokenizer: Any) -> Callable[[Sequence[int]], str]:
    """The Rust tokenizer's own decode where there is one: three times cheaper, and it is called for every token."""
    rust = getattr(tokenizer, "backend_tokenizer", None)
    if rust is not None and hasattr(rust, "decode"):
        return lambda ids: str(rust.decode(ids, skip_special_tokens=True))
    return lambda ids: str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))
