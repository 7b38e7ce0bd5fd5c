"""From a raw stream to the record of the request: what happened, when, and how it is called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from redline.load import responses
from redline.load.answer import Answer, error_text, read_stream, read_whole
from redline.load.counting import CountTexts, resolve_chunks, was_spread
from redline.load.embeddings import FINISHED, read_embeddings
from redline.load.frames import End, RawStream
from redline.load.record import RequestRecord, Status, TokenSource
from redline.load.response import Response, read_response

_ERROR_MAX = 600
_BY_US = {End.CANCELLED: Status.CANCELLED, End.ABANDONED: Status.ABANDONED}


@dataclass(frozen=True, slots=True)
class Asked:
    """What is known about a request before it is sent."""

    prompt_tokens: int
    output_tokens: int
    stream: bool = True
    warmup: bool = False
    keep_text: bool = False
    api: str = "completions"
    inputs: int = 1
    """Embeddings: how many vectors are to come back."""
    request_class: str = ""
    session: int = -1
    turn: int = -1
    """-1: not part of a conversation."""
    canary: int = -1

    @property
    def in_session(self) -> bool:
        return self.session >= 0


class Reader:
    """Reads the streams of one load point. `secret` is blotted out of every error text, `hear` gets every answer."""

    def __init__(
        self,
        *,
        count: CountTexts | None = None,
        source: TokenSource = TokenSource.TOKENIZER,
        secret: str | None = None,
        hear: Callable[[RequestRecord, Answer], None] | None = None,
    ) -> None:
        self._count = count
        self._source = source
        self._secret = secret
        self._hear = hear
        self.cached_told = 0
        """Answers whose usage told of the prefix cache."""
        self._dimension = 0
        self.spread = 0
        """Answers whose tokens per chunk are an estimate from the lengths of their texts."""
        self._silent = [0, 0]
        self._answers = 0

    def read(self, raw: RawStream, asked: Asked) -> RequestRecord:
        head = raw.head
        record = RequestRecord(
            index=head.number,
            intended_ns=head.intended_ns,
            sent_ns=head.sent_ns,
            connected_ns=head.connected_ns,
            first_byte_ns=raw.stamps[0] if raw.stamps else 0,
            finished_ns=head.ended_ns,
            asked_prompt_tokens=asked.prompt_tokens,
            asked_output_tokens=asked.output_tokens,
            stamp=head.stamp.name.lower(),
            warmup=asked.warmup,
            canary=asked.canary,
            request_class=asked.request_class,
            session=asked.session,
            turn=asked.turn,
        )
        if not raw.lengths:
            record.status, record.error = _without_bytes(raw)
        else:
            self._read_response(raw, asked, record)
        if record.error:
            text = record.error.replace(self._secret, "***") if self._secret else record.error
            record.error = text[:_ERROR_MAX]
        return record

    def silent_events(self) -> tuple[float, float]:
        """Events of an answer that carry a choice but no text or tokens, before its first chunk and after it: means."""
        opening, closing = self._silent
        return (opening / self._answers, closing / self._answers) if self._answers else (0.0, 0.0)

    def _read_response(self, raw: RawStream, asked: Asked, record: RequestRecord) -> None:
        response = read_response(raw)
        record.http_status = response.status
        if response.status and not 200 <= response.status < 300:
            cut = raw.head.end is End.CANCELLED
            record.status = Status.CANCELLED if cut else Status.HTTP
            record.error = "" if cut else f"HTTP {response.status}: {error_text(response.body)}"
            return
        answer = Answer()
        if response.status and not response.fault:
            answer = self._read_answer(response, raw, asked)
        self._fill(record, answer, asked)
        record.status, record.error = judge(raw, response, answer, record.output_tokens, asked.api)
        if record.status in (Status.OK, Status.EMPTY) and not response.whole:
            record.finished_ns = answer.done_ns  # complete to its [DONE]; what the server did afterwards is not ours
        if self._hear is not None:
            self._hear(record, answer)

    def _read_answer(self, response: Response, raw: RawStream, asked: Asked) -> Answer:
        if asked.api != "embeddings":
            return _read_answer(response, raw, asked)
        if not response.whole:
            return Answer()
        answer, self._dimension = read_embeddings(response, raw.stamps[-1], asked.inputs, self._dimension)
        return answer

    def _fill(self, record: RequestRecord, answer: Answer, asked: Asked) -> None:
        chunks, tokens, output, source = resolve_chunks(answer, self._count, self._source)
        self.spread += self._count is None and was_spread(answer, chunks, tokens)
        times = [chunk.at_ns for chunk in chunks]
        record.chunk_ns, record.chunk_tokens = times, tokens
        record.output_tokens = output
        record.token_source = source
        record.prompt_tokens = answer.prompt_tokens
        record.cached_tokens = answer.cached_tokens
        self.cached_told += answer.cached_told
        record.finish_reason = answer.finish_reason
        record.shared_stamps = sum(a == b for a, b in pairwise(times))
        if chunks:
            opening = next(i for i, chunk in enumerate(answer.chunks) if chunk is chunks[0])
            self._silent[0] += answer.roles + opening
            self._silent[1] += len(answer.chunks) - opening - len(chunks)
            self._answers += 1
        thinks = any(chunk.reasoning for chunk in chunks)
        first = (chunk.at_ns for chunk in chunks if not thinks or (chunk.text and not chunk.reasoning))
        record.answer_first_ns = next(first, 0)
        if asked.in_session:  # the next turn repeats what was answered, and not what was thought
            record.text = "".join(chunk.text for chunk in chunks if not chunk.reasoning)
        elif asked.keep_text:
            record.text = "".join(chunk.text for chunk in chunks)


def _read_answer(response: Response, raw: RawStream, asked: Asked) -> Answer:
    if not asked.stream:
        whole = responses.read_whole if asked.api == "responses" else read_whole
        return whole(response, raw.stamps[-1]) if response.whole else Answer()
    kind = response.headers.get("content-type", "text/event-stream")
    encoding = response.headers.get("content-encoding", "identity")
    if encoding != "identity":
        return Answer(problem=f"the answer is {encoding}-encoded, although identity was asked for")
    if "event-stream" in kind or response.body.lstrip()[:5] in (b"data:", b"event", b""):
        return read_stream(response, raw.stamps, responses.take_event if asked.api == "responses" else None)
    if not response.whole:
        return Answer()
    return Answer(problem=f"no event stream but {kind}: {error_text(response.body)}")


def judge(
    raw: RawStream, response: Response, answer: Answer, output_tokens: int, api: str = "completions"
) -> tuple[Status, str]:
    """How the request ended, and why in words."""
    end = raw.head.end
    if response.fault or answer.problem:
        return Status.MALFORMED, response.fault or answer.problem
    if answer.done_ns or (answer.finish_reason and response.whole):
        done = output_tokens or answer.finish_reason == FINISHED
        return (Status.OK, "") if done else (Status.EMPTY, "a complete answer without one token")
    if end in _BY_US:
        return _BY_US[end], ""
    got = f"after {len(answer.chunks)} chunks" if response.status else "before a whole head of an answer"
    if end in (End.IDLE, End.SLOW):
        return Status.TIMEOUT, (f"silent for too long {got}" if end is End.IDLE else f"not done in time {got}")
    if end is End.BAD:
        return Status.MALFORMED, raw.error or "no HTTP: " + error_text(raw.data[:200])
    if response.whole:
        lacks = "without response.completed" if api == "responses" else "without finish_reason and without [DONE]"
        return Status.RESET, f"the stream ended {got} {lacks}"
    return Status.RESET, f"{raw.error or 'the server closed the connection'} {got}"


def _without_bytes(raw: RawStream) -> tuple[Status, str]:
    """Not one byte came back."""
    end = raw.head.end
    if end in _BY_US:
        return _BY_US[end], ""
    if end in (End.IDLE, End.SLOW):
        state = "no answer at all" if raw.head.sent_ns else "no connection"
        return Status.TIMEOUT, f"{state} within the time allowed"
    return Status.CONNECT, raw.error or "no connection"
