"""Steps of the engine that name themselves in a trace; `hf_server.profile` answers /start_profile and /stop_profile."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from redline.engines.hf_server.profile import step_name, step_range

if TYPE_CHECKING:
    from redline.runtime.loop import EngineLoop
    from redline.runtime.step import Step


def annotate_steps(loop: EngineLoop, profiler: str) -> Callable[[], None]:
    """Every step is a range from now on; the result ends that."""

    def around(step: Step) -> AbstractContextManager[None]:
        return step_range(name_of(step), profiler)

    loop.around_step = around

    def undo() -> None:
        loop.around_step = None

    return undo


def name_of(step: Step) -> str:
    """A chunk that begins within its request's prompt is a prefill, also the last part of one."""
    prefills = [chunk for chunk in step.chunks if chunk.start < chunk.request.prompt_len]
    decodes = len(step.chunks) - len(prefills)
    prompt = sum(chunk.length for chunk in prefills)
    return step_name(len(prefills), prompt, decodes, step.tokens - prompt)
