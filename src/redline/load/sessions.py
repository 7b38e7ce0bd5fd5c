"""Drives sessions: makes the next turn when an answer has been read, and tells the worker when it is due.

closed loop: each client goes through one session after the other. open loop: sessions begin on the schedule, and their
later turns follow by think time. The intended start of a later turn is the end of the answer before it plus the think
time: what redline itself needs to read and to write shows as send lag, and nowhere else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from redline.clock import now_ns
from redline.load.clients import client_of
from redline.load.conversations import Conversation, Script, Written
from redline.load.frames import Arrivals, Outgoing, Phase
from redline.load.progress import PointOutcome
from redline.load.record import RequestRecord, Status
from redline.load.supply import Supply
from redline.load.trace import Row
from redline.load.traced import Recalled
from redline.spec.load import LoadSpec
from redline.spec.workload import WorkloadSpec
from redline.units import NS_PER_S

_BACKOFF_NS = 100_000_000
_AHEAD = 32
_FIRST_MOST = 1024
_SPARE_MOST = 256
_SOON_NS = 3_000_000_000
_LEAD_NS = 50_000_000
_LEAD_EACH_NS = 500_000  # to write one request and hand it over, with room to spare
_MARGIN_TOKENS = 16  # for what a chat template adds per turn


class Sessions:
    """`begin` gives what is sent first; `answered` what follows an answer. `over` when nothing more will come.

    `requests` is how many turns are sent at most, 0 for no limit; `context_tokens` the most that fits, 0 when unknown;
    `starts_s` when sessions begin where the script says it.
    """

    def __init__(
        self,
        script: Script,
        supply: Supply,
        *,
        seed: int,
        requests: int = 0,
        context_tokens: int = 0,
        starts_s: Sequence[float] | None = None,
    ) -> None:
        self._script, self._supply, self._workload = script, supply, supply.workload
        self._starts_s = starts_s
        self._seed, self._requests, self._context = seed, requests, context_tokens
        self._asked: dict[int, Conversation] = {}
        self._ready: deque[Conversation] = deque()
        self._starts: deque[int] = deque()
        self._next = 0
        self._closed = False
        self._offsets: list[int] = []
        self.sent = 0
        self.begun = self.finished = 0
        self.broken = 0
        """Sessions that ended early because a turn failed or its client hung up."""
        self.cut_short = 0
        """Sessions that ended early because the next prompt would not have fitted."""

    @property
    def over(self) -> bool:
        return not self._asked and not self._starts

    def prepare(self, phase: Phase) -> None:
        """Turns the phase into one that sends what it is told to when it is told to, and makes the first sessions."""
        self._closed = phase.arrivals is Arrivals.CLOSED
        self._offsets = phase.offsets_ns
        if self._starts_s is not None:
            self._offsets = [int(start * NS_PER_S) for start in self._starts_s]
        elif self._closed:
            self._offsets = [phase.ramp_ns * client // phase.clients for client in range(phase.clients)]
        first = min(len(self._offsets), _FIRST_MOST)
        # a closed loop needs as many again and again; those made now can still be counted by the server
        spare = min(_SPARE_MOST, 4 * first, self._requests or _SPARE_MOST) if self._closed else 0
        self._fill(first + spare, under_load=False)
        phase.arrivals, phase.offsets_ns, phase.requests = Arrivals.DIRECTED, [], 0

    def begin(self, phase: Phase) -> list[Outgoing]:
        """Sets when the phase starts; what is sent first. Called right before it starts."""
        first = min(len(self._offsets), _FIRST_MOST)
        phase.start_ns = now_ns() + _LEAD_NS + first * _LEAD_EACH_NS
        self._starts = deque(phase.start_ns + offset for offset in self._offsets)
        return [out for _ in range(first) for out in self._start(self._starts.popleft())]

    def tell(self, outcome: PointOutcome) -> None:
        """How it went."""
        counts = {"begun": self.begun, "finished": self.finished, "broken": self.broken, "cut_short": self.cut_short}
        outcome.traffic["sessions"] = counts
        if self.over and outcome.stopped_by == "interrupted":
            outcome.stopped_by = "requests"  # it was told to end because nothing was left
        if self.cut_short:
            outcome.notes.append(
                f"{self.cut_short} sessions ended early: their next prompt would not have fitted into the model"
            )

    def more(self) -> list[Outgoing]:
        """Sessions that begin soon and were not made yet."""
        found: list[Outgoing] = []
        while self._starts and self._starts[0] < now_ns() + _SOON_NS and len(found) < _AHEAD:
            found += self._start(self._starts.popleft())
        return found

    def answered(self, record: RequestRecord) -> list[Outgoing]:
        """The turn that follows, if any: of the same session, else of the client's next one."""
        conversation = self._asked.pop(record.index, None)
        if conversation is None:
            return []
        if record.status is not Status.OK:
            self.broken += 1
            return self._go_on(record.finished_ns + _BACKOFF_NS) if record.status is not Status.CANCELLED else []
        if not conversation.answered(record.text):
            self.finished += 1
            return self._go_on(record.finished_ns)
        turn = conversation.turn
        prompt = record.prompt_tokens + record.output_tokens + turn.said_tokens + _MARGIN_TOKENS
        if self._context and prompt + turn.output_tokens > self._context:
            self.cut_short += 1
            return self._go_on(record.finished_ns)
        return self._ask(conversation, record.finished_ns + turn.think_ns)

    def _go_on(self, at_ns: int) -> list[Outgoing]:
        return self._start(at_ns) if self._closed else []

    def _start(self, at_ns: int) -> list[Outgoing]:
        if not self._ready:
            self._fill(_AHEAD, under_load=True)
        if not self._ready:
            return []
        return self._ask(self._ready.popleft(), at_ns)

    def _fill(self, count: int, *, under_load: bool) -> None:
        self._ready += self._script.conversations(self._next, count, under_load=under_load)
        self._next += count

    def _ask(self, conversation: Conversation, due_ns: int) -> list[Outgoing]:
        if self._requests and self.sent >= self._requests:
            return []
        self.sent += 1
        self.begun += conversation.at == 0
        number, prompt = self._supply.number(), conversation.prompt()
        client = client_of(self._workload, self._seed, f"{conversation.number}.{conversation.at}")
        self._supply.off += not prompt.exact
        self._asked[number] = conversation
        made = self._supply.outgoing(
            number, prompt, client, due_ns=max(due_ns, 1), session=conversation.number, turn=conversation.at
        )
        return [made]


def sessions_of(supply: Supply, load: LoadSpec, *, seed: int, rows: Sequence[Row], timed: bool) -> Sessions | None:
    """None when requests stand for themselves. `rows` are those of a trace, `timed` when it says when they begin."""
    workload = supply.workload
    recalled = Recalled(supply.prompts, rows, seed, supply.made) if _in_sessions(workload, rows) and timed else None
    if recalled is None and not workload.sessions:
        return None
    script: Script = recalled or Written(workload, supply.prompts, seed, supply.made)
    return Sessions(
        script,
        supply,
        seed=seed,
        requests=load.requests,
        context_tokens=supply.endpoint.max_model_len or 0,
        starts_s=recalled.starts_s if recalled else None,
    )


def _in_sessions(workload: WorkloadSpec, rows: Sequence[Row]) -> bool:
    return workload.api == "chat" and any(row.turn > 0 for row in rows)
