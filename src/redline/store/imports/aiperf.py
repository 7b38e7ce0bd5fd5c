"""AIPerf's `profile_export_aiperf.json` (the summary) with `profile_export.jsonl` (the requests) beside it."""

from __future__ import annotations

from datetime import datetime
from itertools import accumulate
from pathlib import Path
from typing import Any

from redline.load.record import RequestRecord, Status, TokenSource
from redline.spec.load import LoadPoint
from redline.store.imports.found import Answered, Fields, Imported, number_at, rebased, spread, text_at

SUMMARY, REQUESTS = "profile_export_aiperf.json", "profile_export.jsonl"
_NS_PER_MS = 1_000_000


def matches(document: Any) -> bool:
    return isinstance(document, dict) and "aiperf_version" in document


def matches_line(document: Any) -> bool:
    return isinstance(document, dict) and {"metadata", "metrics"} <= document.keys()


def read(document: Fields, lines: list[Fields]) -> list[Imported]:
    """One load point. `lines` are those of the JSONL file, empty when there is none."""
    records = [_record(i, line) for i, line in enumerate(lines)]
    return [
        Imported(
            tool="aiperf",
            version=text_at(document, "aiperf_version", "(version not in the file)"),
            model=_model(document),
            load=_load(document),
            records=rebased(records),
            duration_s=_duration_s(document),
            summary={key: value for key, value in document.value.items() if key not in ("input_config", "run_info")},
            notes=() if records else (f"without {REQUESTS} beside it there is only the summary",),
        )
    ]


def _record(index: int, line: Fields) -> RequestRecord:
    about, metrics = line["metadata"], line["metrics"]
    sent = about["request_start_ns"].whole()
    error = line.get("error")
    common = {"warmup": text_at(about, "benchmark_phase") == "warmup"}
    if error is not None or about.get("was_cancelled") == Fields(True, about.file, f"{about.place}.was_cancelled"):
        status = Status.CANCELLED if error is None else Status.RESET
        text = text_at(error, "message", error.text()) if error is not None else ""
        return Answered(sent).record(index, status=status, error=text[:600], **common)
    tokens = round(number_at(metrics, "output_sequence_length.value"))
    gaps = metrics.at("inter_chunk_latency.value")
    times = list(
        accumulate(
            (round(gap.number() * _NS_PER_MS) for gap in (gaps.items() if gaps is not None else ())),
            initial=sent + round(metrics["time_to_first_token"]["value"].number() * _NS_PER_MS),
        )
    )
    answered = Answered(sent, times, spread(tokens, len(times)), max(times[-1], about["request_end_ns"].whole()))
    return answered.record(
        index,
        prompt_tokens=round(number_at(metrics, "input_sequence_length.value")),
        output_tokens=tokens,
        token_source=TokenSource.USAGE if metrics.get("usage_completion_tokens") else TokenSource.TOKENIZER,
        **common,
    )


def _duration_s(document: Fields) -> float:
    """Of the profiling phase, which AIPerf's rates are of; 0 when the file does not say."""
    try:
        ends = [datetime.fromisoformat(text_at(document, key)) for key in ("start_time", "end_time")]
    except ValueError:
        return number_at(document, "benchmark_duration.avg")
    return (ends[1] - ends[0]).total_seconds()


def _model(document: Fields) -> str:
    names = document.at("input_config.models.items")
    return text_at(names[0], "name", "unknown") if names is not None and names.value else "unknown"


def _load(document: Fields) -> LoadPoint:
    phases = document.at("input_config.phases")
    for phase in reversed(list(phases.items())) if phases is not None else ():
        rate = number_at(phase, "rate")
        if rate:
            return LoadPoint("poisson" if text_at(phase, "type") == "poisson" else "constant", rate)
        return LoadPoint("closed", number_at(phase, "concurrency") or 1.0)
    return LoadPoint("closed", 1.0)


def beside(path: Path) -> Path | None:
    """The other of the two files, when it is there."""
    other = path.with_name(REQUESTS if path.suffix == ".json" else SUMMARY)
    return other if other.exists() and other != path else None
