"""Prompts out of files: plain text, JSON lines, ShareGPT. Errors name the file, the line and the field."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from redline.errors import SpecError


@dataclass(frozen=True, slots=True)
class Item:
    """One prompt of a file. `output_tokens` 0: not said; `answer` is the recorded answer, whose length may say it."""

    messages: tuple[dict[str, Any], ...]
    output_tokens: int = 0
    answer: str = ""
    line: int = 0

    @property
    def text(self) -> str:
        return "\n".join(str(message["content"]) for message in self.messages)


def read_items(kind: str, path: Path) -> list[Item]:
    """Every prompt of the file. SpecError when it cannot be used."""
    readers: dict[str, Callable[[Path, bytes], list[Item]]] = {
        "text": _text,
        "jsonl": _jsonl,
        "sharegpt": _sharegpt,
    }
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SpecError(
            f"cannot read {path}: {error.strerror}", field="workload.path", fix="path: an existing, readable file"
        ) from error
    items = readers[kind](path, data)
    if not items:
        raise SpecError("holds no prompt", file=str(path), field="workload.path")
    return items


def _user(text: str) -> tuple[dict[str, Any], ...]:
    return ({"role": "user", "content": text},)


def _text(path: Path, data: bytes) -> list[Item]:
    """One prompt a line; blank lines do not count."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SpecError("not UTF-8", file=str(path), line=line, fix="convert it, e.g. with iconv") from error
    lines = (line.decode("utf-8") for line in data.splitlines())  # text's own splitlines knows too many ends of lines
    return [Item(_user(line), line=i) for i, line in enumerate(lines, 1) if line.strip()]


def _jsonl(path: Path, data: bytes) -> list[Item]:
    return [item_of(path, number, row) for number, row in json_lines(data, path)]


def json_lines(data: bytes, path: Path | str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number of the line, object in it); blank lines do not count. SpecError for a line that holds none."""
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise SpecError(f"not JSON: {error}", file=str(path), line=number) from error
        if not isinstance(row, dict):
            raise SpecError("not a JSON object", file=str(path), line=number)
        yield number, row


def item_of(path: Path | str, number: int, row: Any) -> Item:
    """A prompt from a row with `prompt` or `messages`. SpecError for one that is neither."""

    def wrong(what: str, name: str = "", fix: str = "") -> SpecError:
        return SpecError(what, file=str(path), line=number, field=name, fix=fix)

    if not isinstance(row, dict):
        raise wrong("not a JSON object")
    prompt, messages = row.get("prompt"), row.get("messages")
    if (prompt is None) == (messages is None):
        raise wrong("needs either prompt or messages", fix='{"prompt": "…"} or {"messages": [{"role": "user", …}]}')
    if prompt is not None and not (isinstance(prompt, str) and prompt):
        raise wrong("must be text that is not empty", "prompt")
    if messages is not None:
        if not isinstance(messages, list) or not messages:
            raise wrong("must be a list of messages", "messages")
        for message in messages:
            if not isinstance(message, dict) or not isinstance(message.get("role"), str) or "content" not in message:
                raise wrong("each message needs role and content", "messages")
    output = row.get("output_tokens", 0)
    if not isinstance(output, int) or isinstance(output, bool) or output < 0:
        raise wrong("must be a whole number of tokens", "output_tokens")
    return Item(tuple(messages) if messages else _user(str(prompt)), output, line=number)


def _sharegpt(path: Path, data: bytes) -> list[Item]:
    """First human turn as prompt, the answer after it for the length. Conversations without both are left out."""
    try:
        rows = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        line = data.count(b"\n", 0, error.pos) + 1
        raise SpecError(f"not JSON: {error}", file=str(path), line=line, fix="kind: jsonl reads JSON lines") from error
    if not isinstance(rows, list):
        raise SpecError("not a JSON list of conversations", file=str(path), line=1)
    items = []
    for number, row in enumerate(rows, 1):
        turns = (row.get("conversations") or row.get("conversation")) if isinstance(row, dict) else None
        if not isinstance(turns, list):
            raise SpecError(f"entry {number} has no list of conversations", file=str(path), field="conversations")
        item = first_exchange(turns, number)
        if item is not None:
            items.append(item)
    return items


def first_exchange(turns: list[Any], number: int) -> Item | None:
    """The first question of a conversation, with the answer that it got; None when it has none."""
    said = [
        (turn.get("from") or turn.get("role"), turn.get("value") or turn.get("content"))
        for turn in turns
        if isinstance(turn, dict)
    ]
    while said and said[0][0] not in ("human", "user"):
        said.pop(0)
    if len(said) < 2 or not isinstance(said[0][1], str) or not isinstance(said[1][1], str) or not said[0][1].strip():
        return None
    return Item(_user(said[0][1]), answer=said[1][1], line=number)


Round = tuple[tuple[dict[str, Any], ...], int]
"""What is said before an answer, and how many words the recorded answer has (0: it has none)."""


def read_rounds(kind: str, path: Path) -> list[list[Round]]:
    """Every conversation of a jsonl or sharegpt file, turn by turn. SpecError when the file cannot be used."""
    if kind == "jsonl":
        found = [rounds_of(list(item.messages)) for item in read_items(kind, path)]
    else:
        rows = orjson.loads(path.read_bytes()) if read_items(kind, path) else []
        found = [rounds_of(_as_messages(row.get("conversations") or row.get("conversation"))) for row in rows]
    return [rounds for rounds in found if rounds]


def rounds_of(messages: list[dict[str, Any]]) -> list[Round]:
    """Messages cut where an answer stands; what follows the last user turn is of no use."""
    rounds: list[Round] = []
    said: list[dict[str, Any]] = []
    for message in messages:
        if message["role"] != "assistant":
            said.append(message)
        elif any(one["role"] == "user" for one in said):
            rounds.append((tuple(said), len(str(message["content"]).split())))
            said = []
    if any(one["role"] == "user" for one in said):
        rounds.append((tuple(said), 0))
    return rounds


def _as_messages(turns: list[Any]) -> list[dict[str, Any]]:
    """ShareGPT's names for who speaks, in OpenAI's; turns of anybody else, and empty ones, are left out."""
    roles = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
    said = [
        (roles.get(str(turn.get("from") or turn.get("role"))), turn.get("value") or turn.get("content"))
        for turn in turns
        if isinstance(turn, dict)
    ]
    return [{"role": role, "content": text} for role, text in said if role and isinstance(text, str) and text.strip()]
