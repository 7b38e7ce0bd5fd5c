"""`vllm bench serve --save-result [--save-detailed]`."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

from redline.load.record import RequestRecord, Status, TokenSource
from redline.spec.load import LoadPoint
from redline.store.imports.found import RATES, Answered, Fields, Imported, number_at, rebased, spread, text_at
from redline.units import NS_PER_S

_DETAILS = ("input_lens", "output_lens", "ttfts", "itls", "start_times", "generated_texts", "errors", "latencies")


def matches(document: Any) -> bool:
    return isinstance(document, dict) and {"mean_tpot_ms", "num_prompts", "endpoint_type"} <= document.keys()


def read(document: Fields) -> list[Imported]:
    """One load point. Without --save-detailed there are no requests in it."""
    detailed = document.get("ttfts") is not None and document.get("itls") is not None
    notes: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    records: list[RequestRecord] = []
    if not detailed:
        notes = ("written without --save-detailed: only the summary is in the file",)
    elif document.get("start_times") is None:
        notes, missing = ("the file has no start times: rates cannot be had from it",), RATES
    closing = _closing(document) if detailed else 0
    if detailed:
        records = rebased([_record(document, i, closing) for i in range(len(list(document["ttfts"].items())))])
    summary = {key: value for key, value in document.value.items() if key not in _DETAILS and key != "queue_times"}
    return [
        Imported(
            tool="vllm",
            version=text_at(document, "vllm_version", "(version not in the file)"),
            model=text_at(document, "model_id", "unknown"),
            load=_load(document),
            records=records,
            summary=summary,
            duration_s=number_at(document, "duration"),
            missing=missing,
            notes=notes,
            closing_events=closing,
        )
    ]


def _closing(document: Fields) -> int:
    """1 when every answer has an event more than tokens, which then is the one with the finish reason."""
    lengths = zip(document["itls"].items(), document["output_lens"].items(), strict=False)
    over = [len(list(gaps.items())) + 1 - tokens.whole() for gaps, tokens in lengths if tokens.whole() > 0]
    return 1 if over and min(over) == max(over) == 1 else 0


def _record(document: Fields, i: int, closing: int) -> RequestRecord:
    """`closing` of its events, the last ones, carried no token."""
    starts, errors = document.get("start_times"), document.get("errors")
    sent = starts[i].ns() if starts is not None else NS_PER_S
    tokens = document["output_lens"][i].whole()
    error = errors[i].text() if errors is not None and errors.get(i) is not None else ""
    prompt = document["input_lens"][i].whole()
    if error or not tokens:
        status = Status.RESET if error else Status.EMPTY
        return Answered(sent).record(i, status=status, error=error[:600], prompt_tokens=prompt)
    gaps = [gap.ns() for gap in document["itls"][i].items()]
    times = list(accumulate(gaps, initial=sent + document["ttfts"][i].ns()))
    times = times[: len(times) - closing]
    answered = Answered(sent, times, spread(tokens, len(times)))
    return answered.record(
        i, prompt_tokens=prompt, output_tokens=tokens, token_source=TokenSource.USAGE, finish_reason="length"
    )


def _load(document: Fields) -> LoadPoint:
    rate = document.get("request_rate")
    if rate is not None and isinstance(rate.value, (int, float)) and rate.value < float("inf"):
        return LoadPoint("poisson", float(rate.value))
    clients = number_at(document, "max_concurrency") or number_at(document, "num_prompts", 1)
    return LoadPoint("closed", clients)
