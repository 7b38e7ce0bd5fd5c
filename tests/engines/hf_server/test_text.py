from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redline.engines.hf_server.text import LONGEST_HOLD, Detokenizer, StopStrings


def decode_bytes(ids: Sequence[int]) -> str:
    """One token per byte: the hardest case."""
    return bytes(ids).decode("utf-8", "replace")


@given(st.text(max_size=60), st.text(max_size=8))
def test_bytes_add_up_to_the_text(text: str, prompt: str) -> None:
    detokenizer = Detokenizer(decode_bytes, list(prompt.encode("utf-8", "replace")))
    pieces = [detokenizer.add(byte) for byte in text.encode("utf-8", "replace")]
    assert "".join(pieces) + detokenizer.rest() == text.encode("utf-8", "replace").decode()
    assert not any("\ufffd" in piece for piece in pieces) or "\ufffd" in text


def test_a_character_comes_whole() -> None:
    detokenizer = Detokenizer(decode_bytes, [])
    assert [detokenizer.add(byte) for byte in "a🙂b".encode()] == ["a", "", "", "", "🙂", "b"]


def test_what_never_mends_is_shown_in_the_end() -> None:
    detokenizer = Detokenizer(decode_bytes, [])
    shown = "".join(detokenizer.add(0xFF) for _ in range(100)) + detokenizer.rest()
    assert shown == "\ufffd" * 100


def test_the_window_stays_small() -> None:
    longest = 0

    def decode(ids: Sequence[int]) -> str:
        nonlocal longest
        longest = max(longest, len(ids))
        return decode_bytes(ids)

    detokenizer = Detokenizer(decode, list(b"prompt" * 50))
    for byte in ("né🙂" * 200).encode():
        detokenizer.add(byte)
    for _ in range(500):
        detokenizer.add(0x80)
    assert longest <= 6 * LONGEST_HOLD


@settings(max_examples=50)
@given(data=st.data())
def test_against_the_whole_decode(tiny: Path, data: st.DataObject) -> None:
    tokenizer = _tokenizer(tiny)
    text = data.draw(st.text(max_size=40))
    ids = tokenizer.encode(text, add_special_tokens=False)

    def decode(some: Sequence[int]) -> str:
        return str(tokenizer.decode(list(some), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    detokenizer = Detokenizer(decode, tokenizer.encode("the prompt"))
    assert "".join(map(detokenizer.add, ids)) + detokenizer.rest() == decode(ids)


_cache: dict[Path, Any] = {}


def _tokenizer(folder: Path) -> Any:
    import importlib

    if folder not in _cache:
        transformers: Any = importlib.import_module("transformers")
        _cache[folder] = transformers.AutoTokenizer.from_pretrained(folder)
    return _cache[folder]


words = st.text("ab", min_size=1, max_size=4)


@given(st.lists(st.text("ab", max_size=3)), st.lists(words, min_size=1, max_size=3))
def test_stop_strings_against_find(pieces: list[str], stops: list[str]) -> None:
    matcher, shown, found = StopStrings(stops), "", ""
    for piece in pieces:
        more, found = matcher.add(piece)
        shown += more
        if found:
            break
    shown += matcher.rest()
    # The first place where any stop string is complete within what has been said so far.
    said, expected = "", None
    for piece in pieces:
        said += piece
        at = [said.find(stop) for stop in stops if stop in said]
        if at:
            expected = said[: min(at)]
            break
    assert bool(found) == (expected is not None)
    assert shown == ("".join(pieces) if expected is None else expected)


def test_the_beginning_of_a_stop_string_is_held_back() -> None:
    matcher = StopStrings(["STOP"])
    assert matcher.add("say ST") == ("say ", "")
    assert matcher.add("Oops") == ("STOops", "")
    assert matcher.add("S") == ("", "")
    assert matcher.rest() == "S"


@pytest.mark.parametrize("text", ["", "x"])
def test_without_stop_strings_nothing_is_held(text: str) -> None:
    assert StopStrings([]).add(text) == (text, "")
