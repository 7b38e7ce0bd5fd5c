"""Traces of a server at work: `/start_profile` and `/stop_profile`, by torch.profiler or for Nsight Systems.

Each step is annotated as vLLM's are, `execute_context_N(TOKENS)_generation_M(TOKENS)`, so that one reader splits
prefill from decode for all engines.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from .fault import ApiError

Undo = Callable[[], None]
PROFILERS = ("torch", "cuda")


class Tracer:
    """Records the process that it is in, one trace after the other; begin and end must be one thread's. `annotate`
    makes steps name themselves and returns what ends that. Profiler `cuda` marks the range for one around the process
    (nsys --capture-range)."""

    def __init__(self, name: str, annotate: Callable[[str], Undo]) -> None:
        self._name = name
        self._annotate = annotate
        self._running: Any = None
        self._undo: Undo = lambda: None
        self._count = 0

    def start(self, profiler: str) -> None:
        running = _CudaRange() if profiler == "cuda" else _torch_profile()
        self._undo = self._annotate(profiler)
        try:
            running.start()
        except BaseException:
            self._undo()
            raise
        self._running = running

    def stop(self, folder: Path) -> Path | None:
        """The file that was written; None where an outer profiler writes it."""
        running, self._running = self._running, None
        running.stop()
        self._undo()
        if isinstance(running, _CudaRange):
            return None
        folder.mkdir(parents=True, exist_ok=True)
        self._count += 1
        path = folder / f"{self._name}-{time.strftime('%Y%m%d-%H%M%S')}-{self._count}.json.gz"
        running.export_chrome_trace(str(path))
        return path


class Elsewhere(Protocol):
    """A process that computes and has a `Tracer` of its own."""

    async def profile(self, profiler: str, folder: Path | None) -> Path | None:
        """Begins a trace; with a folder, ends it."""


class Profile:
    """`folder` None: off. A trace opens in Perfetto or chrome://tracing. What `elsewhere` gives is traced instead of
    this process."""

    def __init__(
        self,
        folder: Path | None,
        tracer: Tracer,
        profiler: str = "torch",
        elsewhere: Callable[[], Elsewhere | None] = lambda: None,
    ) -> None:
        self._folder = folder
        self._tracer = tracer
        self._profiler = profiler
        self._elsewhere = elsewhere
        self._running = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="redline-profile")

    async def start(self) -> None:
        if self._folder is None:
            raise ApiError(404, "profiling is off; start the server with --profile-dir FOLDER")
        if self._running:
            raise ApiError(409, "a profile is running already")
        self._running = True
        try:
            await self._do(None)
        except BaseException:
            self._running = False
            raise

    async def stop(self) -> str:
        """The file that was written; '' where an outer profiler writes it."""
        if not self._running or self._folder is None:
            raise ApiError(409, "no profile is running")
        self._running = False
        return str(await self._do(self._folder) or "")

    async def _do(self, folder: Path | None) -> Path | None:
        """Begins, or with a folder ends."""
        there = self._elsewhere()
        if there is not None:
            return await there.profile(self._profiler, folder)
        here = asyncio.get_running_loop()
        if folder is None:
            return await here.run_in_executor(self._thread, self._tracer.start, self._profiler)
        return await here.run_in_executor(self._thread, self._tracer.stop, folder)


def _torch_profile() -> Any:
    import torch.profiler as torch_profiler
    from torch._C._profiler import _ExperimentalConfig

    kinds: Any = getattr(torch_profiler, "supported_activities")()  # noqa: B009 -- it has no types
    # The engine's thread is not the one that begins the profile.
    every_thread = _ExperimentalConfig(profile_all_threads=True)
    return torch_profiler.profile(activities=kinds, experimental_config=every_thread)


class _CudaRange:
    """cudaProfilerStart and Stop."""

    def start(self) -> None:
        import torch

        if not torch.cuda.is_available():
            raise ApiError(400, "--profiler cuda needs a GPU; without one use --profiler torch")
        runtime: Any = getattr(torch.cuda, "cudart")()  # noqa: B009 -- it has no types
        runtime.cudaProfilerStart()

    def stop(self) -> None:
        import torch

        torch.cuda.synchronize()
        runtime: Any = getattr(torch.cuda, "cudart")()  # noqa: B009 -- it has no types
        runtime.cudaProfilerStop()


def step_name(prefills: int, prompt_tokens: int, decodes: int, generated: int) -> str:
    """As vLLM names a step in its traces."""
    return f"execute_context_{prefills}({prompt_tokens})_generation_{decodes}({generated})"


@contextlib.contextmanager
def step_range(name: str, profiler: str) -> Iterator[None]:
    """A range in the trace: NVTX for an outer profiler."""
    import torch

    made = torch.cuda.nvtx.range(name) if profiler == "cuda" else torch.profiler.record_function(name)
    with made:
        yield


def annotate_forward(model: Any, profiler: str) -> Undo:
    """Every forward pass of a transformers model becomes a range, a prefill where a row has more than one token."""
    open_ranges: list[Any] = []

    def before(_: Any, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
        ids = named.get("input_ids", positional[0] if positional else named.get("inputs_embeds"))
        rows, width = (int(ids.shape[0]), int(ids.shape[1])) if ids is not None else (0, 0)
        lengths = named.get("cu_seq_lens_q")  # continuous batching packs all requests into one row
        name = _packed(lengths) if lengths is not None else None
        if name is None:
            name = step_name(rows, rows * width, 0, 0) if width > 1 else step_name(0, 0, rows, rows)
        opened = step_range(name, profiler)
        opened.__enter__()
        open_ranges.append(opened)

    def after(*_: Any) -> None:
        if open_ranges:
            open_ranges.pop().__exit__(None, None, None)

    handles = [
        model.register_forward_pre_hook(before, with_kwargs=True),
        model.register_forward_hook(after, always_call=True),
    ]

    def undo() -> None:
        for handle in handles:
            handle.remove()

    return undo


def _packed(cumulative: Any) -> str | None:
    """From the borders of the requests in a packed row. Reading them costs a synchronisation, while profiling only."""
    lengths = [int(one) for one in (cumulative[1:] - cumulative[:-1]).tolist() if one > 0]
    prefills = [one for one in lengths if one > 1]
    decodes = len(lengths) - len(prefills)
    return step_name(len(prefills), sum(prefills), decodes, decodes) if lengths else None
