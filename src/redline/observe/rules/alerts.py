"""What rings, beside the error budgets: an engine that hangs, a full KV cache, GPUs that are slowed or fail, a blind
spot of the monitoring itself."""

from __future__ import annotations

from redline.observe.rules.engine import ENGINE, engine_group, latency_group
from redline.observe.rules.gpu import gpu_group
from redline.observe.rules.rule import Alert, Group, Term
from redline.observe.rules.slo import slo_groups
from redline.spec.slo import SloSpec

JOBS = ("engine", "redline", "node", "dcgm")
"""Scraped ones, by what they are."""
XID_SEEN_FOR = 600


def all_groups(slo: SloSpec, *, success: float = 0.99, hung_after: str = "60s") -> dict[str, tuple[Group, ...]]:
    """By the file that they go to."""
    return {
        "recording": (engine_group(hung_after), latency_group(), gpu_group()),
        "slo": slo_groups(slo, success),
        "alerts": (Group("engine-alerts", _engine(hung_after)), Group("box-alerts", (*_gpu(), *_blind()))),
    }


def _engine(hung_after: str) -> tuple[Alert, ...]:
    rank = "{{ $labels.instance }} {{ $labels.engine }}"
    return (
        Alert(
            "EngineHung",
            (Term("engine:in_flight:least", "> 0"), Term("engine:iterations:increase", "== 0")),
            "30s", "critical", f"{rank} has work and did no step for {hung_after}",
            "requests wait or run and the engine's step counter stands still. /health still says 200: it does not look"
            " at the engine's process. An engine that hung while idle is not seen here but by its clients.",
            "keep the stacks first (py-spy dump, the log), then restart it: docker compose restart engine",
            on=ENGINE,
        ),
        Alert(
            "KvCacheFull",
            (Term("engine:kv_usage", "> 0.95"), Term("engine:waiting", "> 0")),
            "2m", "warning", f"{rank}: KV cache {{{{ $value | humanizePercentage }}}} full and requests wait",
            "new requests wait for pages that running ones hold; preemptions and a rising TTFT come next",
            "less load, a smaller max-num-seqs or max-model-len, an fp8 KV cache, more GPU memory for it",
            on=ENGINE,
        ),
        Alert(
            "PreemptionStorm",
            (
                Term("engine:preemptions:increase5m / (engine:requests:increase5m > 0)", "> 0.2"),
                Term("engine:preemptions:increase5m", "> 10"),
            ),
            "1m", "warning", f"{rank}: {{{{ $value | humanize }}}} preemptions for every finished request",
            "requests lose their KV pages and are computed again: throughput is spent on the same tokens twice",
            "lower max-num-seqs, or give the KV cache more memory",
            on=ENGINE,
        ),
    )  # fmt: skip


def _gpu() -> tuple[Alert, ...]:
    card = "GPU {{ $labels.gpu }} of {{ $labels.instance }}"
    age = "time() - redline_gpu_xid_last_timestamp_seconds"
    xid = "Xid {{ $labels.xid }} at {{ $labels.pci }}"
    return (
        Alert(
            "GpuThrottled",
            (Term('gpu:slowed:bool{reason!="power-cap"}', "== 1"),),
            "1m", "warning", f"{card} is slowed down: {{{{ $labels.reason }}}}",
            "heat, the power supply or the board holds the clock down; every latency meanwhile is of that clock",
            "look at fans, inlet temperature and power cabling; nvidia-smi -q -d PERFORMANCE",
        ),
        Alert(
            "GpuPowerCapped",
            (Term('gpu:slowed:bool{reason="power-cap"}', "== 1"),),
            "15m", "info", f"{card} runs into its power limit",
            "usual under full load; the clock is below the maximum all the same",
            "compare tokens per second at this and at the maximal power limit",
        ),
        Alert(
            "GpuXidFatal",
            (Term(f'{age}{{kind="hardware"}}', f"< {XID_SEEN_FOR}"),),
            "0s", "critical", f"{xid}: {{{{ $labels.meaning }}}}",
            "the driver wrote an error of the hardware into the kernel log; what the GPU computes may be wrong or stop",
            "take the load off this GPU; nvidia-smi -q, dmesg; reset or replace it as NVIDIA's Xid catalogue says",
        ),
        Alert(
            "GpuXid",
            (Term(f'{age}{{kind!="hardware"}}', f"< {XID_SEEN_FOR}"),),
            "0s", "warning", f"{xid}: {{{{ $labels.meaning }}}}",
            "mostly an error of the program that used the GPU, such as an illegal address in a kernel",
            "look into the engine's log for the same minute",
        ),
    )  # fmt: skip


def _blind() -> tuple[Alert, ...]:
    down = "{{ $labels.job }} at {{ $labels.instance }} does not answer Prometheus"
    return (
        Alert(
            "EngineDown",
            (Term('up{job="engine"}', "== 0"),),
            "1m", "critical", down, "the engine is gone, starting, or too busy to answer /metrics",
            "docker compose ps engine; docker compose logs engine. vLLM exits with 0 after its core was killed: only"
            " restart: always brings it back",
        ),
        Alert(
            "ExporterDown",
            (Term('up{job!="engine"}', "== 0"),),
            "2m", "warning", down, "its dashboards stand still, and alerts on its series cannot ring",
            "docker compose ps; docker compose logs the service that is named like the job",
        ),
        Alert(
            "XidWatchBlind",
            (Term("redline_kernel_log_readable", "== 0"),),
            "5m", "info", "{{ $labels.instance }} cannot read the kernel log: a GPU's Xid would go unseen",
            "/dev/kmsg needs CAP_SYSLOG (or kernel.dmesg_restrict=0), in a container also the device",
            "run `redline export prometheus` as root, or give the container /dev/kmsg and cap_add: [SYSLOG]",
        ),
    )  # fmt: skip
