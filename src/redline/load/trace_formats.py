"""The formats in which traces are published. Each reader gives (line, row); errors name the file and the line.

mooncake  JSON lines: timestamp (ms), input_length, output_length, hash_ids (one per 512 prompt tokens)
          github.com/kvcache-ai/Mooncake, FAST25-release/traces
burstgpt  CSV: Timestamp (s), Model, Request tokens, Response tokens, Total tokens, Log Type
          github.com/HPMLL/BurstGPT
azure     CSV: TIMESTAMP (date and time), ContextTokens, GeneratedTokens; 2023 and 2024
          github.com/Azure/AzurePublicDataset, AzureLLMInferenceDataset2023.md and …2024.md
otel      OTLP JSON lines of spans with gen_ai.usage.input_tokens and gen_ai.usage.output_tokens
          opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from redline.errors import SpecError
from redline.load.datasets import json_lines
from redline.units import NS_PER_S


@dataclass(frozen=True, slots=True)
class Row:
    """One recorded request. `session` '' is none; `took_s` is how long it took when it was recorded, 0 when unknown.
    `prompt_tokens` of a later `turn` count the whole conversation so far."""

    at_s: float
    prompt_tokens: int
    output_tokens: int
    hash_ids: tuple[int, ...] = ()
    session: str = ""
    took_s: float = 0.0
    turn: int = 0
    think_s: float = 0.0
    request_class: str = ""


Found = list[tuple[int, Row]]


def recognise(data: bytes, path: str) -> str:
    """The format of a file, by its first line that is not empty."""
    first = next((line for line in data.splitlines() if line.strip()), b"").removeprefix(b"\xef\xbb\xbf")
    if first.lstrip().startswith(b"{"):
        if b"resourceSpans" in first or b"startTimeUnixNano" in first:
            return "otel"
        if b"input_length" in first:
            return "mooncake"
    head = {name.strip().strip('"').lower() for name in first.decode("utf-8", "replace").split(",")}
    if {"timestamp", "contexttokens", "generatedtokens"} <= head:
        return "azure"
    if {"timestamp", "request tokens", "response tokens"} <= head:
        return "burstgpt"
    raise SpecError(
        "no known format of traces",
        file=path,
        line=1,
        field="workload.path",
        fix=f"one of {', '.join(READERS)}, or redline:RUN; workload.trace_format says which",
    )


def _mooncake(data: bytes, path: str) -> Found:
    found = []
    for line, row in json_lines(data, path):
        hashes = row.get("hash_ids", [])
        if not isinstance(hashes, list) or not all(isinstance(one, int) for one in hashes):
            raise _wrong("must be a list of whole numbers", path, line, "hash_ids")
        at_ms = _number(row.get("timestamp"), path, line, "timestamp")
        prompt = _whole(row.get("input_length"), path, line, "input_length")
        output = _whole(row.get("output_length"), path, line, "output_length")
        found.append((line, Row(at_ms / 1000, prompt, output, tuple(hashes))))
    return found


def _burstgpt(data: bytes, path: str) -> Found:
    return _columns(data, path, _number, ("Timestamp", "Request tokens", "Response tokens"))


def _azure(data: bytes, path: str) -> Found:
    return _columns(data, path, _moment, ("TIMESTAMP", "ContextTokens", "GeneratedTokens"))


def _columns(
    data: bytes, path: str, seconds: Callable[[Any, str, int, str], float], names: tuple[str, str, str]
) -> Found:
    """A table with these columns: time, read by `seconds`, prompt tokens and output tokens."""
    at, prompt, output = names
    return [
        (
            line,
            Row(
                seconds(row.get(at.lower()), path, line, at),
                _whole(row.get(prompt.lower()), path, line, prompt),
                _whole(row.get(output.lower()), path, line, output),
            ),
        )
        for line, row in _csv_rows(data, path)
    ]


def _otel(data: bytes, path: str) -> Found:
    """Spans that say how many tokens they used; others (tools, databases, …) are none of ours."""
    found = []
    for line, document in json_lines(data, path):
        for span in _spans(document, path, line):
            said = _attributes(span, path, line)
            prompt = said.get("gen_ai.usage.input_tokens", said.get("gen_ai.usage.prompt_tokens"))
            output = said.get("gen_ai.usage.output_tokens", said.get("gen_ai.usage.completion_tokens"))
            if prompt is None or output is None:
                continue
            begin = _number(span.get("startTimeUnixNano"), path, line, "startTimeUnixNano")
            end = _number(span.get("endTimeUnixNano") or begin, path, line, "endTimeUnixNano")
            row = Row(
                begin / NS_PER_S,
                _whole(prompt, path, line, "gen_ai.usage.input_tokens"),
                _whole(output, path, line, "gen_ai.usage.output_tokens"),
                session=str(said.get("gen_ai.conversation.id", "")),
                took_s=max(end - begin, 0) / NS_PER_S,
            )
            found.append((line, row))
    return found


READERS: dict[str, Callable[[bytes, str], Found]] = {
    "mooncake": _mooncake,
    "burstgpt": _burstgpt,
    "azure": _azure,
    "otel": _otel,
}


def _spans(document: dict[str, Any], path: str, line: int) -> Iterator[dict[str, Any]]:
    """Spans of an OTLP document, or the span that the line is."""
    if "startTimeUnixNano" in document:
        yield document
        return
    try:
        for resource in document["resourceSpans"]:
            for scope in resource["scopeSpans"]:
                for span in scope["spans"]:
                    if not isinstance(span, dict):
                        raise TypeError(span)
                    yield span
    except (KeyError, TypeError) as error:
        raise _wrong("no OTLP document of spans", path, line, "resourceSpans") from error


def _attributes(span: dict[str, Any], path: str, line: int) -> dict[str, Any]:
    try:
        return {one["key"]: next(iter(one["value"].values())) for one in span.get("attributes", []) if one["value"]}
    except (KeyError, TypeError, AttributeError) as error:
        raise _wrong("attributes are {key, value: {intValue: …}}", path, line, "attributes") from error


def _csv_rows(data: bytes, path: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows by the lower-case names of the head."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _wrong("not UTF-8", path, data.count(b"\n", 0, error.start) + 1) from error
    reader = csv.reader(io.StringIO(text, newline=""))
    head: list[str] = []
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if not head:
                head = [cell.strip().lower() for cell in cells]
                continue
            if len(cells) < len(head):
                raise _wrong(f"{len(cells)} columns instead of {len(head)}", path, reader.line_num)
            yield reader.line_num, dict(zip(head, (cell.strip() for cell in cells), strict=False))
    except csv.Error as error:
        raise _wrong(f"not CSV: {error}", path, reader.line_num) from error


_FRACTION = re.compile(r"(\.\d{6})\d+")


def _moment(value: Any, path: str, line: int, name: str) -> float:
    """Seconds of `2023-11-16 18:17:03.9799600` or `2024-05-10 00:00:00.009930+00:00`; UTC without an offset."""
    try:
        found = datetime.fromisoformat(_FRACTION.sub(r"\1", str(value)))
    except ValueError as error:
        raise _wrong(f"no date and time: {value!r}", path, line, name) from error
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _number(value: Any, path: str, line: int, name: str) -> float:
    try:
        found = float("" if isinstance(value, bool) else value)
    except (TypeError, ValueError) as error:
        raise _wrong(f"wants a number, found {value!r}", path, line, name) from error
    if not 0 <= found < 1e20:
        raise _wrong(f"wants a number that is not below 0, found {value!r}", path, line, name)
    return found


def _whole(value: Any, path: str, line: int, name: str) -> int:
    found = _number(value, path, line, name)
    if found != int(found) or found > 2**53:
        raise _wrong(f"wants a whole number, found {value!r}", path, line, name)
    return int(found)


def _wrong(what: str, path: str, line: int, name: str = "") -> SpecError:
    return SpecError(what, file=path, line=line, field=name)
