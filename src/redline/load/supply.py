"""Requests in the order in which they are sent, made ahead of time, and what is known about each."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Sequence

from redline.engines.endpoint import Endpoint
from redline.load.body import body, path_of, streams
from redline.load.crew import Crew, LoadWorker
from redline.load.frames import Outgoing
from redline.load.prompts import PromptSource
from redline.load.reading import Asked
from redline.load.target import request_bytes, request_head
from redline.spec.workload import WorkloadSpec

_BATCH = 256
_FIRST_MAX = 4096
_FIRST_UNKNOWN = 512
_AHEAD_MIN = 512
_AHEAD_S = 2.0
_BYTES_MAX = 64 << 20


class Supply:
    """Feeds a worker for one load point."""

    def __init__(
        self, endpoint: Endpoint, workload: WorkloadSpec, prompts: PromptSource, *, seed: int, api_key: str | None
    ) -> None:
        self._endpoint = endpoint
        self._prompts = prompts
        self._seed = seed
        self._parts = workload.parts
        self._heads = {
            name: request_head(endpoint.base_url, path_of(part), api_key=api_key, stream=streams(part))
            for name, part in self._parts.items()
        }
        self._name = f"redline-{secrets.token_hex(4)}"
        self._mean_bytes = 1024.0
        self._canaries = prompts.canaries
        self._measured = 0
        self.asked: dict[int, Asked] = {}
        """By request number; whoever reads the answer takes it out."""
        self.prefixes: Counter[tuple[str, int]] = Counter()
        """How often each shared prefix of each class was used."""
        self.made = 0
        self.off = 0
        self.unverified = 0

    def feed(self, worker: Crew | LoadWorker, count: int, *, warmup: bool = False, under_load: bool = False) -> None:
        """Make the next `count` requests and hand them over.

        `under_load`: the server is being measured, so it is not asked about tokens.
        """
        for start in range(0, count, _BATCH):
            size = min(_BATCH, count - start)
            requests = self._make(size, warmup=warmup, under_load=under_load)
            self._mean_bytes = sum(len(item.request) for item in requests) / size
            worker.feed(requests)

    def _make(self, count: int, *, warmup: bool, under_load: bool) -> list[Outgoing]:
        prompts = self._prompts
        verify = not (under_load and prompts.loads_server)
        requests = []
        for prompt in prompts.prompts(self._seed, self.made, count, verify=verify):
            canary = -1 if warmup else self._canary_due()
            if canary >= 0:
                requests.append(self._canary(canary, warmup=False))
                continue
            if prompt.prefix >= 0:
                self.prefixes[prompt.request_class, prompt.prefix] += 1
            number, workload = self.made, self._parts[prompt.request_class]
            self.made += 1
            self.off += not prompt.exact
            self.unverified += not (verify and prompts.verified)
            self.asked[number] = Asked(
                prompt.tokens,
                prompt.output_tokens,
                streams(workload),
                warmup,
                workload.keep_text,
                workload.api,
                len(prompt.inputs) or 1,
                prompt.request_class,
            )
            data = body(self._endpoint, workload, prompt, seed=self._seed + number)
            requests.append(
                Outgoing(number, request_bytes(self._heads[prompt.request_class], f"{self._name}-{number}", data))
            )
        return requests

    def feed_canaries(self, worker: Crew | LoadWorker, numbers: Sequence[int]) -> None:
        """These canaries, to be asked alone."""
        worker.feed([self._canary(number, warmup=True) for number in numbers])

    def _canary_due(self) -> int:
        self._measured += 1
        return self._canaries.due(self._measured - 1) if self._canaries is not None else -1

    def _canary(self, canary: int, *, warmup: bool) -> Outgoing:
        assert self._canaries is not None
        workload, prompt, number = self._canaries.workload, self._canaries.prompts[canary], self.made
        self.made += 1
        self.asked[number] = Asked(0, prompt.output_tokens, workload.stream, warmup, api=workload.api, canary=canary)
        data = body(self._endpoint, workload, prompt, logprobs=True)
        head = self._heads[self._canaries.part]
        return Outgoing(number, request_bytes(head, f"{self._name}-{number}", data))

    def _bounded(self, count: int, clients: int) -> int:
        """As many as memory should hold, yet never fewer than keep every client busy."""
        return min(count, max(int(_BYTES_MAX / self._mean_bytes), 4 * clients))

    def first(self, planned: int, clients: int) -> int:
        """How many to make before the measurement; `planned` 0 when nobody knows how many it will take."""
        return self._bounded(min(planned or _FIRST_UNKNOWN + 4 * clients, _FIRST_MAX), clients)

    def missing(self, fed: int, sent: int, rate: float, planned: int, clients: int) -> int:
        """How many to add now, given requests per second so far; a batch at most, and none until half are used up."""
        ahead = self._bounded(max(_AHEAD_MIN, 4 * clients, int(_AHEAD_S * rate)), clients)
        if fed - sent > ahead // 2:
            return 0
        return min(_BATCH, planned - fed) if planned else _BATCH
