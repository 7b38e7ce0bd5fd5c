"""An experiment and requests for the tests of the store."""

from __future__ import annotations

from redline.load.record import RequestRecord, TokenSource
from redline.spec.experiment import Experiment

EXPERIMENT = Experiment.model_validate(
    {
        "name": "two engines",
        "models": [{"id": "some/model"}],
        "engines": [{"kind": "vllm", "flags": {"max-num-seqs": 8}}, {"kind": "transformers"}],
        "load": {"concurrency": [1, 10]},
    }
)


def record(index: int, chunks: int = 4, **changes: object) -> RequestRecord:
    """A good request that was sent at `index` ms."""
    start = 1_000_000_000 + index * 1_000_000
    fields: dict[str, object] = {
        "intended_ns": start,
        "sent_ns": start + 50_000,
        "connected_ns": start + 20_000,
        "first_byte_ns": start + 5_000_000,
        "answer_first_ns": start + 5_000_000,
        "finished_ns": start + 6_000_000 + chunks * 2_000_000,
        "chunk_ns": [start + 5_000_000 + step * 2_000_000 for step in range(chunks)],
        "chunk_tokens": [1] * chunks,
        "prompt_tokens": 16,
        "output_tokens": chunks,
        "token_source": TokenSource.USAGE,
        **changes,
    }
    return RequestRecord(index=index, **fields)  # type: ignore[arg-type]
