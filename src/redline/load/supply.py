"""Requests in the order in which they are sent, made ahead of time, and what is known about each."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Sequence

from redline.engines.endpoint import Endpoint
from redline.load.body import body, path_of, streams
from redline.load.clients import Client, client_of
from redline.load.crew import Crew, LoadWorker
from redline.load.frames import Outgoing
from redline.load.prompt import Prompt
from redline.load.prompts import PromptSource
from redline.load.reading import Asked
from redline.load.target import request_bytes, request_head, traceparent
from redline.load.trace import Row
from redline.load.traced import TracePrompts
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
        self,
        endpoint: Endpoint,
        workload: WorkloadSpec,
        prompts: PromptSource,
        *,
        seed: int,
        api_key: str | None,
        traced: bool = False,
    ) -> None:
        self.endpoint = endpoint
        self.workload = workload
        self.prompts = prompts
        self._seed = seed
        self._parts = workload.parts
        self._heads = {
            name: request_head(endpoint.base_url, path_of(part), api_key=api_key, stream=streams(part))
            for name, part in self._parts.items()
        }
        self._name = f"redline-{secrets.token_hex(4)}"
        self.trace_prefix = f"{secrets.randbits(64) | 1:016x}" if traced else ""
        """Of the trace ids of these requests; '' when they carry none."""
        self._mean_bytes = 1024.0
        self._canaries = prompts.canaries
        self._measured = 0
        self.asked: dict[int, Asked] = {}
        """By request number; whoever reads the answer takes it out."""
        self.traced: TracePrompts | None = None
        """Where measured prompts come from when they follow a trace."""
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
        prompts = self.prompts
        verify = prompts.verifies(under_load=under_load)
        requests = []
        source = prompts.prompts if self.traced is None or warmup else self.traced.prompts
        for prompt in source(self._seed, self.made, count, verify=verify):
            canary = -1 if warmup else self._canary_due()
            if canary >= 0:
                requests.append(self._canary(canary, warmup=False))
                continue
            if prompt.prefix >= 0:
                self.prefixes[prompt.request_class, prompt.prefix] += 1
            number = self.number()
            self.off += not prompt.exact
            self.unverified += not (verify and prompts.verified)
            client = Client() if warmup else client_of(self.workload, self._seed, str(number))
            requests.append(self.outgoing(number, prompt, client, warmup=warmup))
        return requests

    def follow(self, rows: Sequence[Row]) -> None:
        """From here on, prompts are those of a trace; with no rows they stay what they were."""
        self.traced = TracePrompts(self.prompts, rows, self.made) if rows else None

    def number(self) -> int:
        """The number of a request that somebody else makes."""
        self.made += 1
        return self.made - 1

    def outgoing(
        self, number: int, prompt: Prompt, client: Client, *, due_ns: int = 0, warmup: bool = False,
        session: int = -1, turn: int = -1,
    ) -> Outgoing:  # fmt: skip
        """The request, and from now on it is known what was asked."""
        part = prompt.request_class if prompt.request_class in self._parts else next(iter(self._parts))
        workload = self._parts[part]
        self.asked[number] = Asked(
            prompt.tokens,
            prompt.output_tokens,
            streams(workload),
            warmup,
            workload.keep_text,
            workload.api,
            len(prompt.inputs) or 1,
            client.request_class or prompt.request_class,
            session,
            turn,
        )
        data = body(self.endpoint, workload, prompt, seed=self._seed + number)
        request = self._bytes(self._heads[part], number, data)
        return Outgoing(number, request, due_ns, client.cancel_after_ns, client.read_bytes_per_s)

    def feed_canaries(self, worker: Crew | LoadWorker, numbers: Sequence[int]) -> None:
        """These canaries, to be asked alone."""
        worker.feed([self._canary(number, warmup=True) for number in numbers])

    def _canary_due(self) -> int:
        if self._canaries is None or self.traced is not None:
            return -1
        self._measured += 1
        return self._canaries.due(self._measured - 1)

    def _canary(self, canary: int, *, warmup: bool) -> Outgoing:
        assert self._canaries is not None
        workload, prompt, number = self._canaries.workload, self._canaries.prompts[canary], self.number()
        self.asked[number] = Asked(0, prompt.output_tokens, workload.stream, warmup, api=workload.api, canary=canary)
        data = body(self.endpoint, workload, prompt, logprobs=True)
        head = self._heads[self._canaries.part]
        return Outgoing(number, self._bytes(head, number, data))

    def _bytes(self, head: str, number: int, data: bytes) -> bytes:
        trace = traceparent(self.trace_prefix, number) if self.trace_prefix else ""
        return request_bytes(head, f"{self._name}-{number}", data, trace)

    def _bounded(self, count: int, clients: int) -> int:
        """As many as memory should hold, yet never fewer than keep every client busy."""
        return min(count, max(int(_BYTES_MAX / self._mean_bytes), 4 * clients))

    def first(self, planned: int, clients: int, rate: float = 0.0) -> int:
        """How many to make before the measurement; `planned` 0 when nobody knows how many it will take. `rate` is how
        many a second are likely, by the warm-up."""
        unknown = max(_FIRST_UNKNOWN + 4 * clients, int(_AHEAD_S * rate))
        return self._bounded(min(planned or unknown, _FIRST_MAX), clients)

    def missing(self, fed: int, sent: int, rate: float, planned: int, clients: int) -> int:
        """How many to add now, given requests per second so far; a batch at most, and none until half are used up."""
        ahead = self._bounded(max(_AHEAD_MIN, 4 * clients, int(_AHEAD_S * rate)), clients)
        if fed - sent > ahead // 2:
            return 0
        batch = min(_BATCH, ahead)  # fewer of heavy ones, such as prompts with pictures
        return min(batch, planned - fed) if planned else batch
