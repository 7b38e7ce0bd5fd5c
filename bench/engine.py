"""redline's own engine on this GPU, as a share of what memory and arithmetic allow, beside vLLM and transformers.

    python bench/engine.py [--shapes llama-3.2-1b,llama-3-8b] [--dtypes bf16,fp8] [--batch 1,8,64,256]
                           [--engines redline,vllm,transformers] [--repeats 3] [--out results.json]
                           [--long 4096,8192,16384] [--kv fp8]
    python bench/engine.py --check            each kernel, the logits and the graphs against references
    python bench/engine.py --profile          kernels of decode steps of --batch, their times, the gaps between them
    python bench/engine.py --cases            speculation, a shared prefix, run-ahead's waste: redline only

REDLINE_WITHOUT=step,rope,pdl switches parts of a step off: runtime/kernels/tiers.py.

Every engine gets random weights of a published shape, 128 random tokens per prompt (new ones in every repeat) and makes
256, end-of-sequence ignored; after that, prompts of --long tokens once, one and eight at a time, and 64 tokens. A
decode step is (time for 256 tokens - time for 1) / 255, the same for all engines.

The floor of a step is max(weight bytes / read bandwidth, 2 parameters B / peak) + B x context x KV bytes / bandwidth;
bandwidth and peak are measured in the same process as redline. Each engine, shape and dtype has a process of its own:
one that fails is named and the others go on. Rows are printed, and written to --out, as they come.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
CHILD = {"redline": "engine_own.py", "vllm": "engine_peers.py", "transformers": "engine_peers.py"}
HEAD = (
    "engine",
    "shape",
    "dtype",
    "prompt",
    "B",
    "step ms",
    "repeats",
    "floor ms",
    "share",
    "gpu ms",
    "tok/s",
    "prefill ms",
)


def main() -> int:
    asked = arguments()
    scripts = {"check": asked.check, "profile": asked.profile, "cases": asked.cases}
    if any(scripts.values()):
        script = next(f"engine_{name}.py" for name, wanted in scripts.items() if wanted)
        return subprocess.call([sys.executable, "-u", str(HERE / script), *passed_on(asked)], env=environment())
    document: dict[str, Any] = {"arguments": vars(asked), "rows": [], "notes": []}
    print("  ".join(HEAD), flush=True)
    floors: dict[Any, float] = {}
    for shape in asked.shapes.split(","):
        for dtype in asked.dtypes.split(","):
            for engine in asked.engines.split(","):
                measure(asked, engine, shape, dtype, document, floors)
    return 0 if document["rows"] else 1


def measure(
    asked: argparse.Namespace, engine: str, shape: str, dtype: str, document: dict[str, Any], floors: dict[Any, float]
) -> None:
    """One child; what it prints as JSON lines is taken in, everything else is its log and is shown when it fails."""
    command = [sys.executable, "-u", str(HERE / CHILD[engine]), engine, shape, dtype, *passed_on(asked)]
    started = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment())
    assert child.stdout is not None
    too_long = threading.Timer(asked.limit_s, child.kill)
    too_long.start()
    tail: list[str] = []
    for line in child.stdout:
        if not line.startswith("JSON "):
            tail = [*tail[-25:], line.rstrip()]
            continue
        take(json.loads(line[5:]) | {"engine": engine, "shape": shape, "dtype": dtype}, document, floors)
        if asked.out:
            asked.out.write_text(json.dumps(document, indent=1, default=str))
    code = child.wait()
    too_long.cancel()
    took = time.perf_counter() - started
    if code:
        print(f"-- {engine} {shape} {dtype} ended with {code} after {took:.0f} s:", *tail, sep="\n   ", flush=True)
        document["notes"].append({"engine": engine, "shape": shape, "dtype": dtype, "exit": code, "log": tail})
    else:
        print(f"-- {engine} {shape} {dtype}: {took:.0f} s in all", flush=True)


def take(told: dict[str, Any], document: dict[str, Any], floors: dict[Any, float]) -> None:
    """A row, which has a batch size, or a note. Peers are held against the floor that redline's process measured."""
    if "batch" not in told:
        document["notes"].append(told)
        print(note_text(told), flush=True)
        return
    key = (told["shape"], told["dtype"], told["prompt"], told["batch"])
    floors.setdefault(key, told.get("floor_ms", float("nan")))
    told["floor_ms"], told["share"] = floors[key], floors[key] / told["step_ms"]
    document["rows"].append(told)
    print(row_text(told), flush=True)


def environment() -> dict[str, str]:
    """Children find this checkout's redline first."""
    source = str(HERE.parent / "src")
    return os.environ | {"PYTHONPATH": os.pathsep.join([source, *filter(None, [os.environ.get("PYTHONPATH")])])}


def row_text(row: dict[str, Any]) -> str:
    repeats = " ".join(f"{value:.3f}" for value in row["repeats_ms"])
    gpu = f"{row['gpu_ms']:.3f}" if "gpu_ms" in row else "-"
    cells = (
        row["engine"],
        row["shape"],
        row["dtype"],
        str(row["prompt"]),
        str(row["batch"]),
        f"{row['step_ms']:.3f}",
        f"[{repeats}]",
    )
    share = f"{100 * row['share']:.1f} %"
    count, seconds = row.get("late", (0, 0.0))
    late = [f"COMPILED WHILE SERVING: {count}, {seconds:.2f} s"] if count else []
    return "  ".join(
        (*cells, f"{row['floor_ms']:.3f}", share, gpu, f"{row['tokens_s']:.0f}", f"{row['prefill_ms']:.1f}", *late)
    )


def note_text(told: dict[str, Any]) -> str:
    rest = {key: value for key, value in told.items() if key not in ("engine", "shape", "dtype")}
    return "\n".join(f"   {told['engine']} {key}: {value}" for key, value in rest.items())


def passed_on(asked: argparse.Namespace) -> list[str]:
    """The arguments that children read."""
    names = (
        "batch",
        "repeats",
        "tokens",
        "prompt",
        "kernels",
        "peer_tokens",
        "seed",
        "shapes",
        "dtypes",
        "long",
        "kv",
        "parts",
    )
    return [word for name in names for word in (f"--{name.replace('_', '-')}", str(getattr(asked, name)))]


def arguments(names: tuple[str, ...] = ()) -> argparse.Namespace:
    """`names`: positional arguments, which children have."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in names:
        parser.add_argument(name)
    parser.add_argument("--shapes", default="llama-3.2-1b,llama-3-8b")
    parser.add_argument("--dtypes", default="bf16,fp8")
    parser.add_argument("--engines", default="redline")
    parser.add_argument("--batch", default="1,8,64,256")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--long", default="", help="longer prompts, too: 4096,8192,16384")
    parser.add_argument("--kv", default="auto", help="fp8: keys and values of redline and vLLM in float8")
    parser.add_argument("--peer-tokens", type=int, default=64, help="tokens that transformers makes: it is slow")
    parser.add_argument("--kernels", default="auto", help="redline's: auto, triton, flashinfer, torch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit-s", type=float, default=240.0, help="for each process")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--parts", default="", help="of --check: those only, such as 'steps,fp8 steps,graphs'")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--cases", action="store_true")
    return parser.parse_args()


def loads(asked: argparse.Namespace) -> list[tuple[int, int, int]]:
    """(batch, prompt, tokens) of every measurement."""
    usual = [(int(size), asked.prompt, asked.tokens) for size in asked.batch.split(",")]
    return usual + [(batch, length, 64) for length in longer(asked) for batch in (1, 8)]


def longer(asked: argparse.Namespace) -> list[int]:
    return [int(length) for length in asked.long.split(",") if length]


def longest(asked: argparse.Namespace) -> int:
    """Tokens that a sequence may have."""
    return max([asked.prompt + asked.tokens, *(length + 64 for length in longer(asked))]) + 128


def tell(**told: Any) -> None:
    """A child's result, for `measure`."""
    print("JSON " + json.dumps(told, default=str), flush=True)


if __name__ == "__main__":
    sys.exit(main())
