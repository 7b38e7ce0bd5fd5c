"""Traces of the engine at work: `/start_profile` and `/stop_profile`, by torch.profiler."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redline.engines.hf_server.fault import ApiError

if TYPE_CHECKING:
    from redline.runtime.remote import RemoteLoop


class Tracer:
    """Begin and end must be one thread's."""

    def __init__(self) -> None:
        self._running: Any = None

    def start(self) -> None:
        import torch.profiler as torch_profiler
        from torch._C._profiler import _ExperimentalConfig

        kinds: Any = getattr(torch_profiler, "supported_activities")()  # noqa: B009 -- it has no types
        # The engine's thread is not the one that begins the profile.
        every_thread = _ExperimentalConfig(profile_all_threads=True)
        running = torch_profiler.profile(activities=kinds, experimental_config=every_thread)
        running.start()
        self._running = running

    def stop(self, folder: Path) -> Path:
        """The file that was written."""
        running, self._running = self._running, None
        running.stop()
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"redline-{time.strftime('%Y%m%d-%H%M%S')}.json.gz"
        running.export_chrome_trace(str(path))
        return path


class Profile:
    """`folder` None: off. A trace opens in Perfetto or chrome://tracing. `elsewhere` gives the engine's loop where that
    has a process of its own, which then is traced."""

    def __init__(self, folder: Path | None, elsewhere: Callable[[], RemoteLoop | None] = lambda: None) -> None:
        self._folder, self._elsewhere = folder, elsewhere
        self._running = False
        self._tracer = Tracer()
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

    async def stop(self) -> Path:
        """The file that was written."""
        if not self._running or self._folder is None:
            raise ApiError(409, "no profile is running")
        self._running = False
        path = await self._do(self._folder)
        assert path is not None
        return path

    async def _do(self, folder: Path | None) -> Path | None:
        """Begins, or with a folder ends."""
        remote = self._elsewhere()
        if remote is not None:
            return await remote.profile(folder)
        here = asyncio.get_running_loop()
        if folder is None:
            return await here.run_in_executor(self._thread, self._tracer.start)
        return await here.run_in_executor(self._thread, self._tracer.stop, folder)
