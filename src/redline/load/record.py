"""What crosses from `load` to `store` and `analyse`: one record per request, times in monotonic nanoseconds."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Status(StrEnum):
    """How a request ended. All but `OK`, `CANCELLED` and `ABANDONED` are failures of the server or the path to it."""

    OK = "ok"
    CANCELLED = "cancelled"  # cut off by us: the load point was over, or the user pressed Ctrl-C
    ABANDONED = "abandoned"  # the client hung up in the middle, as the workload asks of some clients
    CONNECT = "connect"  # no connection: refused, reset before the response began
    HTTP = "http"  # a status of 400 or more
    RESET = "reset"  # the connection closed before the stream was complete
    TIMEOUT = "timeout"  # no byte for `idle_timeout_s`, or not done after `timeout_s`
    MALFORMED = "malformed"  # not HTTP, not SSE, not JSON, or an event that carries an error
    EMPTY = "empty"  # a complete answer with no token in it


class TokenSource(StrEnum):
    """Who counted the tokens, best first."""

    USAGE = "usage"  # the server's own `usage`
    SERVER_TOKENIZER = "server-tokenizer"  # /tokenize of the same server
    TOKENIZER = "tokenizer"  # tokenizer.json, on our side
    CHUNKS = "chunks"  # one token per content chunk: a guess, and marked as one
    NONE = "none"


@dataclass
class RequestRecord:
    """One request, as the client saw it.

    Times are monotonic ns; 0 means that it never happened; `connected_ns` is 0 on a connection that was used before.
    `chunk_ns[i]` is when content chunk `i` arrived, and `chunk_tokens[i]` how many tokens it carried (reasoning
    included); role-only, empty and usage-only events are no content chunks, but an event without text that carried
    tokens by the server's own usage is one. An answer that was not streamed is one chunk, at its last byte.
    `answer_first_ns` is the first chunk of answer text, which differs from `chunk_ns[0]` only for reasoning models.
    `stamp` says who took the arrival times: `packet` (each segment's own, from a packet ring), `kernel`
    (SO_TIMESTAMPNS: of the newest segment in each read) or `user`.
    `request_class` names the class of a mixed workload. `session` and `turn` count from 0; -1 outside of a session.
    `canary` is the number of a fixed prompt whose answer is known, -1 for ordinary requests: canaries are load like any
    other, but no latency is taken of them.
    """

    index: int
    intended_ns: int
    sent_ns: int = 0
    connected_ns: int = 0
    first_byte_ns: int = 0
    answer_first_ns: int = 0
    finished_ns: int = 0
    chunk_ns: list[int] = field(default_factory=list)
    chunk_tokens: list[int] = field(default_factory=list)
    prompt_tokens: int = 0
    cached_tokens: int = 0
    asked_prompt_tokens: int = 0
    asked_output_tokens: int = 0
    output_tokens: int = 0
    token_source: TokenSource = TokenSource.NONE
    status: Status = Status.OK
    http_status: int = 0
    error: str = ""
    finish_reason: str = ""
    stamp: str = "kernel"
    shared_stamps: int = (
        0  # content chunks that share a receive stamp with the one before: merged by TCP, or sent as one
    )
    warmup: bool = False
    text: str = ""  # what was generated, kept only when the workload asks for it
    request_class: str = ""
    session: int = -1
    turn: int = -1
    canary: int = -1

    @property
    def failed(self) -> bool:
        return self.status not in (Status.OK, Status.CANCELLED, Status.ABANDONED)
