"""What the paced server sends and when: options, the toy tokenizer, and the script of one answer.

A script is a list of steps (offset from the request's arrival in ns, bytes, tokens): absolute, so lateness of one step
never moves the next.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

FAULTS = (
    "http-500",  # status 500 with a JSON error
    "refuse",  # reset before any byte of the answer
    "reset",  # RST in the middle of the stream
    "close",  # FIN in the middle of the stream, no terminator
    "stall",  # silence for ever from the middle of the stream on
    "error-event",  # an error event inside the 200 stream, then a clean end
    "malformed",  # one event whose JSON is cut short
    "empty",  # a complete answer without one token
    "no-done",  # no [DONE], otherwise complete
    "no-finish",  # neither finish_reason nor [DONE], then a clean end
    "slow-headers",  # the head of the answer dribbles in, three bytes at a time
    "not-http",  # bytes that are no HTTP
    "not-sse",  # 200 with an HTML page
)
_ENDS = {"reset": "reset", "stall": "stall", "close": "close", "die": "die"}
"""Faults that cut an answer short, and how its connection then ends."""
Fault = str
Step = tuple[int, bytes, int]

_TEXT = (
    "the of and to in is it for as with on by that this from be are or an not have one when which can use time value"
)
_WORDS = tuple(_TEXT.split())
_PIECE = re.compile(r"\s?[^\s]{1,6}|\s")


@dataclass(frozen=True)
class Pace:
    """How the server answers. `faults` maps a fault to its share of requests, spread evenly and by number."""

    ttft_ms: float = 50.0
    itl_ms: float = 20.0
    tokens: int = 64
    """Answer length when the request sets no max_tokens."""
    tokens_per_chunk: int = 1
    chunk_mix: str = ""
    """Tokens of one chunk after the other, such as 1,3,5, over and over: what speculative decoding looks like."""
    most_tokens: int = 0
    """No answer is longer, whatever is asked for; 0 is no limit."""
    chunk_bytes: int = 250
    model: str = "paced"
    reasoning: int = 0
    """Chat and responses: so many of the first tokens are reasoning."""
    image_tokens: int = 64
    """Chat and responses: what one picture adds to the prompt."""
    responses_extra_tokens: int = 0
    """Responses: what the endpoint adds to a prompt beyond what /tokenize says, as vLLM's second BOS."""
    dimensions: int = 16
    """Embeddings: numbers in a vector."""
    usage: Literal["none", "final", "continuous"] = "continuous"
    """The most that is sent when the request asks for it; `none` ignores stream_options."""
    framing: Literal["chunked", "length", "close"] = "chunked"
    newline: Literal["lf", "crlf"] = "lf"
    split: int = 1
    """Every event leaves in so many pieces, 0.2 ms apart."""
    events_per_send: int = 1
    tokenizer: bool = True
    """Answer /tokenize and /detokenize."""
    api_key: str = ""
    max_model_len: int = 0
    slots: int = 0
    """Requests that are answered at the same time, the others wait; 0 is no limit."""
    die_after: int = 0
    """Exit without a word in the middle of the n-th answer; 0 never."""
    metrics: bool = False
    """Serve /metrics in Prometheus format, under vLLM's names."""
    outlives: bool = False
    """Answers go on after their client is gone, as far as /metrics and the log are concerned."""
    foreign_tokens: int = 0
    """/metrics counts so many tokens more per answer: somebody else is served too."""
    prefix_cache: bool = False
    block_tokens: int = 16
    cache_blocks: int = 0
    """Blocks that the prefix cache holds; 0 is no limit."""
    cached_usage: bool = True
    """`usage` has `prompt_tokens_details.cached_tokens`."""
    prefill_share: float = 0.0
    """The share of the TTFT that a prompt found whole in the cache saves."""
    by_prompt: bool = False
    """Different prompts get different answers."""
    damage: Literal["", "garbage", "repeat", "swap", "flip"] = ""
    """What is wrong with answers: replacement characters, one token for ever, another prompt's answer, or another word
    here and there from the middle on (as near-ties flip in a batch)."""
    damage_after: int = 0
    """Only from the answer behind the n-th on."""
    damage_above: int = 0
    """Only while at least so many others are in flight."""
    cold_requests: int = 0
    """So many first answers are slower, by `cold_factor` at first and by less and less."""
    cold_factor: float = 1.0
    idle_cold_s: float = 0.0
    """After so long without a request the next answers are cold again; 0 is never."""
    speed_file: str = ""
    """A file with a number by which both times are multiplied, read anew for every request: a planted setting."""
    faults: dict[Fault, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Asked:
    """One parsed request for an answer."""

    chat: bool
    stream: bool
    tokens: int
    prompt_tokens: int
    include_usage: bool
    continuous: bool
    cached: int = 0
    first_word: int = 0
    damage: str = ""
    api: str = ""
    prompt: str | list[int] = ""
    inputs: tuple[str, ...] = ()
    base64: bool = False


Script = Callable[[Pace, Asked, Fault], list[Step]]


class ToyTokenizer:
    """Pieces of up to six characters with their leading blank; ids are handed out on sight. One BOS in front."""

    bos = 0
    template = ("<|user|>\n", "<|end|>\n<|assistant|>\n")

    def __init__(self) -> None:
        self._ids: dict[str, int] = {"": 0}
        self._pieces: list[str] = [""]

    def encode(self, text: str, special: bool = True) -> list[int]:
        ids = [self.bos] if special else []
        for piece in _PIECE.findall(text):
            number = self._ids.get(piece)
            if number is None:
                number = self._ids[piece] = len(self._pieces)
                self._pieces.append(piece)
            ids.append(number)
        return ids

    def count(self, text: str) -> int:
        return 1 + len(_PIECE.findall(text))

    def decode(self, ids: list[int]) -> str:
        return "".join(self._pieces[i] for i in ids)

    def render(self, messages: list[dict[str, Any]]) -> str:
        before, after = self.template
        return "".join(f"{before}{message.get('content') or ''}{after}" for message in messages)


class Faults:
    """Deals out faults: each kind hits its share of the requests, evenly spaced, always in the same way."""

    def __init__(self, shares: dict[Fault, float]) -> None:
        self._shares = shares
        self._due = dict.fromkeys(shares, 0.0)

    def next(self) -> Fault:
        """The fault of the next request; '' for none."""
        for kind, share in self._shares.items():
            self._due[kind] += share
        kind = max(self._due, key=lambda name: self._due[name], default="")
        if not kind or self._due[kind] < 1 - 1e-9:  # a tenth ten times is a little less than one
            return ""
        self._due[kind] -= 1
        return kind


def words(first: int, count: int) -> str:
    return "".join(" " + _WORDS[(first + i) % len(_WORDS)] for i in range(count))


def say(asked: Asked, done: int, count: int) -> str:
    """Tokens `done` to `done + count` of an answer."""
    if asked.damage == "garbage":
        return "\ufffd\x0f" * count
    if asked.damage == "repeat":
        return " the" * count
    if asked.damage == "swap":
        return words(asked.first_word + done + 7, count)
    if asked.damage == "flip" and 2 * done >= asked.tokens:
        return words(asked.first_word + done + 1, count)
    return words(asked.first_word + done, count)


@lru_cache(maxsize=65536)
def _event(pace_key: tuple[str, int, str], chat: bool, delta: str, finish: str, usage: tuple[int, ...]) -> bytes:
    """One SSE event. `delta` is the JSON of the delta or text; `usage` is () or (prompt, completion, cached)."""
    model, size, newline = pace_key
    body: dict[str, Any] = {
        "id": "paced-1",
        "object": "chat.completion.chunk" if chat else "text_completion",
        "created": 1_700_000_000,
        "model": model,
    }
    if delta:
        inner = {"delta": json.loads(delta)} if chat else {"text": json.loads(delta)}
        body["choices"] = [{"index": 0, **inner, "logprobs": None, "finish_reason": finish or None}]
    else:
        body["choices"] = []
    if usage:
        body["usage"] = usage_json(*usage)
    data = json.dumps(body, separators=(",", ":"))
    data = data[:-1] + ',"padding":"' + "x" * max(0, size - len(data) - 24) + '"}'
    end = "\r\n" if newline == "crlf" else "\n"
    return f"data: {data}{end}{end}".encode()


def usage_json(prompt: int, completion: int, cached: int) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached} if cached >= 0 else None,
    }


def deltas(pace: Pace, asked: Asked, fault: Fault) -> Iterator[tuple[int, str, int, bool]]:
    """(offset in ns, text, tokens, is it reasoning) of every content chunk."""
    ttft, itl = int(pace.ttft_ms * 1e6), int(pace.itl_ms * 1e6)
    thinks = pace.reasoning if asked.chat or asked.api == "responses" else 0
    total = 0 if fault == "empty" else asked.tokens
    mix = [int(size) for size in pace.chunk_mix.split(",")] if pace.chunk_mix else [pace.tokens_per_chunk]
    done = sent = 0
    while done < total:
        count = min(mix[sent % len(mix)], total - done)
        reasoning = done < thinks
        if reasoning:
            count = min(count, thinks - done)
        yield ttft + sent * itl, say(asked, done, count), count, reasoning
        done += count
        sent += 1


def _events(pace: Pace, asked: Asked, fault: Fault) -> list[Step]:
    """Events of one streamed answer, not yet framed."""
    key = (pace.model, pace.chunk_bytes, pace.newline)
    ttft = int(pace.ttft_ms * 1e6)
    end = b"\r\n\r\n" if pace.newline == "crlf" else b"\n\n"
    steps: list[Step] = []
    continuous = asked.continuous and pace.usage == "continuous"

    def usage(done: int) -> tuple[int, ...]:
        return (asked.prompt_tokens, done, asked.cached) if continuous else ()

    if asked.chat:
        steps.append((ttft, _event(key, True, '{"role":"assistant","content":""}', "", usage(0)), 0))
    done, at = 0, ttft
    for offset, said, count, reasoning in deltas(pace, asked, fault):
        text = json.dumps(said)
        delta = f'{{"{"reasoning_content" if reasoning else "content"}":{text}}}' if asked.chat else text
        at, done = offset, done + count
        steps.append((at, _event(key, asked.chat, delta, "", usage(done)), count))
    if fault == "no-finish":
        return steps
    steps.append((at, _event(key, asked.chat, "{}" if asked.chat else '""', "length", usage(done)), 0))
    if asked.include_usage and pace.usage != "none":
        steps.append((at, _event(key, asked.chat, "", "", (asked.prompt_tokens, done, asked.cached)), 0))
    if fault != "no-done":
        steps.append((at, b"data: [DONE]" + end, 0))
    return steps


def _break(steps: list[Step], fault: Fault) -> list[Step]:
    """Cuts or spoils a list of events in its middle, as the fault says."""
    half = max(1, len(steps) // 2)
    if fault in _ENDS:
        return steps[:half]
    if fault == "error-event":
        error = b'data: {"error": {"message": "EngineCore died", "type": "InternalServerError", "code": 500}}\n\n'
        return [*steps[:half], (steps[half - 1][0], error + b"data: [DONE]\n\n", 0)]
    if fault == "malformed":
        at, data, _ = steps[half]
        return [*steps[:half], (at, data[: len(data) // 2] + b"\n\n", 0), *steps[half + 1 :]]
    return steps


def _group(steps: list[Step], size: int) -> list[Step]:
    if size == 1:
        return steps
    groups = [steps[i : i + size] for i in range(0, len(steps), size)]
    return [(group[-1][0], b"".join(s[1] for s in group), sum(s[2] for s in group)) for group in groups]


def _cut(steps: list[Step], parts: int) -> list[Step]:
    if parts == 1:
        return steps
    out: list[Step] = []
    for at, data, tokens in steps:
        marks = sorted({len(data) * i // parts for i in range(parts + 1)})
        pieces = [data[a:b] for a, b in itertools.pairwise(marks)]
        for i, piece in enumerate(pieces):
            out.append((at + i * 200_000, piece, tokens if i == len(pieces) - 1 else 0))
    return out


def head(status: int, kind: str, framing: str, length: int = 0, reason: str = "OK") -> bytes:
    framed = {"chunked": "Transfer-Encoding: chunked", "length": f"Content-Length: {length}", "close": ""}[framing]
    keep = "close" if framing == "close" else "keep-alive"
    lines = [f"HTTP/1.1 {status} {reason}", f"Content-Type: {kind}", framed, f"Connection: {keep}"]
    return "\r\n".join(line for line in lines if line).encode() + b"\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def whole(status: int, body: dict[str, Any], reason: str = "OK") -> bytes:
    data = json.dumps(body).encode()
    return head(status, "application/json", "length", len(data), reason) + data


def spoiled(body: dict[str, Any], fault: Fault) -> bytes:
    """A whole answer as the fault leaves it."""
    if fault == "malformed":
        text = json.dumps(body).encode()[:-20]
        return head(200, "application/json", "length", len(text)) + text
    data = whole(200, {"error": {"message": "EngineCore died"}} if fault == "error-event" else body)
    return data[:-20] if fault in _ENDS else data


def answer(
    pace: Pace, asked: Asked, fault: Fault, *, events: Script | None = None, single: Script | None = None
) -> tuple[list[Step], str]:
    """The framed script of one answer, and how the connection ends: keep, close, reset or stall."""
    ttft = int(pace.ttft_ms * 1e6)
    if fault == "http-500":
        error = {"error": {"message": "planted failure", "type": "server_error", "code": 500}}
        return [(ttft, whole(500, error, "Internal Server Error"), 0)], "keep"
    if fault == "refuse":
        return [], "reset"
    if fault == "not-http":
        return [(ttft, b"SSH-2.0-OpenSSH_9.6\r\n", 0)], "close"
    if fault == "not-sse":
        page = b"<html><body>a proxy's login page</body></html>"
        return [(ttft, head(200, "text/html", "length", len(page)) + page, 0)], "keep"
    if not asked.stream:
        return (single or _single)(pace, asked, fault), _ENDS.get(fault, "keep")
    steps = _group(_break((events or _events)(pace, asked, fault), fault), pace.events_per_send)
    length = sum(len(data) for _, data, _ in steps)
    first = head(200, "text/event-stream; charset=utf-8", pace.framing, length)
    if pace.framing == "chunked":
        steps = [(at, chunk(data), tokens) for at, data, tokens in steps]
    last = steps[-1][0] if steps else ttft
    steps = _cut(steps, pace.split)
    if pace.framing == "chunked" and fault not in _ENDS:
        steps.append((max(last, steps[-1][0]), b"0\r\n\r\n", 0))
    opening: list[Step] = [(0, first, 0)]
    if fault == "slow-headers":
        opening = [(i * 5_000_000, first[3 * i : 3 * i + 3], 0) for i in range((len(first) + 2) // 3)]
        delay = opening[-1][0]
        steps = [(at + delay, data, tokens) for at, data, tokens in steps]
    return opening + steps, _ENDS.get(fault, "close" if pace.framing == "close" else "keep")


def _single(pace: Pace, asked: Asked, fault: Fault) -> list[Step]:
    """A whole answer in one JSON body."""
    tokens = 0 if fault == "empty" else asked.tokens
    reasoning = min(tokens, pace.reasoning) if asked.chat else 0
    text = say(asked, reasoning, tokens - reasoning)
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if reasoning:
        message["reasoning_content"] = words(0, reasoning)
    body: dict[str, Any] = {
        "id": "paced-1",
        "object": "chat.completion" if asked.chat else "text_completion",
        "model": pace.model,
        "choices": [
            {"index": 0, **({"message": message} if asked.chat else {"text": text}), "finish_reason": "length"}
        ],
    }
    if pace.usage != "none":
        body["usage"] = usage_json(asked.prompt_tokens, tokens, asked.cached)
    at = int(pace.ttft_ms * 1e6) + max(0, tokens - 1) * int(pace.itl_ms * 1e6)
    return [(at, spoiled(body, fault), tokens)]
