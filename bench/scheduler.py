"""What planning a step and taking its tokens in costs, per sequence and step, with a runner that does nothing.

    python bench/scheduler.py --steps 2000

Steady decode: all sequences are in, each gets one token a step, none ends. `loop` is the whole engine thread with the
same work: planning, launching, collecting, telling, and the runner's own list of tokens.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from types import SimpleNamespace

from redline.runtime.config import EngineConfig
from redline.runtime.loop import EngineLoop
from redline.runtime.request import Output, Request, Sampling
from redline.runtime.scheduler import Scheduler
from redline.runtime.step import Limits, Sampled, Step


def ignore(output: Output) -> None:
    pass


def decode(seqs: int, steps: int, prompt: int = 128, run_ahead: int = 0, page_size: int = 16) -> dict[str, float]:
    """Microseconds per sequence and step by phase."""
    length = prompt + steps + 8
    limits = Limits(
        pages=seqs * (length // page_size + 2) + 2, page_size=page_size, max_seqs=seqs, max_batched_tokens=1 << 16,
        max_model_len=1 << 20, vocab_size=1000,
    )  # fmt: skip
    scheduler = Scheduler(limits, run_ahead=run_ahead)
    for i in range(seqs):
        sampling = Sampling(max_tokens=1 << 19, stop_ids=frozenset({2}))
        scheduler.add(Request(id=str(i), tokens=[i % 900 + 3] * prompt, sampling=sampling, sink=ignore))
    spent = dict.fromkeys(("schedule", "launched", "update", "tell"), 0)
    in_flight = []
    clock = time.thread_time_ns  # a busy box does not count
    for number in range(steps + 4):
        if number == 4:  # the prompts are through
            spent = dict.fromkeys(spent, 0)
        a = clock()
        step = scheduler.schedule()
        b = clock()
        assert step is not None
        scheduler.launched(step)
        c = clock()
        spent["schedule"] += b - a
        spent["launched"] += c - b
        in_flight.append((step, [Sampled(chunk.request, [7]) for chunk in step.chunks]))
        if len(in_flight) <= run_ahead:
            continue
        step, sampled = in_flight.pop(0)
        a = clock()
        scheduler.update(sampled, step)
        b = clock()
        for request, output in scheduler.take_events():
            request.sink(output)
        c = clock()
        spent["update"] += b - a
        spent["tell"] += c - b
    own = clock_ns() * steps
    return {name: max(nanoseconds - own, 0) / 1e3 / steps / seqs for name, nanoseconds in spent.items()}


class Nothing:
    """A runner that computes nothing, at once."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits

    def launch(self, step: Step) -> SimpleNamespace:
        return SimpleNamespace(step=step)

    def collect(self, launched: SimpleNamespace) -> list[Sampled]:
        return [Sampled(chunk.request, [7]) for chunk in launched.step.chunks if chunk.samples]

    def release(self, request: Request) -> None:
        pass

    def resolved(self) -> dict[str, str]:
        return {}

    def close(self) -> None:
        pass


def loop(seqs: int, steps: int, run_ahead: int) -> float:
    """Microseconds of CPU per sequence and step of an engine's thread, prompts and ends included."""
    limits = Limits(
        pages=seqs * (steps // 16 + 4) + 2, page_size=16, max_seqs=seqs, max_batched_tokens=1 << 16,
        max_model_len=1 << 20, vocab_size=1000,
    )  # fmt: skip
    engine = EngineLoop(Nothing(limits), config=EngineConfig(model=Path("none"), run_ahead=run_ahead))
    for i in range(seqs):
        engine.submit(Request(id=str(i), tokens=[i % 900 + 3] * 16, sampling=Sampling(max_tokens=steps), sink=ignore))
    start = time.process_time_ns()
    engine.start()
    engine.drain(600)
    spent = time.process_time_ns() - start
    engine.stop()
    return spent / 1e3 / steps / seqs


def clock_ns(reads: int = 10_000) -> float:
    """What one reading of the clock costs: a good part of a step of one sequence."""
    start = time.thread_time_ns()
    for _ in range(reads):
        time.thread_time_ns()
    return (time.thread_time_ns() - start) / reads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print("µs per sequence and step")
    phases = ("schedule", "launched", "update", "tell")
    print(f"{'sequences':>9} {'ahead':>5} " + " ".join(f"{name:>9}" for name in (*phases, "all", "loop")))
    for seqs in (1, 8, 64, 256):
        for ahead in (0, 1):
            runs = [decode(seqs, options.steps, run_ahead=ahead) for _ in range(options.repeats)]
            best = min(runs, key=lambda run: sum(run.values()))
            parts = " ".join(f"{best[name]:9.2f}" for name in phases)
            whole = min(loop(seqs, options.steps, ahead) for _ in range(options.repeats))
            print(f"{seqs:9} {ahead:5} {parts} {sum(best.values()):9.2f} {whole:9.2f}")


if __name__ == "__main__":
    main()
