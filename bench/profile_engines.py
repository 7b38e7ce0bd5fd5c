"""Profiles of redline, vLLM and transformers on one shape, with ceilings, attention by context and KV memory.

    python bench/profile_engines.py --out FOLDER [--shape llama-3.1-8b] [--contexts 1024,4096,8192,16384] [--batch 64]
        [--engines redline,vllm,transformers] [--vllm-path FOLDER] [--vllm-python PATH] [--variants] [--quick]

Random weights of the true shape, bfloat16 on a GPU. vLLM may live in a folder of its own (--vllm-path, put on the
engine's PYTHONPATH) or in an interpreter (--vllm-python). --variants adds vLLM with its Triton attention, which is
FlashAttention turned off, and transformers with eager attention, at the contexts that eager attention has memory for.
--quick is for a laptop: the bundled model, two short contexts. Writes notes.md, profile.json, timeline.html, charts,
ceilings.json and the traces, the largest of which are deleted until all fit --trace-mb. All of it is written again
after each engine, so a run that is cut off leaves what it had; an engine that would begin after --begin-s is left out.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

from redline.analyse.profile.record import EngineProfile
from redline.cli.profile_files import write_profile
from redline.errors import RedlineError
from redline.report.profile.tables import tables
from redline.report.roofline import ceilings_lines
from redline.spec.engine import EngineSpec
from redline.spec.model import ModelSpec
from redline.tune.ceilings import node_ceilings
from redline.tune.profile.profile import Options, Profiled, profile
from redline.tune.profile.read import Reading

KINDS = ("redline", "vllm", "transformers")
EAGER_MOST = 8192
BEGAN = time.monotonic()
Found = tuple[EngineProfile, list[Reading]]


def main() -> int:
    asked = arguments()
    asked.out.mkdir(parents=True, exist_ok=True)
    measure_ceilings(asked)
    model = ModelSpec(id=asked.model, dtype="auto" if asked.quick else "bfloat16")
    plan = wanted(asked)
    done = profile(model, [], asked.out, plan[0][1])
    for spec, options in plan:
        if asked.begin_s and time.monotonic() - BEGAN > asked.begin_s:
            why = f"not begun: {asked.begin_s:g} s were over"
            done = together(done, (EngineProfile(label=spec.label, kind=spec.kind, skipped=why), []))
        else:
            done = together(done, run(model, spec, asked.out, options))
        write(done, asked)
    show(done)
    return 1 if any(one.failed for one in done.profile.engines) else 0


def wanted(asked: argparse.Namespace) -> list[tuple[EngineSpec, Options]]:
    """What matters most first."""
    contexts = asked.contexts
    wide = (("decode", asked.batch, min(contexts)),) if asked.batch > 1 else ()
    options = Options(contexts=contexts, more=wide, steps=asked.steps)
    short = tuple(one for one in contexts if min(contexts) < one <= EAGER_MOST) or contexts
    every = replace(options, more=(), contexts=tuple(one for one in contexts if one > min(contexts)) or contexts)
    found = [(spec, options) for spec in engines(asked)]
    for spec in variants(asked) if asked.variants else []:
        found.append((spec, replace(every, contexts=short) if spec.kind == "transformers" else every))
    return found


def write(done: Profiled, asked: argparse.Namespace) -> None:
    written = write_profile(done, asked.out)
    gone = keep_smallest(asked.out, int(asked.trace_mb * 1e6))
    say(f"wrote {', '.join(path.name for path in written)}" + (f"; deleted as too large: {gone}" if gone else ""))


def arguments() -> argparse.Namespace:
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--out", type=Path, required=True)
    top.add_argument("--shape", default="llama-3.1-8b")
    top.add_argument("--engines", default="redline,vllm,transformers")
    top.add_argument("--contexts", type=whole, default=(1024, 4096, 8192, 16384))
    top.add_argument("--batch", type=int, default=64, help="of one more decode point, at the shortest context")
    top.add_argument("--steps", type=int, default=12)
    top.add_argument("--vllm-path", type=Path)
    top.add_argument("--vllm-python", default="")
    top.add_argument("--variants", action="store_true")
    top.add_argument("--quick", action="store_true")
    top.add_argument("--trace-mb", type=float, default=12.0)
    top.add_argument("--ceiling-s", type=float, default=0.5)
    top.add_argument("--begin-s", type=float, default=0.0, help="seconds after which no engine is begun; 0: no limit")
    asked = top.parse_args()
    if unknown := set(asked.engines.split(",")) - set(KINDS):
        top.error(f"--engines: there is no {sorted(unknown)[0]!r}; there are {', '.join(KINDS)}")
    asked.model = "bundled:tiny" if asked.quick else f"shape:{asked.shape}"
    if asked.quick:
        asked.contexts, asked.batch, asked.steps = (128, 512), 4, 8
    return asked


def whole(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def measure_ceilings(asked: argparse.Namespace) -> None:
    try:
        found, _ = node_ceilings(seconds=asked.ceiling_s, progress=say)
    except RedlineError as error:
        say(f"no ceilings: {error}")
        return
    (asked.out / "ceilings.json").write_text(json.dumps(found.as_dict(), indent=1))
    print("\n".join(ceilings_lines(found)), flush=True)


def engines(asked: argparse.Namespace) -> list[EngineSpec]:
    return [vllm(asked, "vllm") if kind == "vllm" else EngineSpec(kind=kind) for kind in asked.engines.split(",")]


def vllm(asked: argparse.Namespace, name: str, **flags: bool | str) -> EngineSpec:
    env = {"PYTHONPATH": str(asked.vllm_path)} if asked.vllm_path else {}
    return EngineSpec(kind="vllm", name=name, python=asked.vllm_python, env=env, flags=dict(flags))


def variants(asked: argparse.Namespace) -> list[EngineSpec]:
    """FlashAttention off. vLLM's starts without compiling: its other kernels do not matter here."""
    kinds = asked.engines.split(",")
    made = []
    if "vllm" in kinds and not asked.quick:
        flags: dict[str, bool | str] = {"attention-backend": "TRITON_ATTN", "enforce-eager": True}
        made.append(vllm(asked, "vllm without FlashAttention", **flags))
    if "transformers" in kinds:
        off = {"attn-implementation": "eager"}
        made.append(EngineSpec(kind="transformers", name="transformers eager attention", flags=dict(off)))
    return made


def run(model: ModelSpec, spec: EngineSpec, out: Path, options: Options) -> Found:
    """What goes wrong with one engine is in the result: the others are worth their time."""
    try:
        done = profile(model, [spec], out, options, lambda engine, text: say(f"{engine}: {text}"))
    except RedlineError as error:
        say(f"{spec.label}: {error}")
        return EngineProfile(label=spec.label, kind=spec.kind, failed=str(error)), []
    return done.profile.engines[0], done.readings[spec.label]


def together(done: Profiled, found: Found) -> Profiled:
    engine, readings = found
    told = replace(done.profile, engines=(*done.profile.engines, engine))
    return Profiled(told, {**done.readings, engine.label: readings})


def keep_smallest(folder: Path, most: int) -> list[str]:
    """Deletes the largest traces until all together fit; their names."""
    traces = sorted(folder.rglob("*.trace.json*"), key=lambda path: path.stat().st_size)
    whole, gone = sum(path.stat().st_size for path in traces), []
    while traces and whole > most:
        largest = traces.pop()
        whole -= largest.stat().st_size
        gone.append(str(largest.relative_to(folder)))
        largest.unlink()
    return gone


def show(done: Profiled) -> None:
    for section in tables(done.profile, brief=True):
        print(f"\n{section.title}\n" + " | ".join(section.heads))
        print("\n".join(" | ".join(row) for row in section.rows))
        print("\n".join(section.notes), flush=True)


def say(text: str) -> None:
    print(f"[{time.monotonic() - BEGAN:6.1f} s] {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
