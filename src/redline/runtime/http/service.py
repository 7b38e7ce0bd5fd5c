"""The engine as the routes see it: admission, submitting, counting, draining, and whether it is well."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from redline.clock import now_ns
from redline.engines.hf_server.fault import ApiError
from redline.engines.hf_server.routes import LONG_TEXT
from redline.runtime.answering import Answering, Emit, last_line
from redline.runtime.engine import Engine
from redline.runtime.http.ask import Wish
from redline.runtime.http.metrics import Metrics, Row
from redline.runtime.http.pace import Pace
from redline.runtime.http.spans import Ended, SpanSender
from redline.runtime.http.stream import PacedExchange, PromptShape
from redline.runtime.http.watchdog import Watchdog
from redline.runtime.inbox import Inbox
from redline.runtime.remote import RemoteLoop
from redline.runtime.request import Matcher, Output, Sampling

TICK_S = 0.2
RATE_S = 10.0
"""The time over which ended requests are counted, to say when to come back."""


@dataclass(frozen=True)
class Settings:
    name: str
    max_waiting: int = 0
    stall_s: float = 5.0
    flush_s: float = 0.015
    alone: int = 8
    own_defaults: bool = True
    """The checkpoint's sampling settings stand in for those that a request leaves out."""


@dataclass(frozen=True)
class Planned:
    """One choice, ready to be submitted."""

    prompt: list[int]
    sampling: Sampling
    matcher: Matcher | None


class Service:
    """Ready once `engine` is set. Everything runs on the event loop."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.name = settings.name
        self.phase = "starting"
        self.engine: Engine | None = None
        self.draining = False
        self.live: dict[Live, None] = {}
        self.metrics = Metrics(settings.name)
        self.pace = Pace(settings.flush_s, settings.alone)
        self.watchdog = Watchdog(settings.stall_s, TICK_S)
        self._inbox = Inbox(asyncio.get_running_loop(), self.pace.settle, batched=True)
        self.spans: SpanSender | None = None
        self._ends: deque[int] = deque(maxlen=1000)

    def use(self, engine: Engine) -> None:
        """From now on it answers. Its thread runs already, or will."""
        engine.loop.on_step_end = self._inbox.wake
        self.engine = engine

    def elsewhere(self) -> RemoteLoop | None:
        """The engine's loop where that has a process of its own."""
        loop = None if self.engine is None else self.engine.loop
        return loop if isinstance(loop, RemoteLoop) else None

    def failure(self) -> str:
        return "" if self.engine is None else last_line(self.engine.loop.failure)

    def trouble(self) -> str:
        """Why it cannot answer now; '' when it can."""
        if self.engine is None or self.phase != "ready":
            return f"not ready: {self.phase}"
        if failure := self.failure():
            return failure
        return "draining: it was asked to stop" if self.draining else self.watchdog.trouble()

    def look(self) -> None:
        """To be called every `TICK_S`. Whoever has left is work, too, until the engine has let go of it."""
        if self.engine is not None:
            stats = self.engine.loop.stats()
            busy = bool(self.live) or stats.running > 0 or stats.waiting > 0
            self.watchdog.look(self.engine.loop.progress, busy)

    @property
    def ready(self) -> Engine:
        """Raises 503. A hung engine still takes requests: it may come back, and the balancer was told."""
        if self.engine is None or self.phase != "ready" or self.draining or self.failure():
            raise ApiError(503, f"the model cannot answer: {self.trouble()}", retry_after_s=1)
        return self.engine

    @property
    def defaults(self) -> dict[str, float]:
        """What the checkpoint says of sampling."""
        return self.ready.defaults if self.settings.own_defaults else {}

    def check_model(self, name: str) -> None:
        if name and name != self.name:
            raise ApiError(404, f"model {name!r} is not served here; {self.name!r} is", param="model")

    def admit(self, count: int) -> None:
        """429 when too many wait already."""
        most = self.settings.max_waiting
        if not most:
            return
        engine = self.ready
        waiting = sum(1 for one in self.live if one.request is not None and not one.request.scheduled_ns)
        # Who has just come waits for the end of a step, not for a place; unless the engine has nothing to give.
        free = 0 if engine.loop.stats().waiting else max(0, engine.limits.max_seqs - (len(self.live) - waiting))
        if waiting + count - free <= most:
            return
        self.metrics.refused += 1
        raise ApiError(
            429,
            f"{count} more would wait beside {waiting}; --max-waiting is {most}",
            code="rate_limit_exceeded",
            retry_after_s=self._retry_after(waiting),
        )

    def _retry_after(self, waiting: int) -> int:
        """Seconds, from 1 to 60, until those that wait have had their turn at the present rate."""
        since = now_ns() - int(RATE_S * 1e9)
        per_second = sum(1 for at in self._ends if at > since) / RATE_S
        return int(min(60, max(1, waiting / per_second if per_second else 1)))

    def render(self, wish: Wish) -> str:
        assert wish.ask.messages is not None
        return self.ready.tokenizer.template.render(wish.ask.messages, wish.tools, wish.ask.template_args)

    async def plan(self, wish: Wish) -> list[list[Planned]]:
        """Choices of each prompt. What may take long is done beside the loop."""
        engine = self.ready
        if wish.ask.size > LONG_TEXT or wish.params.constraint is not None:
            return await asyncio.to_thread(self._plan, engine, wish)
        return self._plan(engine, wish)

    def _plan(self, engine: Engine, wish: Wish) -> list[list[Planned]]:
        params = wish.params
        params.check(engine.limits.vocab_size)
        texts = wish.ask.prompts if wish.ask.messages is None else (self.render(wish),)
        prompts = [engine.encode(text, wish.ask.add_special_tokens) for text in texts]
        matchers = engine.matchers(params)
        make: Callable[[], Matcher | None] = matchers or (lambda: None)
        return [
            [Planned(prompt, engine.sampling(params, len(prompt), choice), make()) for choice in range(params.n)]
            for prompt in prompts
        ]

    def open(self, wish: Wish, plans: Sequence[Sequence[Planned]]) -> PacedExchange:
        """Submits all of it."""
        engine, ask = self.ready, wish.ask
        self.admit(sum(map(len, plans)))
        shape = PromptShape(
            engine.tokenizer,
            chat=ask.chat,
            model=self.name,
            prompt_tokens=sum(len(choices[0].prompt) for choices in plans),
            decode=engine.tokenizer.decode,
            usage=ask.usage,
        )
        every = [one for choices in plans for one in choices]
        exchange = PacedExchange(
            self.pace,
            shape,
            stream=ask.stream,
            include_usage=ask.include_usage,
            per_prompt=wish.params.n,
            echoes=[engine.tokenizer.decode(one.prompt) for one in every] if wish.echo else (),
        )
        try:
            exchange.begin([partial(self._submit, index, one, wish) for index, one in enumerate(every)])
        except ApiError:
            exchange.leave()
            raise
        return exchange

    def _submit(self, index: int, planned: Planned, wish: Wish, emit: Emit) -> Live:
        engine = self.ready
        live = Live(self, index, planned, wish, emit)
        sink, matcher = self._inbox.sink(live.take), planned.matcher
        engine.submit(planned.prompt, planned.sampling, live, sink, matcher=matcher, priority=wish.priority)
        self.live[live] = None
        return live

    def ended(self, live: Live, reason: str) -> None:
        self.live.pop(live, None)
        self.metrics.ended[reason] += 1
        request, now = live.request, now_ns()
        if self.spans is not None and request is not None:
            times_ns = (request.arrived_ns, request.scheduled_ns, request.first_token_ns, now)
            sizes = (request.prompt_len, live.tokens, request.preempted)
            self.spans.add(Ended(live.trace, request.id, reason, *times_ns, *sizes))
        if request is None or reason not in ("stop", "length"):
            return
        self._ends.append(now)
        times = self.metrics.times
        times["e2e"].observe((now - request.arrived_ns) / 1e9)
        if request.scheduled_ns and request.first_token_ns:
            times["queue"].observe((request.scheduled_ns - request.arrived_ns) / 1e9)
            times["prefill"].observe((request.first_token_ns - request.scheduled_ns) / 1e9)
            times["decode"].observe(max(0, now - request.first_token_ns) / 1e9)
        self.metrics.sizes["prompt"].observe(request.prompt_len)
        self.metrics.sizes["answer"].observe(live.tokens)

    def fail_all(self, error: ApiError) -> None:
        """Every open request ends with it."""
        for live in list(self.live):
            live.fail(error)
        self.pace.settle()

    def page(self) -> str:
        rows: list[Row] = [
            ("redline:open_streams", "gauge", "Streams that are being written", self.pace.open, {}),
            ("redline:stream_writes_total", "counter", "Writes to streams", self.pace.writes, {}),
            ("redline:flush_interval_seconds", "gauge", "Between writes to one stream", self.pace.interval_s, {}),
            ("redline:longest_step_seconds", "gauge", "Longest wait for progress", self.watchdog.longest_s, {}),
        ]
        return self.metrics.render(None if self.engine is None else self.engine.loop.stats(), rows)


class Live(Answering):
    """One answer, counted."""

    __slots__ = ("_last_ns", "_raw_emit", "_service", "trace")

    def __init__(self, service: Service, index: int, planned: Planned, wish: Wish, emit: Emit) -> None:
        per_token = wish.ask.continuous_usage
        super().__init__(service.ready, index, planned.prompt, wish.params, emit, per_token=per_token)
        self._service = service
        self._raw_emit = emit
        self._last_ns = 0
        self.trace = wish.trace

    def take(self, output: Output) -> None:
        closed = self.closed
        if closed:
            return
        now, times = now_ns(), self._service.metrics.times
        if output.tokens:
            if self._last_ns:
                times["itl"].observe((now - self._last_ns) / 1e9)
            elif self.request is not None:
                times["ttft"].observe((now - self.request.arrived_ns) / 1e9)
            self._last_ns = now
        super().take(output)
        if self.closed:
            self._service.ended(self, self.finish or (output.finish or "error"))

    def leave(self) -> None:
        if not self.closed:
            super().leave()
            self._service.ended(self, "abort")

    def fail(self, error: ApiError) -> None:
        if not self.closed:
            super().leave()
            self._service.ended(self, "error")
            self._raw_emit(error)
