"""Stored runs of a small simulated server, for tests of what is made of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

from redline.clock import now_ns
from redline.engines.endpoint import Endpoint
from redline.load.record import RequestRecord, Status, TokenSource
from redline.observe.sample import Sample
from redline.spec.engine import EngineSpec
from redline.spec.experiment import Experiment
from redline.spec.load import LoadPoint, LoadSpec
from redline.spec.model import ModelSpec
from redline.spec.slo import SloSpec
from redline.store.requests import Requests
from redline.store.store import Store
from tests.analyse.traffic import closed_loop

BOX = {
    "cpu": {"model": "AMD EPYC 9654", "cores": 2, "threads": 2, "governor": "performance", "usable_cores": 2.0},
    "memory": {"total_bytes": 25276502016, "transparent_hugepages": {"enabled": "madvise"}},
    "gpu": {"skipped": "no NVIDIA driver on this box", "how": "a box with an NVIDIA GPU and its driver"},
    "kernel": {"release": "6.18.44", "distribution": "Debian GNU/Linux 12 (bookworm)"},
    "virtualisation": {"hypervisor": "kvm", "container": "docker"},
    "python": {"version": "3.11.7"},
    "packages": {"torch": "2.13.0+cpu", "transformers": "5.17.0"},
    "redline": {"version": "0.1.0", "commit": "f6e11f1083d6", "changed": False},
}


@dataclass
class Engine:
    """How a simulated engine behaves: milliseconds at one client, and what each further client adds."""

    name: str
    kind: str = "transformers"
    ttft: float = 30.0
    ttft_each: float = 2.0
    itl: float = 8.0
    itl_each: float = 0.1
    fail: float = 0.0
    noise: float = 0.12
    per_chunk: int = 1
    startup_ms: dict[str, float] = field(
        default_factory=lambda: {"spawn": 350.0, "load": 2400.0, "first answer": 210.0}
    )
    memory: float = 1.1e9
    gpu_memory: float = 0.0
    skipped: str = ""
    start_error: str = ""
    flags: dict[str, str] = field(default_factory=lambda: {"dtype": "bfloat16", "max-num-seqs": "64"})
    stop_after: int | None = None
    """Only so many load points are measured."""
    outcome: dict[str, Any] = field(default_factory=dict)
    """What the load generator says of itself beside the usual."""


SLOW = Engine("transformers", ttft=32, ttft_each=9, itl=11, itl_each=1.5)
FAST = Engine(
    "vllm", "vllm", ttft=24, ttft_each=2.2, itl=7.5, itl_each=0.16, memory=2.9e9,
    startup_ms={"spawn": 900.0, "load weights": 3100.0, "profile": 5200.0, "capture": 8800.0, "first answer": 320.0},
    flags={"dtype": "bfloat16", "max_num_seqs": "256", "enable_prefix_caching": "True", "block_size": "16"},
)  # fmt: skip


def experiment(
    engines: Sequence[Engine], *, models: Sequence[str] = ("bundled:target",), clients: Sequence[int] = (1, 10, 50),
    repeats: int = 1, slo: SloSpec | None = None, name: str = "", rate: Sequence[float] = (),
    rounds: int = 1, **more: Any,
) -> Experiment:  # fmt: skip
    load = LoadSpec(rate=list(rate)) if rate else LoadSpec(concurrency=list(clients), duration_s=6.0)
    return Experiment(
        name=name,
        models=[ModelSpec(id=model) for model in models],
        engines=[EngineSpec(kind=e.kind, name=e.name, flags={"max-num-seqs": 64}) for e in engines],
        load=load,
        slo=slo or SloSpec(),
        repeats=repeats,
        rounds=rounds,
        **more,
    )


def write_run(
    path: Path, engines: Sequence[Engine] = (SLOW, FAST), *, status: str = "done", seconds: float = 6.0, **plan: Any
) -> str:
    """Measures the plan on the simulated engines; the id of the run. `status` '' leaves it as a crash would."""
    spec = experiment(engines, **plan)
    with Store.open(path) as store:
        run_id = store.begin_run(spec, BOX, ["redline", "compare", "-f", "experiment.yaml"])
        for repeat in range(spec.repeats):
            for scale, model in enumerate(spec.models):
                for engine, one in zip(engines, spec.engines, strict=True):
                    _trial(store, run_id, spec, model.served_name, engine, one, repeat, 1 + scale, seconds)
        if status:
            store.end_run(run_id, status, "valid" if status == "done" else "degraded", [])
    return run_id


def _trial(
    store: Store, run_id: str, spec: Experiment, model: str, engine: Engine, one: EngineSpec, repeat: int,
    scale: float, seconds: float,
) -> None:  # fmt: skip
    trial = store.begin_trial(run_id, model=model, spec=one, repeat=repeat)
    if engine.skipped or engine.start_error:
        store.end_trial(trial, "skipped" if engine.skipped else "failed", engine.skipped or engine.start_error)
        return
    phases = {phase: ms * (1 + 0.05 * repeat) for phase, ms in engine.startup_ms.items()}
    store.trial_ready(
        trial,
        Endpoint(
            "http://127.0.0.1:1/v1", model, engine.kind, "5.17.0" if engine.kind == "transformers" else "0.30.0",
            flags=engine.flags, startup_ms={**phases, "total": sum(phases.values())},
        ),
        {"model": "sha256:0f1e", "tokenizer": "sha256:77aa"},
    )  # fmt: skip
    for k in range(5):
        samples = [Sample(now_ns(), "engine.rss_bytes", engine.memory * scale * (0.8 + 0.04 * k), "B")]
        if engine.gpu_memory:
            samples.append(Sample(now_ns(), "engine.gpu_memory_bytes", engine.gpu_memory, "B", {"source": "process"}))
        store.add_samples(trial, samples)
    for number, point in enumerate(spec.load.points):
        if engine.stop_after is not None and number >= engine.stop_after:
            break
        _point(store, trial, engine, point, repeat, scale, seconds, crc32(f"{engine.name} {repeat} {number}".encode()))
    finished = engine.stop_after is None or engine.stop_after >= len(spec.load.points)
    store.end_trial(trial, "done" if finished else "interrupted")


def _point(
    store: Store, trial: int, engine: Engine, point: LoadPoint, repeat: int, scale: float, seconds: float, seed: int
) -> None:
    clients = int(point.value)
    drift = 1 + 0.02 * repeat
    requests, (start, ended) = closed_loop(
        clients,
        duration_ms=seconds * 1000,
        ttft_ms=scale * drift * (engine.ttft + engine.ttft_each * (clients - 1)),
        itl_ms=scale * drift * (engine.itl + engine.itl_each * (clients - 1)),
        output_tokens=32,
        noise=engine.noise,
        fail=engine.fail,
        per_chunk=engine.per_chunk,
        seed=seed,
    )
    point_id = store.begin_point(trial, point)
    for record in records_of(requests):
        store.add_request(point_id, record)
    outcome = {
        "stopped_by": "duration", "send_lag_ms_p99": 0.21, "client_cpu_s": 0.4, "prompts_off": 0,
        "notes": ["prompts salted"], **engine.outcome,
    }  # fmt: skip
    store.end_point(
        point_id, measured_from_ns=start, ended_ns=ended, stopped_by="duration", outcome=outcome, verdict="valid",
        reasons=[],
    )  # fmt: skip


def records_of(requests: Requests) -> Iterator[RequestRecord]:
    """Columns turned back into records."""
    for i in range(len(requests)):
        chunks = slice(requests.chunk_start[i], requests.chunk_start[i + 1])
        status = Status(str(requests.status[i]))
        yield RequestRecord(
            index=i,
            intended_ns=int(requests.intended_ns[i]),
            sent_ns=int(requests.sent_ns[i]) + 60_000,
            connected_ns=int(requests.sent_ns[i]) + 20_000,
            first_byte_ns=int(requests.first_byte_ns[i]),
            answer_first_ns=int(requests.answer_first_ns[i]),
            finished_ns=int(requests.finished_ns[i]),
            chunk_ns=requests.chunk_ns[chunks].tolist(),
            chunk_tokens=requests.chunk_tokens[chunks].tolist(),
            prompt_tokens=128,
            asked_prompt_tokens=128,
            asked_output_tokens=int(requests.asked_output_tokens[i]),
            output_tokens=int(requests.output_tokens[i]),
            token_source=TokenSource.USAGE,
            status=status,
            http_status=200,
            error="connection reset by peer" if status is Status.RESET else "",
            finish_reason="length",
        )
