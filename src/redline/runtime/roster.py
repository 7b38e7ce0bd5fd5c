"""Who is in: requests that wait, run, or have ended and still have steps in flight, and what they hold.

A waiting request comes in when pages for all its tokens are free and one more for every running request: otherwise it
would be preempted, or preempt others, at once. It gets those pages right away, so only decodes ever lack one. Then the
worst request is preempted: its pages are let go, hashed, and when it comes back it computes what the cache has lost.
When most of what it has to compute is being computed for another request right now, it waits for that: so many
requests with one long beginning that come together compute it once.

A row and pages are given back only after the last step that touches them was collected.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from heapq import heappop, heappush

from redline.clock import now_ns
from redline.errors import UsageError
from redline.runtime.pages import PagePool
from redline.runtime.request import Finish, Request, Status
from redline.runtime.stats import Counters
from redline.runtime.step import Limits
from redline.runtime.waiting import WaitingQueue

NEVER = 1 << 62
"""As a count of shared pages: none of this request's pages will be shared any more."""


class RequestRefused(UsageError):
    """The request can never run on this engine: too long for the context or the KV memory, or no valid tokens."""


def place(request: Request) -> tuple[int, int]:
    return request.books.order


class Roster:
    """Owned by the engine's thread, but for `check`. `released` is called when a request gives its row and pages up
    (finished, aborted, preempted), while it still has them."""

    def __init__(self, limits: Limits, counters: Counters, caching: bool, released: Callable[[Request], None]) -> None:
        self.limits = limits
        self.counters = counters
        # A step must have a token for everyone who decodes.
        self.max_seqs = min(limits.max_seqs, limits.max_batched_tokens)
        self.pool = PagePool(limits.pages, limits.page_size, prefix_caching=caching)
        self.decoding: list[Request] = []
        self.prefilling: list[Request] = []
        self.waiting = WaitingQueue()
        self.draining: set[Request] = set()
        self.by_id: dict[str, Request] = {}
        self.held: Request | None = None
        """Is to be preempted and sits out until its steps in flight are collected."""
        self._released = released
        self._rows = list(range(limits.max_seqs))
        self._arrivals = 0
        self._blocked: tuple[Request, int, int] | None = None
        self._coming: dict[bytes, Request] = {}
        """Pages of prompts that are not computed yet, by name, and who computes them."""

    @property
    def running(self) -> int:
        return len(self.decoding) + len(self.prefilling)

    def check(self, request: Request) -> None:
        """As the function of that name. From any thread."""
        check(request, self.limits)

    def add(self, request: Request, checked: bool = False) -> None:
        """Queues it. Raises `RequestRefused`. `checked` says that `check` was asked already."""
        if not checked:
            self.check(request)
        if request.id in self.by_id:
            raise RequestRefused(f"a request with the id {request.id!r} is here already")
        books = request.books
        books.order = (request.priority, self._arrivals)
        books.limit = min(request.prompt_len + max(request.sampling.max_tokens, 1), self.limits.max_model_len)
        books.host_bound = request.waits_for_host
        self._arrivals += 1
        self.by_id[request.id] = request
        self.waiting.push(request)

    def admit(self) -> Request | None:
        """Lets the first waiting request in, if there is a row and room for it."""
        request = self.waiting.first()
        running = self.running
        if request is None or running >= self.max_seqs or not self._rows:
            return None
        pool = self.pool
        if running and self._blocked and self._blocked[0] is request:
            _, free, crowd = self._blocked
            if pool.free <= free and running >= crowd:
                return None  # nothing has become free since it was found too large
        hits = self._hits(request)
        if self._coming and self._worth_waiting(request, len(hits)):
            return None
        fresh = pool.pages_for(len(request.tokens)) - len(hits)
        spare = running + 1 if running else 0
        if pool.free - pool.idle(hits) < fresh + spare:
            self._blocked = (request, pool.free, running)
            return None
        self._blocked = None
        self.waiting.pop()
        pool.hold(hits)
        self._seat(request, hits, fresh)
        return request

    def _worth_waiting(self, request: Request, hits: int) -> bool:
        """True when at least half of what it has to compute is on its way."""
        size = self.limits.page_size
        coming = 0
        for name in request.books.names[hits : (len(request.tokens) - 1) // size]:
            if name not in self._coming:
                break
            coming += 1
        return coming * size * 2 >= len(request.tokens) - hits * size

    def _hits(self, request: Request) -> list[int]:
        """Pages of the prefix cache for it. Never all its tokens: the last one's logits are needed."""
        wants_logits = request.sampling.prompt_logprobs is not None and not request.generated
        if not self.pool.prefix_caching or wants_logits:
            return []
        names = request.books.names
        count = (len(request.tokens) - 1) // self.limits.page_size
        self.pool.name(names, request.tokens, count, request.salt)
        return self.pool.lookup(names[:count])

    def _seat(self, request: Request, hits: list[int], fresh: int) -> None:
        request.pages = hits
        self.give(request, self.pool.take(fresh))
        request.computed = (len(request.pages) - fresh) * self.limits.page_size
        request.books.shared = len(request.pages) - fresh
        request.row = heappop(self._rows)
        request.status = Status.RUNNING
        insort(self.prefilling, request, key=place)
        for name in request.books.names[request.books.shared :]:
            self._coming.setdefault(name, request)
        if not request.scheduled_ns:
            request.scheduled_ns = now_ns()
            request.cached = request.computed
            self.counters.prompt_tokens += request.prompt_len
            if self.pool.prefix_caching:
                self.counters.prefix_queries += request.prompt_len
                self.counters.prefix_hits += request.computed

    def promote(self, request: Request) -> None:
        """All its known tokens are computed or on their way: from now on it decodes."""
        self.prefilling.remove(request)
        insort(self.decoding, request, key=place)

    def give(self, request: Request, pages: list[int]) -> None:
        request.pages += pages
        request.books.room = len(request.pages) * self.limits.page_size

    def grow(self, request: Request, upto: int) -> bool:
        """Pages for positions below `upto`, if need be at the cost of the worst request; False when not now."""
        pool = self.pool
        need = pool.pages_for(upto) - len(request.pages)
        while pool.free < need:
            # Pages of those that have ended come back with the next step that is collected.
            if self.draining or not self.preempt_worst() or request.status is not Status.RUNNING:
                return False
        self.give(request, pool.take(need))
        return True

    def preempt_worst(self) -> bool:
        """Preempts the last in order. While a step in flight touches it, it is held instead, and False is said."""
        victim = max((line[-1] for line in (self.decoding, self.prefilling) if line), key=place)
        if victim.books.in_flight:
            self.held = victim
            return False
        self._leave_line(victim)
        self._let_go(victim)
        victim.status = Status.WAITING
        victim.computed = 0
        victim.draft, victim.draft_probs = [], None
        victim.books.prompt_logprobs.clear()
        victim.preempted += 1
        self.counters.preemptions += 1
        self.waiting.push(victim)
        return True

    def share(self, request: Request, upto: int) -> None:
        """Offers its full pages below position `upto`, all computed and all of known tokens, to the prefix cache."""
        books, pool = request.books, self.pool
        full = upto // self.limits.page_size
        if full <= books.shared or not pool.prefix_caching:
            return
        pool.name(books.names, request.tokens, full, request.salt)
        for i in range(books.shared, full):
            pool.publish(request.pages[i], books.names[i])
            self._coming.pop(books.names[i], None)
        books.shared = full

    def distrust(self, request: Request) -> None:
        """What its pages hold must not be hit by anybody."""
        self.pool.forget(request.pages)
        request.books.shared = NEVER

    def leave(self, request: Request, finish: Finish) -> None:
        """It has ended. Its row and pages come back when no step in flight touches them."""
        if request.status is Status.RUNNING:
            self._leave_line(request)
            self.draining.add(request)
        waited = request.status is Status.WAITING
        request.status = Status.FINISHED
        del self.by_id[request.id]
        if waited:
            self.waiting.left()
        elif not request.books.in_flight:
            self.drained(request)
        counters = self.counters
        counters.finished += finish in (Finish.STOP, Finish.LENGTH)
        counters.aborted += finish is Finish.ABORT
        counters.failed += finish is Finish.ERROR

    def drained(self, request: Request) -> None:
        """The last step that touched an ended request was collected."""
        self.draining.remove(request)
        self._let_go(request)

    def _leave_line(self, request: Request) -> None:
        line = self.decoding if request in self.decoding else self.prefilling
        line.remove(request)

    def _let_go(self, request: Request) -> None:
        self._released(request)
        if self._coming:
            for name in request.books.names:
                if self._coming.get(name) is request:
                    del self._coming[name]
        self.pool.drop(request.pages)
        heappush(self._rows, request.row)
        request.row = -1
        request.pages = []
        request.books.room = 0


def check(request: Request, limits: Limits) -> None:
    """Raises `RequestRefused` if it can never run."""
    tokens = request.tokens
    if not tokens:
        raise RequestRefused("the prompt has no tokens")
    if min(tokens) < 0 or max(tokens) >= limits.vocab_size:
        bad = next(token for token in tokens if not 0 <= token < limits.vocab_size)
        raise RequestRefused(f"token {bad} is not in the vocabulary of {limits.vocab_size}")
    if len(tokens) >= limits.max_model_len:
        raise RequestRefused(
            f"the prompt has {len(tokens)} tokens, and the context holds {limits.max_model_len}, prompt and answer"
        )
    room = (limits.pages - 1) * limits.page_size  # page 0 is nobody's
    if len(tokens) > room:
        raise RequestRefused(f"the prompt has {len(tokens)} tokens, and the KV cache holds {room} in all")
