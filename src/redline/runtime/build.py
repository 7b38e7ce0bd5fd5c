"""From a configuration to an engine: the runner for the device, the proposer, the tokenizer."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from redline.engines.hf_server.fault import bad
from redline.runtime.config import EngineConfig
from redline.runtime.engine import Engine, eos_ids, sampling_defaults
from redline.runtime.params import Constraint
from redline.runtime.request import Matcher
from redline.runtime.tokenizer import Tokenizer

if TYPE_CHECKING:
    from redline.runtime.grammar import Grammars
    from redline.runtime.loop import EngineLoop
    from redline.runtime.step import Proposer, Runner

Compiled = Callable[[], Matcher]
Progress = Callable[[str], None]
"""Hears one line per phase of the start-up."""


def build(config: EngineConfig, progress: Progress) -> EngineLoop:
    """Slow: loads the model. The loop is not started. Raises RedlineError for what this box or model cannot do."""
    progress("importing torch")
    from redline.runtime.loop import EngineLoop

    runner = _runner(config, progress)
    return EngineLoop(runner, config=config, proposer=_proposer(config, runner))


def _runner(config: EngineConfig, progress: Progress) -> Runner:
    import torch

    wanted = config.device
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cpu":
        from redline.runtime.cpu import CpuRunner

        return CpuRunner(config, progress)
    from redline.runtime.gpu import GpuRunner

    return GpuRunner(config, progress)


def _proposer(config: EngineConfig, runner: Runner) -> Proposer | None:
    if config.speculation is None:
        return None
    from redline.runtime import speculate

    if config.speculation.method == "ngram":
        return speculate.NgramProposer(config.speculation)
    return speculate.DraftProposer(config, runner)


def make_engine(loop: EngineLoop, config: EngineConfig) -> Engine:
    folder = config.tokenizer or config.model
    tokenizer = Tokenizer(folder)
    ends = eos_ids(config.model, tokenizer)
    return Engine(
        loop=loop,
        tokenizer=tokenizer,
        eos_ids=ends,
        defaults=sampling_defaults(config.model),
        compile=_grammars(loop, folder, ends),
    )


def _grammars(loop: EngineLoop, folder: Path, ends: frozenset[int]) -> Callable[[Constraint], Compiled] | None:
    """The compiler of constraints, made when the first one comes; None where llguidance is not installed."""
    if importlib.util.find_spec("llguidance") is None:
        return None
    made: list[Grammars] = []

    def compile_one(constraint: Constraint) -> Compiled:
        from redline.runtime.grammar import GrammarError, Grammars

        try:
            if not made:
                text = (folder / "tokenizer.json").read_text("utf-8")
                made.append(Grammars(text, loop.runner.limits.vocab_size, ends))
            return made[0].compile(constraint)
        except GrammarError as error:
            raise bad(f"{constraint.param}: {error}", constraint.param) from error

    return compile_one
