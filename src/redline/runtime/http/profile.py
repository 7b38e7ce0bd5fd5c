"""Traces of the engine at work: `/start_profile` and `/stop_profile`, by torch.profiler."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from redline.engines.hf_server.fault import ApiError


class Profile:
    """`folder` None: off. A trace opens in Perfetto or chrome://tracing."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._running: Any = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="redline-profile")  # begin and end must be one thread's

    async def start(self) -> None:
        if self._folder is None:
            raise ApiError(404, "profiling is off; start the server with --profile-dir FOLDER")
        if self._running is not None:
            raise ApiError(409, "a profile is running already")
        await asyncio.get_running_loop().run_in_executor(self._thread, self._start)

    async def stop(self) -> Path:
        """The file that was written."""
        if self._running is None:
            raise ApiError(409, "no profile is running")
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._stop)

    def _start(self) -> None:
        import torch.profiler as torch_profiler
        from torch._C._profiler import _ExperimentalConfig

        kinds: Any = getattr(torch_profiler, "supported_activities")()  # noqa: B009 -- it has no types
        # The engine's thread is not the one that begins the profile.
        every_thread = _ExperimentalConfig(profile_all_threads=True)
        running = torch_profiler.profile(activities=kinds, experimental_config=every_thread)
        running.start()
        self._running = running

    def _stop(self) -> Path:
        assert self._folder is not None
        running, self._running = self._running, None
        running.stop()
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"redline-{time.strftime('%Y%m%d-%H%M%S')}.json.gz"
        running.export_chrome_trace(str(path))
        return path
