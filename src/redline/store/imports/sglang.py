"""`python -m sglang.bench_serving --output-file F --output-details`: one JSON object per line, one line per run."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

from redline.load.record import RequestRecord, Status, TokenSource
from redline.spec.load import LoadPoint
from redline.store.imports.found import ORIGIN_NS, RATES, Answered, Fields, Imported, number_at, spread, text_at

_DETAILS = ("input_lens", "output_lens", "ttfts", "itls", "generated_texts", "errors", "cached_tokens")
_MISSING = (*RATES, "e2e_ms")


def matches(document: Any) -> bool:
    return (
        isinstance(document, dict) and {"backend", "mean_tpot_ms", "total_output_tokens_retokenized"} <= document.keys()
    )


def read(document: Fields) -> list[Imported]:
    """One load point. The file never says when a request was sent, only how long its parts took."""
    detailed = document.get("ttfts") is not None
    count = len(list(document["ttfts"].items())) if detailed else 0
    note = "the file does not say when requests were sent or when streams ended: no rates, no end-to-end latency"
    return [
        Imported(
            tool="sglang",
            version=text_at(document, "server_info.version", "(version not in the file)"),
            model=text_at(document, "server_info.model_path", "unknown"),
            load=_load(document),
            records=[_record(document, i) for i in range(count)],
            summary={key: value for key, value in document.value.items() if key not in _DETAILS},
            duration_s=number_at(document, "duration"),
            missing=_MISSING if detailed else (),
            notes=(note if detailed else "written without --output-details: only the summary is in the file",),
        )
    ]


def _record(document: Fields, i: int) -> RequestRecord:
    tokens, error = document["output_lens"][i].whole(), document["errors"][i].text()
    prompt = document["input_lens"][i].whole()
    if error or not tokens:
        status = Status.RESET if error else Status.EMPTY
        return Answered(ORIGIN_NS).record(i, status=status, error=error[:600], prompt_tokens=prompt)
    gaps = [gap.ns() for gap in document["itls"][i].items()]
    times = list(accumulate(gaps, initial=ORIGIN_NS + document["ttfts"][i].ns()))
    answered = Answered(ORIGIN_NS, times, spread(tokens, len(times)))
    return answered.record(i, prompt_tokens=prompt, output_tokens=tokens, token_source=TokenSource.USAGE)


def _load(document: Fields) -> LoadPoint:
    rate = document.get("request_rate")
    if rate is not None and isinstance(rate.value, (int, float)) and rate.value < float("inf"):
        return LoadPoint("poisson", float(rate.value))
    return LoadPoint("closed", number_at(document, "max_concurrency") or number_at(document, "completed", 1) or 1)
