"""Is what the GPU computes right? Kernels, logits and graphs against references, for `engine.py --check`.

1. Each kernel in bfloat16 against plain torch in float32: relative error at most 1e-2, drawn tokens the same.
2. Logits of a random Llama against transformers in float32: at most 1.25 times the error of transformers in bfloat16. A
   greedy mismatch counts where the reference's two best are further apart than twice that error.
3. A decode step's logits, with every choice that was made at start, against the plain forward pass in float32; and bit
   by bit the same whether kernels start early or not.
4. Answers of captured steps against the same steps without graphs: the same text.
"""

from __future__ import annotations

import json
import math
import random
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from engine import arguments
from engine_check_kernels import GPU, attention, draws, error_of, failures, hold, pointwise, products
from engine_own import shape_folder

from redline.runtime.batch import Batch
from redline.runtime.config import EngineConfig
from redline.runtime.gpu import GpuRunner
from redline.runtime.kernels.torch import TorchKernels
from redline.runtime.loop import EngineLoop
from redline.runtime.request import Output, Request, Sampling

TINY = Path(__file__).resolve().parents[1] / "src/redline/recipes/models/redline-tiny"


def main() -> int:
    asked = arguments()
    torch.manual_seed(asked.seed)
    torch.backends.cuda.matmul.allow_tf32 = False
    parts: list[tuple[str, Callable[[], None]]] = [
        ("pointwise", pointwise),
        ("attention", attention),
        ("products", products),
        ("draws", draws),
        ("steps", lambda: steps(asked.kernels)),
        ("fp8 steps", lambda: steps(asked.kernels, "fp8")),
        ("logits", lambda: logits(asked.kernels)),
        ("fp8 logits", lambda: logits(asked.kernels, "fp8")),
        ("fp8 KV logits", lambda: logits(asked.kernels, kv="fp8")),
        ("graphs", lambda: graphs(asked.kernels)),
    ]
    for name, part in parts:
        if asked.parts and name not in asked.parts.split(","):
            continue
        print(f"== {name}", flush=True)
        try:
            part()
        except Exception as error:  # the other parts are to be seen as well
            failures.append(f"{name}: {type(error).__name__}: {str(error)[:600]}")
            print("FAILED", failures[-1], flush=True)
    print("\n".join(["", f"{len(failures)} failures", *failures]), flush=True)
    return bool(failures)


@torch.inference_mode()
def steps(kernels: str, quantization: str = "none") -> None:
    """Decode steps of the 1B's shape, four layers of it, each row in a context of its own."""
    folder = shape_folder("llama-3.2-1b")
    document = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(document | {"num_hidden_layers": 4}))
    runner = make_runner(folder, kernels, quantization, most=256, load_format="random")
    step, plain = runner.setup.step, TorchKernels()
    if step is None:
        hold("decode steps missing", 1, 0)
        return
    model, own = runner.model, step.kernels
    decoder, was = runner.decoder, own.pdl
    for rows in (1, 3, 8, 16, 32, 64, 200):
        batch = decoder.batch(rows)
        batch.ids.copy_(torch.randint(0, model.config.vocab_size, (rows,), device=GPU))
        # no two rows write to the same place: one page each where two are too many
        batch.seq_lens.copy_(torch.arange(rows) % (30 if rows > 127 else 60) + 1)
        batch.positions.copy_(batch.seq_lens - 1)
        order = (torch.randperm(256) + 1).to(torch.int32).to(GPU)
        batch.page_tables[:, 0], batch.page_tables[:, 1] = order[:rows], order[-rows:]
        page = batch.page_tables.gather(1, (batch.positions // 32)[:, None]).squeeze(1)
        batch.slots.copy_(page * 32 + batch.positions % 32)
        for pages in (one for layer in runner.setup.kv for one in layer):
            pages.normal_()
        saved = [(k.clone(), v.clone()) for k, v in runner.setup.kv]
        found = []
        for pdl in (False, was, was):
            for (k, v), (old_k, old_v) in zip(runner.setup.kv, saved, strict=True):
                k.copy_(old_k), v.copy_(old_v)
            own.pdl = pdl
            out = torch.empty(rows, model.config.vocab_size, dtype=model.dtype, device=GPU)
            step.logits(decoder.batch(rows), runner.setup.kv, out)
            found.append(out.clone())
        own.pdl = was
        differ = sum(not torch.equal(found[0], one) for one in found[1:])
        hold(f"{rows} rows: steps that starting early changes", differ, 0)
        model.kernels = plain
        right = model.logits(model.forward(decoder.batch(rows), runner.setup.kv))
        model.kernels = own
        # the plain pass rounds activations to float8 too, the step does not with few rows
        hold(f"{rows} rows: logits", error_of(found[0], right), 8e-2 if quantization == "none" else 0.4)


def logits(kernels: str, quantization: str = "none", kv: str = "auto") -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=1024,
        intermediate_size=2816,
        num_hidden_layers=4,
        num_attention_heads=16,
        num_key_value_heads=4,
        vocab_size=8000,
        max_position_embeddings=1024,
        initializer_range=0.05,
        eos_token_id=1,
    )
    folder = Path(tempfile.mkdtemp(prefix="redline-check-"))
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    lengths = [300, 1, 65, 128]
    ids = [torch.randint(0, 8000, (n + 16,), device=GPU) for n in lengths]
    bf16, right = (peer_logits(folder, dtype, ids) for dtype in (torch.bfloat16, torch.float32))
    runner = make_runner(folder, kernels, quantization, kv=kv)
    found = teacher_forced(runner, ids, lengths)
    wanted = torch.cat([one[n - 1 : n + 16] for one, n in zip(right, lengths, strict=True)])
    peer = torch.cat([one[n - 1 : n + 16] for one, n in zip(bf16, lengths, strict=True)])
    own_error, peer_error = error_of(found, wanted), error_of(peer, wanted)
    print(f"   relative error: redline {own_error:.4g}, transformers in bf16 {peer_error:.4g}")
    worst = float((peer - wanted).abs().max())
    gap = wanted.topk(2).values
    clear = (gap[:, 0] - gap[:, 1]) > 2 * worst
    missed = int(((found.argmax(-1) != wanted.argmax(-1)) & clear).sum())
    exact = quantization == "none" and kv == "auto"
    hold(f"greedy mismatches, of {int(clear.sum())} clear places", missed, 0 if exact else math.inf)
    what = f"{quantization} logits, KV {kv}, error over that of transformers"
    hold(what, own_error / peer_error, 1.25 if exact else 40)


@torch.inference_mode()
def peer_logits(folder: Path, dtype: torch.dtype, ids: list[torch.Tensor]) -> list[torch.Tensor]:
    """Loaded anew for each dtype: a model that is cast afterwards has its rotation frequencies rounded too."""
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(GPU).eval()
    return [model(one[None]).logits[0].float() for one in ids]


class KeptRunner(GpuRunner):
    """Outlives the loops that it is used in."""

    def close(self) -> None:
        pass


def make_runner(
    folder: Path, kernels: str, quantization: str = "none", most: int = 16, load_format: str = "auto", kv: str = "auto"
) -> GpuRunner:
    config = EngineConfig(
        model=folder,
        dtype="bfloat16",
        quantization=quantization,  # type: ignore[arg-type]
        kernels=kernels,  # type: ignore[arg-type]
        kv_cache_dtype=kv,  # type: ignore[arg-type]
        device="cuda",
        max_num_seqs=most,
        load_format=load_format,  # type: ignore[arg-type]
        max_num_batched_tokens=512,
        max_model_len=1024,
        kv_cache_tokens=8192,
    )
    runner = KeptRunner(config, lambda text: print("  ", text, flush=True))
    print("\n".join(f"   {key}: {value}" for key, value in runner.resolved().items()), flush=True)
    return runner


@torch.inference_mode()
def teacher_forced(runner: GpuRunner, ids: list[torch.Tensor], lengths: list[int]) -> torch.Tensor:
    """Prefill of all prompts in one ragged step, then 16 decode steps on given tokens. [17 per sequence, V]."""
    page_size, most = runner.limits.page_size, max(lengths) + 16
    each = -(-most // page_size)
    tables = torch.zeros(len(ids), 64, dtype=torch.int32)
    for i in range(len(ids)):
        tables[i, :each] = torch.arange(1 + i * each, 1 + (i + 1) * each)
    rows: list[list[torch.Tensor]] = [[] for _ in ids]
    for step in range(17):
        queries = list(lengths) if step == 0 else [1] * len(ids)
        ends = [n + step for n in lengths]
        batch = forced_batch(ids, queries, ends, tables, page_size)
        hidden = runner.model.forward(batch, runner.setup.kv)
        for row, one in zip(rows, runner.model.logits(hidden), strict=True):
            row.append(one)
    return torch.stack([one for row in rows for one in row])


def forced_batch(
    ids: list[torch.Tensor], queries: list[int], ends: list[int], tables: torch.Tensor, page_size: int
) -> Batch:
    starts = [0]
    for count in queries:
        starts.append(starts[-1] + count)
    at = [torch.arange(end - count, end) for count, end in zip(queries, ends, strict=True)]
    slots = [tables[i, p // page_size].long() * page_size + p % page_size for i, p in enumerate(at)]
    return Batch(
        ids=torch.cat([one[p.to(GPU)] for one, p in zip(ids, at, strict=True)]),
        positions=torch.cat(at).to(GPU),
        slots=torch.cat(slots).to(GPU),
        starts=torch.tensor(starts, dtype=torch.int32, device=GPU),
        seq_lens=torch.tensor(ends, dtype=torch.int32, device=GPU),
        page_tables=tables.to(GPU),
        logits_at=torch.tensor(starts[1:], device=GPU) - 1,
        max_query=max(queries),
        max_seq=max(ends),
        host_starts=starts,
        host_seq_lens=ends,
    )


def graphs(kernels: str) -> None:
    runner = make_runner(TINY, kernels)
    captured = answers(runner)
    hold("captured buckets missing", len(set(runner._buckets) - set(runner.graphs.sizes)), 0)
    runner.graphs.clear()
    eager = answers(runner)
    same = sum(a == b for a, b in zip(captured, eager, strict=True))
    hold(f"answers of graphs that differ from eager ones, of {len(eager)}", len(eager) - same, 0)
    again = answers(runner)
    hold("eager answers that differ when repeated", sum(a != b for a, b in zip(eager, again, strict=True)), 0)


def answers(runner: GpuRunner) -> list[list[int]]:
    """Greedy, sampled, narrowed, penalised and log-probability rows together, some longer than others."""
    source = random.Random(3)
    loop = EngineLoop(runner, config=EngineConfig(model=TINY, enable_prefix_caching=False))
    ended = threading.Semaphore(0)
    found: list[list[int]] = []
    ways = (
        {"temperature": 0.0},
        {"temperature": 1.0},
        {"temperature": 0.8, "top_p": 0.9},
        {"temperature": 1.0, "top_k": 20},
        {"temperature": 0.0, "repetition_penalty": 1.2},
        {"temperature": 0.7, "logprobs": 2},
    )
    for i in range(12):
        tokens: list[int] = []
        found.append(tokens)

        def sink(output: Output, tokens: list[int] = tokens) -> None:
            tokens.extend(output.tokens)
            if output.finish is not None:
                ended.release()

        prompt = [source.randrange(runner.limits.vocab_size) for _ in range(source.randrange(5, 200))]
        sampling = Sampling(max_tokens=source.randrange(20, 90), seed=i, **ways[i % len(ways)])  # type: ignore[arg-type]
        loop.submit(Request(str(i), prompt, sampling, sink))
    loop.start()  # now, so that every run plans the same steps
    for _ in range(12):
        if not ended.acquire(timeout=60):
            raise RuntimeError(f"no answer in 60 s: {loop.failure or loop.stats()}")
    loop.stop()
    return found


if __name__ == "__main__":
    sys.exit(main())
