"""Names, units and meanings of everything that samplers measure: one table, which docs/telemetry.md is made from.

`digits` is how many decimals are kept: a share to one in ten thousand, bytes whole. Names that an engine's own
`/metrics` or DCGM bring along are not listed: they are kept raw as `server.NAME` and `dcgm.NAME`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sampled:
    """`labels` are the names of the labels. `sampler` is who measures it."""

    name: str
    unit: str
    text: str
    sampler: str
    labels: tuple[str, ...] = ()
    digits: int = 0


def _gpu(name: str, unit: str, text: str, digits: int = 0, sampler: str = "gpu") -> Sampled:
    return Sampled(f"gpu.{name}", unit, text, sampler, ("gpu", "mig"), digits)


def _host(name: str, unit: str, text: str, digits: int = 0, *labels: str) -> Sampled:
    return Sampled(f"host.{name}", unit, text, "host", labels, digits)


def _engine(name: str, unit: str, text: str, digits: int = 0, *labels: str) -> Sampled:
    return Sampled(f"engine.{name}", unit, text, "host", labels, digits)


def _server(name: str, unit: str, text: str, digits: int = 4, *labels: str) -> Sampled:
    return Sampled(f"engine.{name}", unit, text, "metrics", labels, digits)


def _client(name: str, unit: str, text: str, digits: int = 0, sampler: str = "host") -> Sampled:
    return Sampled(f"client.{name}", unit, text, sampler, (), digits)


def _sampler(name: str, unit: str, text: str, digits: int = 4) -> Sampled:
    return Sampled(f"sampler.{name}", unit, text, "each", ("sampler",), digits)


_GPU = (
    _gpu("utilisation_share", "share", "time in which some kernel was resident; not how full the card was", 4),
    _gpu("memory_busy_share", "share", "time in which device memory was read or written", 4),
    _gpu("memory_used_bytes", "B", "device memory in use, whoever holds it"),
    _gpu("memory_total_bytes", "B", "device memory there is"),
    _gpu("power_w", "W", "power drawn now", 1),
    _gpu("power_limit_w", "W", "power limit in force", 1),
    _gpu("energy_j", "J", "energy since the driver was loaded: a counter", 3),
    _gpu("sm_clock_mhz", "MHz", "clock of the SMs"),
    _gpu("memory_clock_mhz", "MHz", "clock of the memory"),
    _gpu("temperature_c", "°C", "temperature of the GPU"),
    _gpu("memory_temperature_c", "°C", "temperature of the memory"),
    _gpu("performance_state", "", "P-state: 0 is the fastest"),
    _gpu("clock_event_bits", "", "why the clock is where it is, as NVML's bits (`node/nvml.py` names them)"),
    _gpu("slowed", "", "1 while power, heat or hardware hold the clock down"),
    _gpu("slowed_by_power_s", "s", "time held down by the power cap, since the driver was loaded: a counter", 4),
    _gpu("slowed_by_heat_s", "s", "time held down by heat: a counter", 4),
    _gpu("pcie_generation", "", "generation of the PCIe link now"),
    _gpu("pcie_width", "", "lanes of the PCIe link now"),
    _gpu("pcie_replays", "", "PCIe packets sent again: a counter"),
    _gpu("pcie_tx_bytes_per_s", "B/s", "from the GPU to the host"),
    _gpu("pcie_rx_bytes_per_s", "B/s", "from the host to the GPU"),
    _gpu("ecc_corrected", "", "memory errors corrected since the driver was loaded: a counter"),
    _gpu("ecc_uncorrected", "", "memory errors that were not: a counter"),
    _gpu("remapped_rows", "", "memory rows remapped after errors: a counter"),
    _gpu("graphics_active_share", "share", "time in which the compute engine was active (GPM)", 4, "gpm"),
    _gpu("sm_active_share", "share", "mean share of SMs with at least one warp (GPM)", 4, "gpm"),
    _gpu("sm_occupancy_share", "share", "mean share of the warps that SMs can hold (GPM)", 4, "gpm"),
    _gpu("tensor_active_share", "share", "time in which tensor cores were active, any type (GPM)", 4, "gpm"),
    _gpu("tensor_half_active_share", "share", "the same, 16 bits and TF32 (GPM: HMMA)", 4, "gpm"),
    _gpu("tensor_int_active_share", "share", "the same, integers (GPM: IMMA)", 4, "gpm"),
    _gpu("fp32_active_share", "share", "time in which FP32 units were active (GPM)", 4, "gpm"),
    _gpu("fp16_active_share", "share", "time in which FP16 units were active (GPM)", 4, "gpm"),
    _gpu("dram_active_share", "share", "share of the peak DRAM bandwidth that was used (GPM)", 4, "gpm"),
    _gpu("nvlink_tx_bytes_per_s", "B/s", "sent over all NVLinks (GPM)", 0, "gpm"),
    _gpu("nvlink_rx_bytes_per_s", "B/s", "received over all NVLinks (GPM)", 0, "gpm"),
    Sampled("engine.gpu_memory_bytes", "B", "device memory of the engine's processes; `source` is `process`, or "
            "`device` where NVML does not tell processes apart: then all that is in use", "gpu", ("source",)),
)  # fmt: skip

_HOST = (
    _host("cpu_busy_share", "share", "CPU time not idle, all CPUs", 4),
    _host("cpu_core_busy_share", "share", "the same of one CPU", 3, "cpu"),
    _host("cpu_iowait_share", "share", "CPU time idle while a disk was waited for", 4),
    _host("cpu_irq_share", "share", "CPU time in interrupts", 4),
    _host("cpu_softirq_share", "share", "CPU time in soft interrupts", 4),
    _host("cpu_steal_share", "share", "CPU time that the hypervisor gave to others", 4),
    _host("cpu_pressure_share", "share", "time in which some task waited for a CPU (PSI)", 4),
    _host("memory_pressure_share", "share", "time in which some task waited for memory (PSI)", 4),
    _host("memory_pressure_full_share", "share", "time in which all tasks waited for memory (PSI)", 4),
    _host("io_pressure_share", "share", "time in which some task waited for a disk (PSI)", 4),
    _host("io_pressure_full_share", "share", "time in which all tasks waited for a disk (PSI)", 4),
    _host("loadavg", "", "load average of one minute", 2),
    _host("running_tasks", "", "tasks that run or could"),
    _host("blocked_tasks", "", "tasks that wait for a disk"),
    _host("context_switches_per_s", "1/s", "context switches"),
    _host("forks_per_s", "1/s", "processes and threads started", 1),
    _host("interrupts_per_s", "1/s", "interrupts"),
    _host("softirqs_per_s", "1/s", "soft interrupts of one kind", 0, "kind"),
    _host("memory_available_bytes", "B", "memory that could be had without swapping"),
    _host("page_cache_bytes", "B", "file pages in memory"),
    _host("dirty_bytes", "B", "file pages still to be written"),
    _host("swap_used_bytes", "B", "swap in use"),
    _host("swap_in_per_s", "1/s", "pages swapped in"),
    _host("swap_out_per_s", "1/s", "pages swapped out"),
    _host("faults_per_s", "1/s", "page faults"),
    _host("major_faults_per_s", "1/s", "page faults that read a disk", 1),
    _host("direct_reclaims_per_s", "1/s", "allocations that had to free memory first", 1),
    _host("compaction_stalls_per_s", "1/s", "allocations that had to compact memory first", 1),
    _host("disk_read_bytes_per_s", "B/s", "read from a disk", 0, "disk"),
    _host("disk_written_bytes_per_s", "B/s", "written to a disk", 0, "disk"),
    _host("disk_busy_share", "share", "time in which a disk had work", 4, "disk"),
    _host("network_rx_bytes_per_s", "B/s", "received by an interface", 0, "interface"),
    _host("network_tx_bytes_per_s", "B/s", "sent by an interface", 0, "interface"),
    _host("network_drops_per_s", "1/s", "packets that an interface dropped or got wrong", 1, "interface"),
    _host("tcp_retransmits_per_s", "1/s", "TCP segments sent again", 1),
    _host("wall_offset_s", "s", "wall clock less monotonic clock: a step is a step of the wall clock", 4),
)

_ENGINE = (
    _engine("rss_bytes", "B", "resident memory, summed; shared pages count once per process"),
    _engine("pss_bytes", "B", "resident memory with shared pages counted once; taken less often"),
    _engine("rss_high_water_bytes", "B", "sum of each process's highest resident memory since its start"),
    _engine("cpu_s", "s", "CPU time so far: a counter", 2),
    _engine("cpu_cores", "cores", "cores in use", 3),
    _engine("processes", "", "processes of its tree"),
    _engine("threads", "", "threads of its tree"),
    _engine("run_queue_ms_per_s", "ms/s", "time its threads were ready and had no CPU (schedstat), summed", 2),
    _engine("run_queue_max_ms_per_s", "ms/s", "the same of the thread that waited most", 2),
    _engine("faults_per_s", "1/s", "page faults of its processes"),
    _engine("major_faults_per_s", "1/s", "those that read a disk", 1),
)

_CLIENT = (
    _client("cpu_s", "s", "CPU time of redline and its load workers so far: a counter", 2),
    _client("cpu_cores", "cores", "cores in use by them", 3),
    _client("rss_bytes", "B", "resident memory of redline's own process"),
    _client("in_flight", "", "requests under way", 0, "client"),
    _client("finished", "", "requests that ended in this phase of the point", 0, "client"),
    _client("failed", "", "those of them that failed", 0, "client"),
    _client("output_tokens_per_s", "tok/s", "output that arrives", 1, "client"),
    _client("ttft_p50_ms", "ms", "time to first token of the newest requests, median", 3, "client"),
    _client("ttft_p99_ms", "ms", "the same, 99th percentile", 3, "client"),
    _client("tpot_p50_ms", "ms", "time per output token of the newest requests, median", 3, "client"),
    _client("send_lag_ms", "ms", "how late requests left, 99th percentile", 3, "client"),
    _client("busy_share", "share", "CPU of the busiest load worker", 3, "client"),
)

_SERVER = (
    _server("requests_running", "", "requests that the engine computes", 0),
    _server("requests_waiting", "", "requests that wait in it", 0),
    _server("kv_usage_share", "share", "KV cache in use"),
    _server("preemptions_per_s", "1/s", "requests put back for want of KV cache"),
    _server("prompt_tokens_per_s", "tok/s", "prompt tokens taken in"),
    _server("generation_tokens_per_s", "tok/s", "tokens put out"),
    _server("requests_per_s", "1/s", "requests that ended well"),
    _server("prefix_hit_share", "share", "prompt tokens found in the prefix cache, of those looked up"),
    _server("draft_tokens_per_s", "tok/s", "tokens proposed by speculation"),
    _server("draft_accepted_share", "share", "tokens accepted, of those proposed"),
    *(
        _server(f"{name}_ms", "ms", f"{text} of the requests counted since the scrape before, from the engine's "
                "histogram: `stat` is mean, p50 or p90 (none in the first bucket)", 3, "stat")
        for name, text in (
            ("queue", "time in the queue"), ("prefill", "time in prefill"), ("decode", "time in decode"),
            ("ttft", "time to first token"), ("itl", "inter-token latency"), ("e2e", "end-to-end latency"),
        )
    ),
    _server("scrape_ms", "ms", "how long the scrape took", 2),
)  # fmt: skip


def _cause(name: str, unit: str, text: str, digits: int = 3) -> Sampled:
    return Sampled(f"cause.{name}", unit, text, "causes", (), digits)


_CAUSES = (
    _cause("stopped_share", "share", "processes of the engine that were stopped, at this instant"),
    _cause("stuck_disk_share", "share", "1 while one of the engine's busiest threads waited in the kernel and could "
           "not be woken, for a disk as far as is known"),
    _cause("stuck_memory_share", "share", "the same for memory"),
    _cause("run_queue_share", "share", "time in which the engine's thread that waited most was ready and had no CPU"),
    _cause("client_run_queue_share", "share", "the same of redline's own threads"),
    _cause("major_faults_per_s", "1/s", "page faults of the engine that read a disk", 1),
    _cause("throttled_share", "share", "time in which the engine's cgroup had used up its CPU quota"),
    _cause("memory_limit_hits_per_s", "1/s", "times the engine's cgroup ran into its memory limit", 1),
    _cause("cpu_pressure_share", "share", "time in which some task waited for a CPU (PSI)"),
    _cause("memory_pressure_share", "share", "time in which some task waited for memory (PSI)"),
    _cause("io_pressure_share", "share", "time in which some task waited for a disk (PSI)"),
    _cause("steal_share", "share", "CPU time that the hypervisor gave to others"),
    _cause("irq_max_share", "share", "time in interrupts of the CPU that had most of them"),
    _cause("direct_reclaims_per_s", "1/s", "allocations that had to free memory first", 1),
    _cause("compaction_stalls_per_s", "1/s", "allocations that had to compact memory first", 1),
    _cause("tcp_retransmits_per_s", "1/s", "TCP segments sent again, in the engine's network namespace and ours", 1),
    _cause("tcp_out_of_order_per_s", "1/s", "TCP segments that came before one that was missing", 1),
)  # fmt: skip

_SAMPLER = (
    _sampler("cpu_s", "s", "CPU time of one sampler so far: a counter", 4),
    _sampler("tick_ms", "ms", "mean length of its ticks since the sample before", 3),
    _sampler("late_ticks", "", "ticks that began over half an interval late, so far: a counter", 0),
)

SAMPLED: dict[str, Sampled] = {
    one.name: one for one in (*_GPU, *_HOST, *_ENGINE, *_CLIENT, *_SERVER, *_CAUSES, *_SAMPLER)
}
