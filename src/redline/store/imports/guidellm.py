"""GuideLLM's `benchmarks.json` or `.yaml`: one load point per benchmark."""

from __future__ import annotations

from typing import Any

from redline.load.record import RequestRecord, Status, TokenSource
from redline.spec.load import LoadPoint
from redline.store.imports.found import Answered, Fields, Imported, number_at, rebased, text_at

_STATUS = {"successful": Status.OK, "errored": Status.RESET, "incomplete": Status.CANCELLED}


def matches(document: Any) -> bool:
    return isinstance(document, dict) and isinstance(document.get("benchmarks"), list) and "metadata" in document


def read(document: Fields) -> list[Imported]:
    """Each benchmark of the file."""
    version = text_at(document, "metadata.guidellm_version", "(version not in the file)")
    model = text_at(document, "config.spec.backend.model", "unknown")
    return [_benchmark(one, version, model) for one in document["benchmarks"].items()]


def _benchmark(found: Fields, version: str, model: str) -> Imported:
    requests = found.get("requests")
    records: list[RequestRecord] = []
    for name, status in _STATUS.items():
        listed = requests.get(name) if requests is not None else None
        for one in listed.items() if listed is not None else ():
            records.append(_record(len(records), one, status))
    note = "the file holds the first and the last token of each answer, none between: no inter-token percentiles"
    return Imported(
        tool="guidellm",
        version=version,
        model=model,
        load=_load(found),
        records=rebased(records),
        summary=found["metrics"].value,
        duration_s=number_at(found, "duration"),
        missing=("itl_ms",) if records else (),
        notes=(note if records else "the file holds no requests: only the summary",),
    )


def _record(index: int, found: Fields, status: Status) -> RequestRecord:
    times = found["info"]["timings"]
    sent = times.get("request_start") or times["resolve_start"]
    first, last, end = (times.get(n) for n in ("first_token_iteration", "last_token_iteration", "request_end"))
    tokens = round(number_at(found, "output_metrics.total_tokens"))
    counted = TokenSource.USAGE if tokens else TokenSource.CHUNKS
    tokens = tokens or round(number_at(times, "token_iterations"))
    target = times.get("targeted_start")
    chunks = [first.ns(), last.ns()] if first is not None and last is not None and tokens > 1 else []
    if first is not None and tokens == 1:
        chunks = [first.ns()]
    answered = Answered(
        sent.ns(),
        chunks,
        [1, tokens - 1][: len(chunks)],
        end.ns() if end is not None else 0,
        # a closed loop's target lies before the slot was free: only the send means anything there
        target.ns() if target is not None else 0,
    )
    return answered.record(
        index,
        status=Status.EMPTY if status is Status.OK and not chunks else status,
        error=text_at(found, "info.error"),
        prompt_tokens=round(number_at(found, "input_metrics.total_tokens")),
        cached_tokens=round(number_at(found, "input_metrics.cached_tokens")),
        output_tokens=tokens if chunks else 0,
        token_source=counted,
    )


def _load(found: Fields) -> LoadPoint:
    kind = text_at(found, "config.strategy.type_")
    if kind in ("poisson", "constant", "async"):
        rate = number_at(found, "config.strategy.rate") or 1.0
        return LoadPoint("poisson" if kind == "poisson" else "constant", rate)
    if kind == "synchronous":
        return LoadPoint("closed", 1.0)
    clients = number_at(found, "config.strategy.streams") or number_at(found, "config.strategy.max_concurrency")
    # `throughput` without a limit sends everything at once: not the one client of `synchronous` in the same sweep
    return LoadPoint("closed", clients or number_at(found, "metrics.request_totals.total") or 1.0)
