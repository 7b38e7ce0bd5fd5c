"""Names, units and definitions of every metric, versioned: a definition that changes gets a new number.

The same noun is used in the flag, the field, the column and the report heading.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Definition:
    """`id` is what output carries, e.g. `ttft_ms/intended@1`."""

    id: str
    unit: str
    text: str
    better: str = ""  # "lower", "higher" or "" when neither is


_ALL = [
    Definition("ttft_ms/intended@1", "ms", "first chunk with content (reasoning included) − intended start", "lower"),
    Definition(
        "ttft_ms/sent@1",
        "ms",
        "first chunk with content (reasoning included) − request's last byte handed to the kernel",
        "lower",
    ),
    Definition(
        "ttfat_ms/intended@1", "ms", "first chunk with answer text (reasoning left out) − intended start", "lower"
    ),
    Definition(
        "itl_ms@1",
        "ms",
        "gap between consecutive tokens; k tokens in one chunk arrive together, so k−1 of their gaps are 0",
        "lower",
    ),
    Definition(
        "tpot_ms@1",
        "ms",
        "(last chunk − first chunk) / (output tokens − tokens in the first chunk), per request",
        "lower",
    ),
    Definition("e2e_ms/intended@1", "ms", "last byte − intended start", "lower"),
    Definition("e2e_ms/sent@1", "ms", "last byte − request's last byte handed to the kernel", "lower"),
    Definition(
        "output_tokens_per_s@1", "tok/s", "output tokens that arrived in the steady window / its length", "higher"
    ),
    Definition(
        "input_tokens_per_s@1",
        "tok/s",
        "prompt tokens of requests whose first token (of embeddings: whose answer) fell into the steady window / its "
        "length",
        "higher",
    ),
    Definition(
        "total_tokens_per_s@1",
        "tok/s",
        "output tokens in the steady window plus prompt tokens of requests whose first token fell into it / its length",
        "higher",
    ),
    Definition(
        "requests_per_s@1",
        "req/s",
        "requests that finished well / s: each counts with the share of its tokens that arrived in the steady window",
        "higher",
    ),
    Definition(
        "goodput_per_s@1",
        "req/s",
        "requests that met every SLO term / s, counted likewise; failures do not count",
        "higher",
    ),
    Definition(
        "slo_attainment@1",
        "share",
        "requests that met every SLO term / requests that ended, failures included",
        "higher",
    ),
    Definition("failed_share@1", "share", "failed requests / requests that ended; cancelled ones left out", "lower"),
    Definition(
        "cut_off_share@1",
        "share",
        "measured requests that were still in flight when the point ended / measured requests",
    ),
    Definition("sent_per_s@1", "req/s", "requests sent in the steady window / its length"),
    Definition("in_flight@1", "requests", "requests sent and not finished, averaged over the steady window"),
    Definition("prompt_tokens@1", "tokens", "mean prompt length of the requests that finished well"),
    Definition("output_tokens@1", "tokens", "mean answer length of the requests that finished well"),
    Definition(
        "cached_share@1",
        "share",
        "prompt tokens that the server took from its prefix cache / prompt tokens, as it reports",
    ),
    Definition(
        "client_error@1",
        "ms",
        "what the client reports − what the paced server did, of the same requests in the calibration of this run",
        "lower",
    ),
    Definition(
        "sustains_chunks_per_s@1",
        "chunks/s",
        "chunks / CPU time of the load worker, in a flood by the paced server: what one core of this client can take",
        "higher",
    ),
    Definition("startup_s@1", "s", "process start to the first real answer", "lower"),
    Definition(
        "rss_bytes@1",
        "B",
        "peak resident memory of the engine's process tree (shared pages counted once, by PSS where readable)",
        "lower",
    ),
    Definition("gpu_memory_bytes@1", "B", "peak device memory of the engine's processes, by NVML", "lower"),
    Definition("ratio@1", "×", "this engine / the first engine, same load point", ""),
    Definition(
        "percentile@1",
        "",
        "the smallest measured value with at least that share of all at or below it; a failed request counts as +∞",
    ),
    Definition(
        "interval@1",
        "",
        "95 % percentile bootstrap over requests (with all their gaps), for rates over stretches of the steady window",
    ),
    Definition(
        "steady_window@1",
        "",
        "from when 90 % of the usual number in flight is first reached to when it is last held, less a head or tail in "
        "which the token rate is another",
    ),
]

DEFINITIONS: dict[str, Definition] = {definition.id: definition for definition in _ALL}

NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000
