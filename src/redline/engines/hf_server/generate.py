"""`model.generate()` for one request after another (plain), or for the requests that wait together (static)."""

from __future__ import annotations

import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any

from .job import Job, Load
from .load import Loaded
from .sampling import Row, choose

Event = tuple[Job, list[int], str, Exception | None]


class GenerateWorker:
    """A thread that takes up to `max_batch` waiting jobs, pads them to one length and generates until all have ended.

    Plain is a batch of one. A batch is closed when it starts: whoever comes later waits for its end.
    """

    def __init__(self, loaded: Loaded, *, max_batch: int, wait_ms: float, static_cache: bool) -> None:
        self._loaded = loaded
        self._max_batch = max_batch
        self._wait_s = wait_ms / 1000 if max_batch > 1 else 0.0
        self._static_cache = static_cache
        self._queue: deque[Job] = deque()
        self._changed = threading.Condition()
        self._running: list[Job] = []
        self._steps = 0
        self._failure = ""
        self._stopping = False
        self._post: Callable[[Callable[[], None]], None] = lambda call: call()
        self._thread = threading.Thread(target=self._work, name="generate", daemon=True)

    def start(self, post: Callable[[Callable[[], None]], None]) -> None:
        self._post = post
        self._thread.start()

    def submit(self, job: Job) -> None:
        with self._changed:
            self._queue.append(job)
            self._changed.notify()

    def cancel(self, job: Job) -> None:
        job.cancelled = True
        with self._changed:
            if job in self._queue:
                self._queue.remove(job)

    def load(self) -> Load:
        return Load(sum(not job.cancelled for job in self._running), len(self._queue), None)

    def failure(self) -> str:
        if not self._failure and not self._thread.is_alive() and not self._stopping:
            return "the generating thread has ended"
        return self._failure

    def steps(self) -> int:
        return self._steps

    def capacity(self) -> int:
        return 0

    def resolved(self) -> dict[str, Any]:
        config = self._loaded.model.config
        cache = "static" if self._static_cache else "dynamic"
        return {"max-batch-size": self._max_batch, "attn-implementation": config._attn_implementation, "cache": cache}

    def stop(self) -> None:
        self._stopping = True
        for job in [*self._queue, *self._running]:
            job.cancelled = True
        with self._changed:
            self._changed.notify()

    def _work(self) -> None:
        while batch := self._next_batch():
            try:
                self._generate(batch)
            except Exception as error:
                traceback.print_exc()
                self._fail(batch, error)
                if is_device_fault(error):
                    self._failure = f"{type(error).__name__}: {error}"
                    return

    def _next_batch(self) -> list[Job]:
        """Waits for a first job, then a little for others. Empty when the server stops."""
        with self._changed:
            self._running = []
            while not self._running and not self._stopping:
                self._changed.wait_for(lambda: bool(self._queue) or self._stopping)
                self._wait_for_company()
                count = min(len(self._queue), self._max_batch)
                self._running = [self._queue.popleft() for _ in range(count)]
            return [] if self._stopping else self._running

    def _wait_for_company(self) -> None:
        until = time.monotonic() + self._wait_s
        while 0 < len(self._queue) < self._max_batch and (left := until - time.monotonic()) > 0:
            self._changed.wait(left)

    def _fail(self, batch: list[Job], error: Exception) -> None:
        import torch

        self._deliver([(job, [], "", error) for job in batch])
        if torch.cuda.is_available() and isinstance(error, torch.cuda.OutOfMemoryError):
            torch.cuda.empty_cache()

    def _deliver(self, events: list[Event]) -> None:
        def call() -> None:
            for job, tokens, finish, error in events:
                if not job.cancelled:
                    job.receive(tokens, finish, error)

        if events:
            self._post(call)

    def _generate(self, batch: list[Job]) -> None:
        import torch

        model, width = self._loaded.model, max(len(job.prompt) for job in batch)
        pad = model.generation_config.pad_token_id
        ids = torch.tensor([[pad] * (width - len(job.prompt)) + job.prompt for job in batch], device=model.device)
        mask = torch.tensor(
            [[0] * (width - len(job.prompt)) + [1] * len(job.prompt) for job in batch], device=model.device
        )
        steps = Steps(batch, width, self, model.device)
        rows = [Row(job) for job in batch]
        needed = any(row.needed for row in rows)
        extra: dict[str, Any] = {"cache_implementation": "static"} if self._static_cache else {}
        most = self._loaded.max_model_len - width if self._static_cache else max(job.limit for job in batch)
        model.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=most,
            do_sample=False,
            streamer=steps,
            stopping_criteria=[steps.ended],
            logits_processor=[lambda _, scores: choose(scores, rows)] if needed else [],
            **extra,
        )
        early = RuntimeError("generate() returned before the answer was complete")
        self._deliver([(job, [], "", early) for job in steps.unfinished()])


class Steps:
    """Streamer and stopping criterion of one batch: which rows have ended, and what each step produced.

    Which of the two transformers calls first in a step depends on its version.
    """

    def __init__(self, batch: list[Job], width: int, worker: GenerateWorker, device: Any) -> None:
        import torch

        self._batch = batch
        self._width = width
        self._worker = worker
        self._limits = torch.tensor([job.limit for job in batch], device=device)
        stops = sorted({token for job in batch for token in job.stop_ids})
        self._stops = torch.tensor(stops, device=device) if stops else None
        self._heeds = torch.tensor([[token in job.stop_ids for token in stops] for job in batch], device=device)
        self._done = torch.zeros(len(batch), dtype=torch.bool, device=device)
        self._gone = [False] * len(batch)
        self._open = [True] * len(batch)
        self._count = 0
        self._prompt_seen = False

    def ended(self, input_ids: Any, _scores: Any, **_: Any) -> Any:
        """[rows] true where the row has ended; a row that has, stays so."""
        self._done |= self._limits <= input_ids.shape[1] - self._width
        if self._stops is not None:
            self._done |= ((input_ids[:, -1:] == self._stops) & self._heeds).any(-1)
        for number, job in enumerate(self._batch):
            if job.cancelled and not self._gone[number]:
                self._gone[number] = True
                self._done[number] = True
        return self._done.clone()

    def put(self, tokens: Any) -> None:
        if not self._prompt_seen:
            self._prompt_seen = True
            return
        self._count += 1
        self._worker._steps += 1
        events: list[Event] = []
        for number, token in enumerate(tokens.tolist()):
            job = self._batch[number]
            if self._open[number] and not job.cancelled:
                finish = job.ends(token, self._count)
                self._open[number] = not finish
                events.append((job, [token], finish, None))
        self._worker._deliver(events)

    def end(self) -> None:
        pass

    def unfinished(self) -> list[Job]:
        return [job for job, is_open in zip(self._batch, self._open, strict=True) if is_open]


def is_device_fault(error: Exception) -> bool:
    """True after errors that leave the device unusable; running out of memory does not."""
    import torch

    if isinstance(error, torch.cuda.OutOfMemoryError):
        return False
    fault = getattr(torch, "AcceleratorError", None)
    return (fault is not None and isinstance(error, fault)) or "CUDA error" in str(error)
