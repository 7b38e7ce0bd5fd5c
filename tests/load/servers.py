"""Driving load points at the paced server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from redline.load.paced.pace import Pace
from redline.load.paced.server import PacedServer
from redline.load.progress import LoadProgress, PointOutcome
from redline.load.prompts import PromptSource, prompt_source
from redline.load.record import RequestRecord, Status
from redline.load.run import run_point
from redline.spec.load import LoadPoint, LoadSpec
from redline.spec.workload import LengthSpec, WorkloadSpec


def fast(**changes: Any) -> Pace:
    return Pace(**{"ttft_ms": 5.0, "itl_ms": 2.0, **changes})


def workload(**changes: Any) -> WorkloadSpec:
    values: dict[str, Any] = {
        "prompt_tokens": LengthSpec(mean=32),
        "output_tokens": LengthSpec(mean=8),
        "canary_share": 0,
        **changes,
    }
    return WorkloadSpec(**values)


@dataclass
class Result:
    outcome: PointOutcome
    records: list[RequestRecord]
    progress: list[LoadProgress] = field(default_factory=list)

    @property
    def measured(self) -> list[RequestRecord]:
        return [record for record in self.records if not record.warmup]

    def count(self, status: Status) -> int:
        return sum(record.status is status for record in self.measured)


def push(
    server: PacedServer,
    point: LoadPoint,
    *,
    work: WorkloadSpec | None = None,
    prompts: PromptSource | None = None,
    on_record: Callable[[RequestRecord], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    alive: Callable[[], bool] = lambda: True,
    api_key: str | None = None,
    seed: int = 1,
    before_measuring: Callable[[], None] = lambda: None,
    **load: Any,
) -> Result:
    """One load point; `load` are fields of LoadSpec."""
    work = work or workload()
    endpoint = server.endpoint
    source = prompts or prompt_source(endpoint, work, seed=seed, tokenizer_path=None, needed=100, api_key=api_key)
    records: list[RequestRecord] = []
    progress: list[LoadProgress] = []

    def keep(record: RequestRecord) -> None:
        records.append(record)
        if on_record is not None:
            on_record(record)

    outcome = run_point(
        endpoint,
        work,
        LoadSpec(**{"duration_s": 10.0, "drain_s": 2.0, "warmup_requests": 2, **load}),
        point,
        seed=seed,
        prompts=source,
        on_record=keep,
        on_progress=progress.append,
        should_stop=should_stop,
        alive=alive,
        api_key=api_key,
        before_measuring=before_measuring,
    )
    return Result(outcome, records, progress)


def closed(clients: int) -> LoadPoint:
    return LoadPoint("closed", clients)
