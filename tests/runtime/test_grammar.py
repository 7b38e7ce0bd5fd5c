from __future__ import annotations

import json
import random
import re
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from redline.runtime import grammar
from redline.runtime.grammar import GrammarError, GrammarFault, Grammars, TokenMatcher, grammar_text
from redline.runtime.request import Sampling
from redline.runtime.sampler import Row, sample, verify

tokenizers = pytest.importorskip("tokenizers")
FOLDER = Path(grammar.__file__).parents[1] / "recipes/models/redline-tiny"
JSON = (FOLDER / "tokenizer.json").read_text()
TOKENIZER = tokenizers.Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
VOCAB, EOS = 4096, 1
GRAMMARS = Grammars(JSON, VOCAB, [EOS])


@dataclass(frozen=True)
class Asked:
    kind: str
    value: Any = None


def encode(text: str) -> list[int]:
    ids: list[int] = TOKENIZER.encode(text, add_special_tokens=False).ids
    return ids


def decode(tokens: list[int]) -> str:
    return str(TOKENIZER.decode(tokens, skip_special_tokens=True))


def matcher(kind: str, value: Any = None) -> TokenMatcher:
    return GRAMMARS.compile(Asked(kind, value))()


def mask(state: TokenMatcher, vocab: int = VOCAB) -> np.ndarray:
    words = np.zeros((vocab + 31) // 32, dtype=np.uint32)
    state.fill(words.data)
    return np.unpackbits(words.view(np.uint8), bitorder="little").nonzero()[0]


PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "b", "long one"]}, "maxItems": 3},
        "ok": {"type": "boolean"},
    },
    "required": ["name", "age", "tags", "ok"],
    "additionalProperties": False,
}
PATTERN = r"[A-Z][a-z]{2,8}-[0-9]{1,4}(é|ß)?"
CHOICES = ["yes", "no", 'per"haps', "new\nline", "ähm \\ /"]
LARK = 'start: sum\nsum: NUMBER (" + " NUMBER){0,3}\nNUMBER: /[1-9][0-9]{0,2}/'


def is_person(text: str) -> bool:
    found = json.loads(text)
    return (
        set(found) == set(PERSON["properties"])  # type: ignore[call-overload]
        and len(found["name"]) <= 12
        and 0 <= found["age"] <= 150
        and len(found["tags"]) <= 3
        and set(found["tags"]) <= {"a", "b", "long one"}
        and isinstance(found["ok"], bool)
    )


CASES: list[tuple[str, Any, Any]] = [
    ("json_schema", PERSON, is_person),
    ("json_schema", json.dumps(PERSON), is_person),
    ("json_object", None, lambda text: isinstance(json.loads(text), dict)),
    ("regex", PATTERN, lambda text: re.fullmatch(PATTERN, text)),
    ("choice", CHOICES, lambda text: text in CHOICES),
    ("grammar", LARK, lambda text: re.fullmatch(r"[1-9]\d{0,2}( \+ [1-9]\d{0,2}){0,3}", text)),
]


@pytest.mark.parametrize(("kind", "value", "fits"), CASES)
def test_whatever_is_drawn_under_the_mask_fits(kind: str, value: Any, fits: Any) -> None:
    ended = 0
    for seed in range(25):
        state, tokens = matcher(kind, value), list[int]()
        row = Row(Sampling(temperature=1.5, seed=seed), tokens, 0, state)
        # Endings a little likelier than the uniform walk has them, or a text of arbitrary length would not end.
        logits = torch.zeros(1, VOCAB)
        logits[0, [EOS, *encode('"'), *encode("}"), *encode('"}')]] = 4
        while len(tokens) < 200:
            (drawn,) = sample(logits, [row])
            assert not drawn.fault
            if drawn.token == EOS:
                break
            state.advance(drawn.token)
            tokens.append(drawn.token)
            if state.finished():
                break
        else:
            continue
        ended += 1
        assert fits(decode(tokens)), decode(tokens)
    assert ended > 15


@settings(max_examples=40, deadline=None)
@given(st.randoms(use_true_random=False), st.sampled_from(CASES))
def test_rolling_back_is_as_if_nothing_had_been(rnd: random.Random, case: tuple[str, Any, Any]) -> None:
    kind, value, _ = case
    state, taken = matcher(kind, value), list[int]()
    for _ in range(25):
        fresh = matcher(kind, value)
        for token in taken:
            fresh.advance(token)
        options = mask(state)
        assert options.tolist() == mask(fresh).tolist()
        if state.finished():
            break
        ahead = [int(rnd.choice(options))]
        state.advance(ahead[0])
        for _ in range(rnd.randint(0, 3)):
            if ahead[-1] == EOS or state.finished():
                break
            ahead.append(int(rnd.choice(mask(state))))
            assert state.allowed([ahead[-1]]) == 1
            state.advance(ahead[-1])
        kept = rnd.randint(0, len(ahead) - (ahead[-1] == EOS))
        state.rollback(len(ahead) - kept)
        taken += ahead[:kept]


def test_allowed_counts_and_changes_nothing() -> None:
    state = matcher("regex", "[ab]{3}c")
    before = mask(state).tolist()
    good, bad = encode("abac"), encode("abz")
    assert state.allowed(good) == len(good)
    assert state.allowed([*good, EOS]) == len(good) + 1
    assert state.allowed(bad) < len(bad)
    assert mask(state).tolist() == before


def test_verify_leaves_the_matcher_where_it_was_and_takes_what_fits() -> None:
    state = matcher("choice", ["the answer is yes", "the answer is no"])
    tokens = encode("the answer is maybe")
    fits = state.allowed(tokens)
    assert 0 < fits < len(tokens)
    before = mask(state).tolist()
    logits = torch.full((len(tokens) + 1, VOCAB), 0.0)
    logits[range(len(tokens)), tokens] = 9
    drawn = verify(logits, Row(Sampling(temperature=0), [], 0, state), tokens)
    assert [one.token for one in drawn[:-1]] == tokens[:fits]
    assert len(drawn) == fits + 1
    assert drawn[-1].token != tokens[fits]
    assert mask(state).tolist() == before


def test_matchers_of_one_grammar_are_independent() -> None:
    make = GRAMMARS.compile(Asked("regex", "[ab]{3}c"))
    one, other = make(), make()
    one.advance(encode("a")[0])
    assert one.allowed(encode("bac")) == len(encode("bac"))
    assert other.allowed(encode("bac")) < len(encode("bac"))
    with pytest.raises(GrammarFault):
        one.advance(encode("z")[0])
    assert one.error
    assert mask(one).size == 0
    assert not other.error
    assert mask(other).size


def test_a_matcher_that_hit_a_limit_fails_its_row_only() -> None:
    broken = matcher("regex", "a+")
    with pytest.raises(GrammarFault):
        broken.advance(encode("z")[0])
    rows = [Row(Sampling(temperature=0), [], 0, broken), Row(Sampling(temperature=0), [], 0, matcher("regex", "b"))]
    drawn = sample(torch.zeros(2, VOCAB), rows)
    assert [one.fault for one in drawn] == ["grammar", ""]
    assert decode([drawn[1].token]) == "b"


def test_the_end_is_allowed_only_where_the_answer_may_end() -> None:
    state = matcher("regex", "ab?")
    assert EOS not in mask(state)
    state.advance(encode("a")[0])
    assert EOS in mask(state)
    assert not state.finished()
    state.advance(encode("b")[0])
    assert state.finished()
    assert mask(state).tolist() == [EOS]


@pytest.mark.parametrize("vocab", [4096 + 17, 4096 + 64])
def test_a_model_with_more_entries_than_the_tokenizer(vocab: int) -> None:
    state = Grammars(JSON, vocab, [EOS]).compile(Asked("regex", "[ab]"))()
    assert mask(state, vocab).tolist() == mask(matcher("regex", "[ab]")).tolist()
    assert mask(matcher("regex", "[ab]"), vocab).tolist() == mask(state, vocab).tolist()


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        ("json_schema", {"type": "objct"}, "objct"),
        ("json_schema", '{"type":', "not JSON"),
        ("json_schema", '{}}], "x": [{', "not JSON"),
        ("json_schema", [1], "object"),
        ("json_schema", {"$ref": "#/nope"}, "nope"),
        ("json_schema", {"type": "string", "pattern": "(a"}, "unclosed"),
        ("json_schema", {"type": "string", "format": "nope"}, "nope"),
        ("regex", "(a", "unclosed"),
        ("regex", "", "not empty"),
        ("regex", 7, "text"),
        ("choice", [], "texts"),
        ("choice", ["a", ""], "texts"),
        ("grammar", 'start: "a" x', "unknown name"),
        ("nonsense", "a", "nonsense"),
    ],
)
def test_what_cannot_compile_is_refused_with_a_reason(kind: str, value: Any, message: str) -> None:
    with pytest.raises(GrammarError, match=message):
        GRAMMARS.compile(Asked(kind, value))


def nested(depth: int) -> Any:
    schema: Any = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema, "b": schema}, "required": ["a", "b"]}
    return schema


HOSTILE = {
    "two to the power of": ("json_schema", nested(15)),
    "deep": ("json_schema", json.dumps(1).join(['{"items":' * 5000, "}" * 5000])),
    "long": ("regex", "a" * 300_000),
    "many": ("json_schema", {"enum": [f"value {i}" for i in range(40_000)]}),
    "state explosion": ("regex", "(.*a.{30}b.{30}){50}"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_grammars_are_refused_or_stay_cheap(name: str) -> None:
    kind, value = HOSTILE[name]
    try:
        state = matcher(kind, value)
    except GrammarError:
        return
    # A thread's own time: others on the box do not count.
    for _ in range(50):
        started = time.thread_time()
        options = mask(state)
        if not options.size or state.finished():
            break
        assert time.thread_time() - started < 1
        state.advance(int(options[len(options) // 2]))


def test_a_compilation_that_takes_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    let_go = threading.Event()
    slow = Grammars(JSON, VOCAB, [EOS], workers=1)
    compiled = slow._compiled
    monkeypatch.setattr(slow, "_compiled", lambda text: let_go.wait(30) and compiled(text))
    with pytest.raises(GrammarError, match=r"within 0\.01 s"):
        slow.compile(Asked("regex", "abc"), timeout_s=0.01)
    let_go.set()
    assert mask(slow.compile(Asked("regex", "abc"))()).size


def test_compiled_grammars_are_kept_by_their_text_up_to_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammar, "KEPT", 2)
    counting, texts = Grammars(JSON, VOCAB, [EOS]), list[str]()
    compiled = counting._compiled

    def counted(text: str) -> Any:
        texts.append(text)
        return compiled(text)

    monkeypatch.setattr(counting, "_compiled", counted)
    for pattern in ("a", "b", "a", "c", "a", "b"):
        counting.compile(Asked("regex", pattern))
    assert texts == [grammar_text("regex", pattern) for pattern in ("a", "b", "c", "b")]


def test_a_tokenizer_that_is_none_is_refused() -> None:
    for text in ("gpt2", "{}", '{"model": {"type": "?"}}'):
        with pytest.raises(GrammarError):
            Grammars(text, VOCAB, [EOS])
