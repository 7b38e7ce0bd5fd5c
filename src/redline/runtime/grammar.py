"""Answers that match a grammar, through llguidance: JSON schemas, regular expressions, choices, Lark grammars.

Compiling may take a second, so it belongs to a server's threads; what a step costs is bounded by `LIMITS`. Compiled
grammars are kept by their text, and each request gets a copy of its own, which takes microseconds.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from typing import Any, Protocol

import llguidance
import numpy as np

MOST_TEXT = 200_000
"""Characters of a schema or grammar."""
KEPT = 256
"""Compiled grammars that are kept; the one that was not asked for longest goes first."""
COMPILE_S = 10.0
LIMITS: dict[str, Any] = {
    "initial_lexer_fuel": 1_000_000,
    "step_lexer_fuel": 200_000,
    "step_max_items": 20_000,
    # A state is 1 to 2 KB: a request cannot take more than some 100 MB.
    "max_lexer_states": 50_000,
    "max_grammar_size": 200_000,
    # Messages go to the client, so they say what is wrong and not what the parser's insides look like.
    "verbose_errors": False,
}
JSON_OPTIONS: Any = {
    # Without a bound a model that prefers blanks writes them until `max_tokens`.
    "whitespace_pattern": r"[\x20\x0A\x0D\x09]{1,40}",
}


class GrammarError(ValueError):
    """The grammar asked for cannot be compiled; the message says why."""


class GrammarFault(RuntimeError):
    """A matcher was given a token that its grammar forbids, or ran into a limit."""


class Wanted(Protocol):
    """`kind`: json_object, json_schema, regex, choice or grammar (Lark); `value`: nothing, the schema as an object or
    text, the pattern, the choices, the grammar's text."""

    @property
    def kind(self) -> str: ...

    @property
    def value(self) -> Any: ...


class TokenMatcher:
    """A grammar's state for one request, see `request.Matcher`. Used by one thread at a time."""

    def __init__(self, state: llguidance.LLMatcher, vocab_size: int) -> None:
        self._state = state
        self._own = np.zeros((vocab_size + 31) // 32, dtype=np.uint32)

    @property
    def error(self) -> str:
        """Why it allows nothing any more; '' while it works."""
        return str(self._state.get_error()) if self._state.is_error() else ""

    def advance(self, token: int) -> None:
        """Raises `GrammarFault` when the token was not allowed; the matcher then is of no use."""
        if not self._state.consume_token(token):
            raise GrammarFault(self.error or f"token {token} does not continue the grammar")

    def finished(self) -> bool:
        return bool(self._state.is_stopped())

    def fill(self, words: memoryview) -> None:
        """See `request.Matcher`. Allows nothing once a limit was hit: the answer fails, and is not just short."""
        out = np.frombuffer(words, dtype=np.uint32)
        own = out if len(out) == len(self._own) else self._own
        self._state.unsafe_compute_mask_ptr(own.ctypes.data, own.nbytes)
        if self._state.is_error():
            out[:] = 0
        elif own is not out:
            size = min(len(own), len(out))
            out[:size], out[size:] = own[:size], 0

    def allowed(self, tokens: Sequence[int]) -> int:
        return 0 if self._state.is_error() else int(self._state.validate_tokens(list(tokens)))

    def rollback(self, tokens: int) -> None:
        if tokens and not self._state.rollback(tokens):
            raise GrammarFault(self.error or f"{tokens} tokens cannot be taken back")


class Grammars:
    """Compiles for one tokenizer. `tokenizer_json`: the text of a `tokenizer.json`; `vocab_size`: the model's.

    Any thread may call `compile`. Raises `GrammarError` when the tokenizer is of a kind that llguidance does not know.
    """

    def __init__(self, tokenizer_json: str, vocab_size: int, eos_ids: Iterable[int], workers: int = 2) -> None:
        # llguidance takes a string for a hub name unless it is JSON.
        if not tokenizer_json.lstrip().startswith("{"):
            raise GrammarError("the tokenizer is not the text of a tokenizer.json")
        plain = {**json.loads(tokenizer_json), "truncation": None, "padding": None}
        try:
            self._tokenizer = llguidance.LLTokenizer(json.dumps(plain), n_vocab=vocab_size, eos_token=sorted(eos_ids))
        except Exception as fault:
            raise GrammarError(f"llguidance cannot use this tokenizer: {fault}") from fault
        self._vocab_size = vocab_size
        self._limits = llguidance.LLParserLimits(**LIMITS)
        self._workers = ThreadPoolExecutor(workers, thread_name_prefix="redline-grammar")
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Future[llguidance.LLMatcher]] = OrderedDict()

    def compile(self, wanted: Wanted, timeout_s: float = COMPILE_S) -> Callable[[], TokenMatcher]:
        """A maker of fresh matchers. Raises `GrammarError` with llguidance's message, or when it takes too long."""
        text = grammar_text(wanted.kind, wanted.value)
        if len(text) > MOST_TEXT:
            raise GrammarError(f"the {wanted.kind} has {len(text)} characters, at most {MOST_TEXT}")
        with self._lock:
            compiled = self._kept.get(text)
            if compiled is None:
                compiled = self._kept[text] = self._workers.submit(self._compiled, text)
            self._kept.move_to_end(text)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        try:
            state = compiled.result(timeout_s)
        except Late:
            raise GrammarError(f"the {wanted.kind} did not compile within {timeout_s:g} s") from None
        return lambda: TokenMatcher(state.deep_copy(), self._vocab_size)

    def _compiled(self, text: str) -> llguidance.LLMatcher:
        state = llguidance.LLMatcher(self._tokenizer, text, log_level=0, limits=self._limits)
        if not state.is_error():
            # The first mask finds what later ones share, and what is too big shows here and not within a step.
            state.compute_bitmask()
        if state.is_error():
            raise GrammarError(str(state.get_error()).removesuffix("<non-verbose/>").strip())
        return state


def grammar_text(kind: str, value: Any) -> str:
    """What llguidance compiles, and the key under which it is kept. Raises `GrammarError`."""
    if kind == "json_object":
        return _json_schema({"type": "object"})
    if kind == "json_schema":
        return _json_schema(_parsed(value))
    if kind == "choice":
        choices = list(value) if isinstance(value, list | tuple) else []
        if not choices or not all(isinstance(choice, str) and choice for choice in choices):
            raise GrammarError("choices are a list of texts, none of them empty")
        return _lark("start: " + " | ".join(json.dumps(choice) for choice in choices))
    if kind not in ("regex", "grammar"):
        raise GrammarError(f"no such kind of grammar: {kind}")
    if not isinstance(value, str) or not value:
        raise GrammarError(f"a {kind} is a text that is not empty")
    return str(llguidance.LLMatcher.grammar_from_regex(value)) if kind == "regex" else _lark(value)


def _lark(text: str) -> str:
    return str(llguidance.LLMatcher.grammar_from_lark(text))


def _json_schema(schema: Any) -> str:
    try:
        # Overrides: a schema may not loosen what was decided here.
        return str(llguidance.LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=JSON_OPTIONS))
    except (ValueError, RecursionError) as fault:
        raise GrammarError(f"the schema cannot be used: {fault}") from fault


def _parsed(schema: Any) -> Any:
    """A schema as an object; llguidance would take whatever text it is given as part of its own input."""
    if isinstance(schema, str):
        try:
            schema = json.loads(schema)
        except (ValueError, RecursionError) as fault:
            raise GrammarError(f"the schema is not JSON: {fault}") from fault
    if not isinstance(schema, dict | bool):
        raise GrammarError("a schema is an object")
    return schema
