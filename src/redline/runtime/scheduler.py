"""Who gets which tokens of the next step, and what the tokens that come back mean.

There are no phases: every running request wants the tokens between `computed` and what it has, and one budget per step
is shared out. Decodes come first, then prompts that are under way, then waiting requests. Within each, the order is
priority (lower first), then arrival; nobody overtakes, so within one priority nobody starves, and a better priority may
starve a worse one, since that is what was asked for. Priority decides who comes in first and who is preempted last; a
waiting request never pushes a running one out.

Running ahead: with steps in flight, a request has `pending` tokens that only the device knows, and goes on from there.
Requests whose next token depends on the last one here (grammar, penalties, a draft to verify) sit out while something
of theirs is pending; the others go on.

`schedule` reserves pages and plans; `launched` tells that the step is on its way; `update` takes its tokens in. What
requests are to hear waits in `events`.
"""

from __future__ import annotations

from collections.abc import Callable

from redline.clock import now_ns
from redline.runtime.itl import ChunkSizer, Work, pairs
from redline.runtime.request import Finish, Output, Request, Status, TokenLogprob
from redline.runtime.roster import RequestRefused as RequestRefused
from redline.runtime.roster import Roster
from redline.runtime.stats import Counters
from redline.runtime.step import Chunk, Limits, Sampled, Step

Event = tuple[Request, Output]

# Looking a member up on its class, and making named tuples by name, is slow in the two places that run once per token.
FINISHED = Status.FINISHED
_make = tuple.__new__


def _nothing(request: Request) -> None:
    pass


class Scheduler:
    """Owned by the engine's thread. `released` is called when a request gives its row and pages up (finished, aborted,
    preempted), while it still has them."""

    def __init__(
        self,
        limits: Limits,
        *,
        prefix_caching: bool = True,
        itl_target_ms: float | None = None,
        run_ahead: int = 0,
        released: Callable[[Request], None] = _nothing,
    ) -> None:
        self.limits = limits
        self.run_ahead = run_ahead
        self.max_batched_tokens = limits.max_batched_tokens
        self.sizer = None if itl_target_ms is None else ChunkSizer(itl_target_ms)
        self.counters = Counters()
        self.roster = Roster(limits, self.counters, prefix_caching, released)
        self.events: list[Event] = []
        self._number = 0
        self._promoted: list[Request] = []
        self._doomed: list[Request] = []
        self._works: dict[int, Work] = {}

    @property
    def unfinished(self) -> int:
        return len(self.roster.by_id)

    def add(self, request: Request, checked: bool = False) -> None:
        """Queues it. Raises `RequestRefused`, with the numbers, if it can never run; `checked`: not asked again."""
        self.roster.add(request, checked)

    def abort(self, request_id: str) -> None:
        """Ends it now. Pages that steps in flight touch come back with those steps. Unknown ids are ignored."""
        request = self.roster.by_id.get(request_id)
        if request is not None:
            self.end(request, Finish.ABORT)

    def end(self, request: Request, finish: Finish, error: str = "") -> None:
        """Ends it with no further tokens."""
        self.roster.leave(request, finish)
        self.events.append((request, Output((), finish, error=error)))

    def take_events(self) -> list[Event]:
        """What requests are to hear, in order."""
        events, self.events = self.events, []
        return events

    def schedule(self) -> Step | None:
        """The next step, or None when nobody can go on before a step in flight is collected (or nobody is there)."""
        roster = self.roster
        roster.held = None
        self._promoted.clear()
        while roster.running > roster.max_seqs and roster.preempt_worst():
            pass
        chunks: list[Chunk] = []
        used = self._decodes(chunks)
        if self._doomed:
            self._fail_doomed()
        if (roster.prefilling or roster.waiting) and used < self.max_batched_tokens:
            used += self._prefills(chunks, self.max_batched_tokens - used)
        if not chunks:
            return None
        self._number += 1
        if self.sizer is not None:
            self._works[self._number] = _work(chunks)
        return Step(self._number, chunks, used)

    def _decodes(self, chunks: list[Chunk]) -> int:
        """A token for everyone who decodes and can go on. Tokens taken."""
        roster = self.roster
        left = self.max_batched_tokens
        spare = left - roster.running  # for drafts, once everyone has a token
        if roster.prefilling or roster.waiting:
            spare //= 2
        for request in roster.decoding:
            if left <= 0:
                break
            books = request.books
            pending = request.pending
            if pending and (books.host_bound or request.draft or len(request.tokens) + pending >= books.limit):
                continue
            start = request.computed
            if request.draft:
                taken = self._verify(request, spare, chunks)
                left -= taken
                spare -= max(taken - 1, 0)
            elif (start < books.room or self._grow(request, start + 1)) and request is not roster.held:
                chunks.append(_make(Chunk, (request, start, 1, True, ())))
                left -= 1
        return self.max_batched_tokens - left

    def _verify(self, request: Request, spare: int, chunks: list[Chunk]) -> int:
        """A decode that also verifies its draft, as much of it as fits without preempting. Tokens taken."""
        start, books = request.computed, request.books
        most = min(len(request.draft), max(spare, 0), books.limit - len(request.tokens) - 1)
        room = books.room + self.roster.pool.free * self.limits.page_size
        most = max(min(most, room - start - 1), 0)
        if start + 1 + most > books.room and not self._grow(request, start + 1 + most):
            return 0
        if request is self.roster.held:
            return 0
        request.draft = request.draft[:most]
        chunks.append(Chunk(request, start, 1 + most, True, tuple(request.draft)))
        return 1 + most

    def _grow(self, request: Request, upto: int) -> bool:
        pool = self.roster.pool
        if pool.pages_for(upto) > pool.usable:
            # A token in flight may still end it.
            if not request.books.in_flight:
                self._doomed.append(request)
            return False
        return self.roster.grow(request, upto)

    def _fail_doomed(self) -> None:
        size, usable = self.limits.page_size, self.roster.pool.usable
        for request in self._doomed:
            known = len(request.tokens)
            self.end(
                request,
                Finish.ERROR,
                f"the KV cache is too small for this request alone: it has {known} tokens, "
                f"and {usable} pages of {size} hold {usable * size}",
            )
        self._doomed.clear()

    def _prefills(self, chunks: list[Chunk], left: int) -> int:
        """Chunks of prompts under way, then of newcomers. Tokens taken."""
        before = left
        share = self.sizer.share(_work(chunks)) if self.sizer is not None and self.roster.decoding else None
        under_way = iter(tuple(self.roster.prefilling))
        while left > 0 and not (share and share.spent):
            request = next(under_way, None) or self.roster.admit()
            if request is None:
                break
            if request is self.roster.held:
                continue
            start = request.computed
            rest = len(request.tokens) - start
            length = min(rest, left)
            if share is not None:
                length = share.take(start, length)
                if not length:
                    break
            chunks.append(Chunk(request, start, length, length == rest))
            left -= length
            if length == rest:
                self._promoted.append(request)
        return before - left

    def launched(self, step: Step) -> None:
        """The step is on its way."""
        for request, start, length, samples, _ in step.chunks:
            request.computed = start + length
            request.books.in_flight += 1
            if samples:
                request.pending += 1
        for request in self._promoted:
            self.roster.promote(request)
        self._promoted.clear()

    def out_of_memory(self, step: Step) -> None:
        """The runner could not hold the step, and nothing of it happened. From now on steps are half its size at most;
        if it had one token only, its request fails."""
        self.counters.out_of_memory += 1
        self._works.pop(step.number, None)
        if step.tokens > 1:
            self.max_batched_tokens = step.tokens // 2
            self.roster.max_seqs = min(self.roster.max_seqs, self.max_batched_tokens)
            return
        for chunk in step.chunks:
            context = chunk.start + chunk.length
            self.end(chunk.request, Finish.ERROR, f"out of memory: a step of one token with {context} before it")

    def update(self, sampled: list[Sampled], step: Step, elapsed_s: float = 0.0) -> None:
        """Takes in what a step gave. `elapsed_s`: how long it took; 0 means unknown."""
        counters, events, roster = self.counters, self.events, self.roster
        counters.steps += 1
        counters.scheduled_tokens += step.tokens
        for got in sampled:
            request = got.request
            new = got.tokens
            if request.status is FINISHED:
                counters.wasted_tokens += len(new)
            elif len(new) != 1 or got.fault or request.draft or request.matcher or not request.first_token_ns:
                self._accept(got)
            else:
                token = new[0]
                tokens = request.tokens
                tokens.append(token)
                request.pending -= 1
                counters.generation_tokens += 1
                finish = None
                if len(tokens) >= request.books.limit or token in request.sampling.stop_ids:
                    finish = _ends(request, token)
                    if finish is not None:
                        roster.leave(request, finish)
                logprobs = tuple(got.logprobs) if got.logprobs else ()
                events.append((request, _make(Output, ((token,), finish, logprobs, None, 0, ""))))
        size = self.limits.page_size
        for request, start, length, _, _ in step.chunks:
            request.books.in_flight -= 1
            if length > 1 or (start + 1) % size == 0:
                roster.share(request, min(start + length, len(request.tokens) - 1))
            if request.status is FINISHED and not request.books.in_flight:
                roster.drained(request)
        if self.sizer is not None:
            self.sizer.observe(self._works.pop(step.number), elapsed_s)

    def _accept(self, got: Sampled) -> None:
        """The long way: first tokens, several tokens, grammars, faults, prompt log-probabilities."""
        request, counters = got.request, self.counters
        books = request.books
        if got.fault:
            counters.faults += 1
            if got.fault == "grammar":
                self.end(request, Finish.ERROR, "the grammar hit a limit of its own and allows no token any more")
                return
            self.roster.distrust(request)
            self.end(request, Finish.ERROR, f"the model's numbers were not finite ({got.fault})")
            return
        if got.prompt_logprobs and not request.generated:
            books.prompt_logprobs += got.prompt_logprobs
        if not got.tokens:
            return
        request.pending -= 1
        first = not request.first_token_ns
        if first:
            request.first_token_ns = now_ns()
        kept, finish, error = self._append(request, got.tokens)
        if request.draft:
            self._count_draft(len(request.draft), len(got.tokens) - 1)
            request.draft, request.draft_probs = [], None
            request.computed = len(request.tokens) - 1
        if finish is not None:
            self.roster.leave(request, finish)
        output = Output(tuple(got.tokens[:kept]), finish, tuple(got.logprobs[:kept]), error=error)
        if first:
            output = output._replace(prompt_logprobs=_whole_prompt(request), cached=request.cached)
        self.events.append((request, output))

    def _append(self, request: Request, new: list[int]) -> tuple[int, Finish | None, str]:
        """Takes tokens until one ends the answer. (how many belong to it, finish, error)"""
        matcher = request.matcher
        for i, token in enumerate(new):
            if request.sampling.max_tokens < 1:
                return 0, Finish.LENGTH, ""
            request.tokens.append(token)
            self.counters.generation_tokens += 1
            finish = _ends(request, token)
            if matcher is not None and finish is not Finish.STOP:
                try:
                    matcher.advance(token)
                    finish = Finish.STOP if matcher.finished() else finish
                except Exception as fault:
                    return i + 1, Finish.ERROR, f"the grammar did not take token {token}: {fault}"
            if finish is not None:
                self.counters.wasted_tokens += len(new) - i - 1
                return i + 1, finish, ""
        return len(new), None, ""

    def _count_draft(self, proposed: int, accepted: int) -> None:
        counters = self.counters
        counters.spec_proposed += proposed
        by_place = counters.spec_accepted
        by_place.extend([0] * (proposed - len(by_place)))
        for i in range(accepted):
            by_place[i] += 1

    def draftable(self, most: int) -> list[Request]:
        """Decoding requests that may be given drafts now: nothing pending, and pages for `most` guesses are there."""
        ready = []
        pool = self.roster.pool
        for request in self.roster.decoding:
            if request.pending:
                continue
            upto = min(request.computed + 1 + most, request.books.limit)
            if upto > request.books.room:
                need = pool.pages_for(upto) - len(request.pages)
                if pool.free < need:
                    continue
                self.roster.give(request, pool.take(need))
            ready.append(request)
        return ready


def _ends(request: Request, token: int) -> Finish | None:
    sampling = request.sampling
    if token in sampling.stop_ids and request.generated >= sampling.min_tokens:
        return Finish.STOP
    return Finish.LENGTH if len(request.tokens) >= request.books.limit else None


def _whole_prompt(request: Request) -> tuple[TokenLogprob | None, ...] | None:
    if request.sampling.prompt_logprobs is None:
        return None
    found = request.books.prompt_logprobs
    if len(found) == request.prompt_len - 1:
        found = [None, *found]
    return tuple(found)


def _work(chunks: list[Chunk]) -> Work:
    """A chunk that samples and starts where the known tokens end is a decode; drafts count as decodes."""
    tokens = context = crossed = prefill = 0
    for request, start, length, _, draft in chunks:
        tokens += length
        context += start + length
        if start < len(request.tokens) - 1 or (length > 1 and not draft):
            prefill += length
            crossed += pairs(start, length)
    return Work(tokens, context, crossed, prefill, tokens - prefill)
