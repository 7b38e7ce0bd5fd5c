"""inference-perf's `per_request_lifecycle_metrics.json` with `summary_lifecycle_metrics.json` beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from redline.load.record import RequestRecord, Status, TokenSource
from redline.spec.load import LoadPoint
from redline.store.imports.found import Answered, Fields, Imported, number_at, rebased, spread, text_at

SUMMARY, REQUESTS = "summary_lifecycle_metrics.json", "per_request_lifecycle_metrics.json"


def matches(document: Any) -> bool:
    return isinstance(document, dict) and {"load_summary", "successes"} <= document.keys()


def matches_requests(document: Any) -> bool:
    return isinstance(document, list) and bool(document) and isinstance(document[0], dict) and "info" in document[0]


def read(document: Fields, requests: Fields | None) -> list[Imported]:
    """One load point, over all stages of the run."""
    records = [_record(i, one) for i, one in enumerate(requests.items())] if requests is not None else []
    rate = number_at(document, "successes.throughput.requests_per_sec", 1.0) or 1.0
    return [
        Imported(
            tool="inference-perf",
            version="(version not in the file)",
            model="unknown",
            load=LoadPoint("constant", round(rate, 3)),
            records=rebased(records),
            summary=document.value,
            notes=(
                "the files do not say which load was asked for: the rate shown is the one that was achieved",
                *(() if records else (f"without {REQUESTS} beside it there is only the summary",)),
            ),
        )
    ]


def _record(index: int, found: Fields) -> RequestRecord:
    sent, end = found["start_time"].ns(), found["end_time"].ns()
    error = found.get("error")
    if error is not None:
        return Answered(sent, finished_ns=end).record(
            index, status=Status.RESET, error=text_at(error, "error_msg", error.text())[:600]
        )
    answer = found["info"]["response_metrics"]
    listed = answer.get("chunk_times") or answer.get("output_token_times")
    times = [at.ns() for at in listed.items()] if listed is not None else []
    usage = answer.at("server_usage.completion_tokens")
    tokens = usage.whole() if usage is not None else answer["output_tokens"].whole()
    answered = Answered(sent, times, spread(tokens, len(times)), end)
    return answered.record(
        index,
        prompt_tokens=round(number_at(found, "info.request_metrics.text.input_tokens")),
        output_tokens=tokens,
        token_source=TokenSource.TOKENIZER if usage is None else TokenSource.USAGE,
    )


def beside(path: Path) -> Path | None:
    """The other of the two files, when it is there."""
    other = path.with_name(SUMMARY if path.name == REQUESTS else REQUESTS)
    return other if other.exists() and other != path else None
