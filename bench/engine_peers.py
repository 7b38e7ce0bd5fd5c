"""vLLM offline, or transformers' `generate`, on one shape with random weights, for `engine.py`."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine import arguments, loads, longest, tell

SHAPES = Path(__file__).resolve().parents[1] / "src/redline/recipes/shapes"
Generate = Callable[[list[list[int]], int], None]


def main() -> None:
    asked = arguments(("engine", "shape", "dtype"))
    if importlib.util.find_spec(asked.engine) is None:
        sys.exit(f"{asked.engine} is not installed")
    config = json.loads((SHAPES / f"{asked.shape}.json").read_text())["config"]
    folder = Path(tempfile.mkdtemp(prefix="redline-shape-"))
    (folder / "config.json").write_text(json.dumps(config))
    started = time.perf_counter()
    if asked.engine == "vllm":
        generate, version = with_vllm(folder, asked), _version("vllm")
        repeats = asked.repeats
    else:
        if asked.dtype != "bf16":
            sys.exit("transformers is measured in bf16 only")
        generate, version = with_transformers(folder), _version("transformers")
        repeats = min(2, asked.repeats)
    tell(version=version, start_s=round(time.perf_counter() - started, 1))
    source = random.Random(asked.seed)

    def timed(batch: int, length: int, count: int) -> float:
        prompts = [[source.randrange(config["vocab_size"]) for _ in range(length)] for _ in range(batch)]
        began = time.perf_counter()
        generate(prompts, count)
        return time.perf_counter() - began

    for batch, prompt, tokens in loads(asked):
        tokens = tokens if asked.engine == "vllm" else min(tokens, asked.peer_tokens)
        timed(batch, prompt, 8)
        steps, prefills = [], []
        for _ in range(repeats if prompt == asked.prompt else 1):
            one, whole = timed(batch, prompt, 1), timed(batch, prompt, tokens)
            steps.append((whole - one) / (tokens - 1) * 1000)
            prefills.append(one * 1000)
        step = statistics.median(steps)
        tell(
            batch=batch,
            prompt=prompt,
            step_ms=step,
            repeats_ms=steps,
            tokens_s=batch / step * 1000,
            prefill_ms=statistics.median(prefills),
            tokens=tokens,
        )
    sys.stdout.flush()
    os._exit(0)  # engines that leave processes or threads behind must not keep the next one waiting


def with_vllm(folder: Path, asked: argparse.Namespace) -> Generate:
    from vllm import LLM, SamplingParams

    llm = LLM(
        model=str(folder),
        load_format="dummy",
        skip_tokenizer_init=True,
        dtype="bfloat16",
        quantization="fp8" if asked.dtype == "fp8" else None,
        kv_cache_dtype=asked.kv,
        max_model_len=longest(asked),
        max_num_seqs=max(batch for batch, _, _ in loads(asked)),
        gpu_memory_utilization=0.9,
    )

    def generate(prompts: list[list[int]], count: int) -> None:
        params = SamplingParams(temperature=0.0, max_tokens=count, ignore_eos=True, detokenize=False)
        answers = llm.generate([{"prompt_token_ids": ids} for ids in prompts], params, use_tqdm=False)
        if any(len(answer.outputs[0].token_ids) != count for answer in answers):
            raise SystemExit("an answer is shorter than asked")

    return generate


def with_transformers(folder: Path) -> Generate:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("cuda"):
        model: Any = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.bfloat16)
    model.eval()

    def generate(prompts: list[list[int]], count: int) -> None:
        ids = torch.tensor(prompts, device="cuda")
        with torch.inference_mode():
            model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=count,
                min_new_tokens=count,
                do_sample=False,
                pad_token_id=0,
            )
        torch.cuda.synchronize()

    return generate


def _version(name: str) -> str:
    from importlib.metadata import version

    return version(name)


if __name__ == "__main__":
    main()
