"""From a configuration to an engine: the runner for the device, the proposer, the tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from redline.runtime.config import EngineConfig
from redline.runtime.engine import Engine, eos_ids, sampling_defaults
from redline.runtime.tokenizer import Tokenizer

if TYPE_CHECKING:
    from redline.runtime.loop import EngineLoop
    from redline.runtime.step import Proposer, Runner

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
    return Engine(
        loop=loop,
        tokenizer=tokenizer,
        eos_ids=eos_ids(config.model, tokenizer),
        defaults=sampling_defaults(config.model),
    )
