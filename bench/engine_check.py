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
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from engine import arguments
from engine_own import shape_folder

from redline.runtime.batch import Batch
from redline.runtime.config import EngineConfig
from redline.runtime.gpu import GpuRunner
from redline.runtime.kernels.draw import TorchDraw
from redline.runtime.kernels.torch import TorchKernels
from redline.runtime.kernels.triton import TritonKernels
from redline.runtime.kernels.triton_decode import TritonDraw
from redline.runtime.kernels.triton_linear import Around, Way, candidates
from redline.runtime.kernels.warm import run_all
from redline.runtime.linear import FP8, Fp8, Plain
from redline.runtime.loop import EngineLoop
from redline.runtime.request import Output, Request, Sampling
from redline.runtime.state import Tables

GPU = "cuda"
TINY = Path(__file__).resolve().parents[1] / "src/redline/recipes/models/redline-tiny"
failures: list[str] = []


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


def hold(what: str, value: float, most: float) -> None:
    """NaN fails too."""
    good = value <= most
    print(f"{'ok  ' if good else 'FAIL'} {what}: {value:.3g} (at most {most:g})", flush=True)
    if not good:
        failures.append(f"{what}: {value:.3g} > {most:g}")


def error_of(found: torch.Tensor, right: torch.Tensor) -> float:
    return float((found.float() - right.float()).norm() / right.float().norm().clamp(min=1e-9))


def half(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, device=GPU).to(torch.bfloat16)


def ragged(queries: list[int], lengths: list[int], page_size: int, pages: int) -> Batch:
    """A batch whose pages are scattered; the last pages are left for others."""
    starts = [0]
    for count in queries:
        starts.append(starts[-1] + count)
    width = 64
    tables = torch.zeros(len(lengths), width, dtype=torch.int32)
    order = (torch.randperm(pages - 1) + 1).to(torch.int32)
    used, slots, positions = 0, [], []
    for i, (count, length) in enumerate(zip(queries, lengths, strict=True)):
        need = -(-length // page_size)
        tables[i, :need] = order[used : used + need]
        used += need
        for position in range(length - count, length):
            slots.append(int(tables[i, position // page_size]) * page_size + position % page_size)
            positions.append(position)
    return Batch(
        ids=torch.zeros(starts[-1], dtype=torch.int64, device=GPU),
        positions=torch.tensor(positions, device=GPU),
        slots=torch.tensor(slots, device=GPU),
        starts=torch.tensor(starts, dtype=torch.int32, device=GPU),
        seq_lens=torch.tensor(lengths, dtype=torch.int32, device=GPU),
        page_tables=tables.to(GPU),
        logits_at=torch.tensor(starts[1:], device=GPU) - 1,
        max_query=max(queries),
        max_seq=max(lengths),
        host_starts=starts,
        host_seq_lens=lengths,
    )


def pointwise() -> None:
    own, plain = TritonKernels(), TorchKernels()
    for rows, columns in ((1, 4096), (7, 2048), (300, 896)):
        x, residual, weight = half(rows, columns), half(rows, columns), half(columns)
        right = plain.rms_norm(x.float(), weight.float(), 1e-5)
        hold(f"rms_norm {rows}x{columns}", error_of(own.rms_norm(x, weight, 1e-5), right), 1e-2)
        normed, total = plain.add_rms_norm(x.float(), residual.float(), weight.float(), 1e-5)
        found, sums = own.add_rms_norm(x, residual.clone(), weight, 1e-5)
        hold(f"add_rms_norm {rows}x{columns}", max(error_of(found, normed), error_of(sums, total)), 1e-2)
        right = plain.silu_mul(torch.cat([x, residual], 1).float())
        hold(f"silu_mul {rows}x{columns}", error_of(own.silu_mul(torch.cat([x, residual], 1)), right), 1e-2)
        rounded, scales = own.quantize_rows(x)
        hold(f"quantize_rows {rows}x{columns}", error_of(rounded.float() * scales, x), 5e-2)
    for heads, kv_heads, dim in ((32, 8, 128), (32, 8, 64), (14, 2, 64)):
        batch = ragged([1, 1, 40], [70, 300, 40], 32, 64)
        both = half(42, heads + 2 * kv_heads, dim)
        q, k, v = both.split((heads, kv_heads, kv_heads), 1)
        angles = torch.rand(512, dim // 2, device=GPU) * 6
        table = torch.cat([angles.cos(), angles.sin()], 1)
        pages = [torch.zeros(64, 32, kv_heads, dim, device=GPU, dtype=torch.bfloat16) for _ in range(2)]
        wide = [torch.zeros(64, 32, kv_heads, dim, device=GPU) for _ in range(2)]
        found = own.rope_append(q, k, v, table, batch, (pages[0], pages[1]))
        right = plain.rope_append(q.float(), k.float(), v.float(), table, batch, (wide[0], wide[1]))
        worst = max(error_of(found, right), error_of(pages[0], wide[0]), error_of(pages[1], wide[1]))
        hold(f"rope_append {heads}/{kv_heads}x{dim}", worst, 1e-2)


def attention() -> None:
    own, plain = TritonKernels(), TorchKernels()
    cases = (
        ([1], [700]),
        ([1] * 5, [5, 1, 900, 64, 65]),
        ([1, 1, 50, 333], [300, 7, 400, 333]),
        ([5, 3], [900, 40]),
        ([1] * 200, [100] * 200),
    )
    for heads, kv_heads, dim in ((32, 8, 128), (32, 8, 64), (14, 2, 64)):
        for queries, lengths in cases:
            for window in (None, 100):
                batch = ragged(queries, lengths, 32, 1024)
                kv = half(1024, 32, kv_heads, dim), half(1024, 32, kv_heads, dim)
                q = half(sum(queries), heads, dim)
                for pages in (kv, (kv[0].to(FP8), kv[1].to(FP8))):
                    right = plain.attention(q.float(), (pages[0].float(), pages[1].float()), batch, dim**-0.5, window)
                    found = own.attention(q, pages, batch, dim**-0.5, window)
                    name = f"attention {heads}/{kv_heads}x{dim} {pages[0].dtype} queries {queries[:4]} "
                    hold(name + f"lengths {lengths[:4]} window {window}", error_of(found, right), 1e-2)


def products() -> None:
    own, cases = TritonKernels(), list(product_cases())
    run_all(torch.device(GPU), [partial(around, *case) for case in cases])()
    for case in cases:
        check_product(*case)
    for n, k in ((3072, 2048), (4096, 14336)):
        quantized = Fp8.quantize(half(n, k) * 0.02)
        for tokens in (1, 7, 100):
            x = half(tokens, k)
            right = torch.nn.functional.linear(x.float(), quantized.dequantized())
            hold(f"fp8 product {tokens}x{k}x{n}", error_of(own.linear(x, quantized), right), 5e-2)
    for rows, columns in ((3, 4096), (200, 14336)):
        x, residual, gain = half(rows, columns), half(rows, columns), half(columns)
        normed, _ = TorchKernels().add_rms_norm(x.float(), residual.float(), gain.float(), 1e-5)
        rounded, scales = own.norm_quantize(x, residual.clone(), gain, 1e-5)
        hold(f"norm_quantize {rows}x{columns}", error_of(rounded.float() * scales, normed), 5e-2)
        rounded, scales = own.silu_quantize(torch.cat([x, residual], 1))
        right = TorchKernels().silu_mul(torch.cat([x, residual], 1).float())
        hold(f"silu_quantize {rows}x{columns}", error_of(rounded.float() * scales, right), 5e-2)


Case = tuple[str, Way, torch.Tensor, Plain | Fp8, torch.Tensor, torch.Tensor]


def product_cases() -> Iterator[Case]:
    """(name, product, input, weight, residual, gain) of every own product, on shapes with and without remainders."""
    for n, k, biased, sizes in (
        (3072, 2048, False, (1, 7, 31, 64)),
        (3072, 2048, True, (1, 7)),
        (1000, 14336, False, (1, 16)),
    ):
        dense = half(n, k) * 0.02
        bias = half(n) if biased else None
        for weight in (Plain(dense, bias), Fp8.quantize(dense, bias)):
            for tokens in sizes:
                x, residual, gain = half(tokens, k), half(tokens, n), half(k)
                for name, way in candidates(tokens, weight).items():
                    what = f"{type(weight).__name__} {name} {tokens}x{k}x{n} bias {biased}"
                    yield what, way, x, weight, residual, gain


def around(
    _: str, way: Way, x: torch.Tensor, weight: Plain | Fp8, residual: torch.Tensor, gain: torch.Tensor
) -> list[torch.Tensor]:
    """Alone, added to a residual, gated; the last one normed too where it can be."""
    start = Around(pdl=True)
    if way.rounds:
        rounded, scales = TritonKernels().quantize_rows(x)
        start, x = start._replace(scales=scales, dtype=x.dtype), rounded
    gated = start._replace(gated=True, gain=gain if norms(way, x) else None, eps=1e-5)
    added = start._replace(residual=residual.clone())
    return [way.product(x, weight, one) for one in (start, added, gated)]


def norms(way: Way, x: torch.Tensor) -> bool:
    return x.shape[0] <= 16 and not way.rounds


def check_product(*case: Any) -> None:
    """Twice, since counters must be left as they were found."""
    what, way, x, weight, residual, gain = case
    bias = None if weight.bias is None else weight.bias.float()
    dense, plain = weight.dequantized().float(), TorchKernels()
    if way.rounds:
        rounded, scales = TritonKernels().quantize_rows(x)
        x = rounded.float() * scales
    alone = torch.nn.functional.linear(x.float(), dense, bias)
    normed = plain.rms_norm(x.float(), gain.float(), 1e-5) if norms(way, x) else x.float()
    gated = plain.silu_mul(torch.nn.functional.linear(normed, dense, bias))
    right = [alone, alone + residual.float(), gated] * 2
    found = around(*case) + around(*case)
    hold(what, max(error_of(one, other) for one, other in zip(found, right, strict=True)), 1e-2)


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


def draws() -> None:
    source = random.Random(1)
    different = total = 0
    for vocab in (1000, 128256):
        for coarse in (False, True):
            rows, count = 64, 48
            first, second = (Tables(rows, 4, 32, torch.device(GPU)) for _ in range(2))
            for tables in (first, second):
                source.seed(7)
                for i in range(rows):
                    tables.temperature[i] = source.choice([0.0, 0.7, 1.0, 1.5])
                    tables.top_k[i] = source.choice([0, 0, 1, 5, 50, 2000])
                    tables.top_p[i] = source.choice([1.0, 1.0, 0.9, 0.3])
                    tables.min_p[i] = source.choice([0.0, 0.0, 0.05])
                    tables.seed_low[i] = source.getrandbits(31)
                    tables.seed_high[i] = source.getrandbits(31)
            logits = torch.randn(count, vocab, device=GPU) * 3
            logits = logits.to(torch.bfloat16).float() if coarse else logits
            logits[3, 17] = float("nan")
            chosen = torch.randperm(rows)[:count].to(torch.int32).to(GPU)
            at = torch.randint(1, 1000, (count,), dtype=torch.int32, device=GPU)
            found, right = (torch.empty(count, dtype=torch.int32, device=GPU) for _ in range(2))
            TritonDraw().draw(logits, first, chosen, at, found)
            TorchDraw().draw(logits, second, chosen, at, right)
            different += int((found != right).sum()) + int((first.token != second.token).sum())
            total += count
    # a draw at the border of two tokens may fall either way in float32
    hold(f"draws that differ, of {total}", different, 2)


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
