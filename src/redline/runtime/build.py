"""From a configuration to an engine: the runner for the device, the proposer, the tokenizer."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from redline.engines.hf_server.fault import bad
from redline.runtime.config import EngineConfig
from redline.runtime.engine import Engine, eos_ids, sampling_defaults
from redline.runtime.kernels import compiled
from redline.runtime.params import Constraint
from redline.runtime.request import Matcher
from redline.runtime.tokenizer import Tokenizer

if TYPE_CHECKING:
    from redline.runtime.grammar import Grammars
    from redline.runtime.loop import EngineLoop
    from redline.runtime.model import Model
    from redline.runtime.remote import RemoteLoop
    from redline.runtime.step import Proposer, Runner

Compiled = Callable[[], Matcher]
AnyLoop: TypeAlias = "EngineLoop | RemoteLoop"
Progress = Callable[[str], None]
"""Hears one line per phase of the start-up."""


def build(config: EngineConfig, progress: Progress) -> EngineLoop:
    """Slow: loads the model. The loop is not started. Raises RedlineError for what this box or model cannot do."""
    progress("importing torch")
    if config.device != "cuda" and config.kernels == "auto":
        compiled.begin()
    from redline.runtime.loop import EngineLoop

    runner = _runner(config, progress)
    return EngineLoop(runner, config=config, proposer=_proposer(config, runner))


RUNNERS = {"cpu": ("redline.runtime.cpu", "CpuRunner"), "cuda": ("redline.runtime.gpu", "GpuRunner")}
"""By name, so that neither loads what the other needs."""


def _runner(config: EngineConfig, progress: Progress) -> Runner:
    module, name = RUNNERS[_device(config)]
    runner: Runner = getattr(importlib.import_module(module), name)(config, progress)
    return runner


def _device(config: EngineConfig) -> str:
    import torch

    if config.device != "auto":
        return config.device
    return "cuda" if torch.cuda.is_available() else "cpu"


def _proposer(config: EngineConfig, runner: Runner) -> Proposer | None:
    if config.speculation is None:
        return None
    from redline.runtime.speculate import proposer_for

    device = _device(config)
    return proposer_for(config.speculation, runner.limits, partial(_draft, config, runner, device), device)


def _draft(config: EngineConfig, runner: Runner, device: str, folder: Path) -> Model:
    """The model that guesses: as the target is computed, quantized as its own checkpoint is."""
    import torch

    from redline.runtime.architecture import read_config
    from redline.runtime.cpu_limits import choose_dtypes
    from redline.runtime.kernels.torch import TorchKernels
    from redline.runtime.weights import load_model

    shape = read_config(folder)
    if device == "cpu":
        weights, activations = choose_dtypes(config.dtype, shape.dtype)[:2]
    else:
        weights = activations = getattr(torch, shape.dtype if config.dtype == "auto" else config.dtype)
    setup = getattr(runner, "setup", None)  # a GPU's
    compiled = setup and setup.compiling(shape, activations)
    model = load_model(
        shape,
        folder,
        dtype=weights,
        activations=activations,
        device=device,
        quantization="auto",
        seed=config.seed,
        kernels=getattr(runner, "kernels", None) or TorchKernels(),
        positions=runner.limits.max_model_len,
    )
    if compiled:
        compiled()
    return model


def make_engine(loop: AnyLoop, config: EngineConfig) -> Engine:
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


def grammars_of(loop: EngineLoop, config: EngineConfig) -> Callable[[Constraint], Compiled] | None:
    """`Engine.compile` alone, for whoever has no use for the rest: what it needs is loaded when it is first called."""
    if importlib.util.find_spec("llguidance") is None:
        return None
    made: list[Callable[[Constraint], Compiled]] = []

    def compile_one(constraint: Constraint) -> Compiled:
        if not made:
            compile = make_engine(loop, config).compile
            assert compile is not None
            made.append(compile)
        return made[0](constraint)

    return compile_one


def _grammars(loop: AnyLoop, folder: Path, ends: frozenset[int]) -> Callable[[Constraint], Compiled] | None:
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
