"""The bpftrace program that watches the kernel for what can hold up an engine: tracepoints only, no kprobes.

A line per event: `E KIND BEGAN ENDED WHO TEXT`, tabs between, times on CLOCK_MONOTONIC (bpf_ktime_get_ns); and a line
`T` a second, so that it ends by itself once nobody reads it. What is too short to explain anything stays in the kernel.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

RUN_QUEUE_NS = 2_000_000
RECLAIM_NS = 500_000
IRQ_NS = 1_000_000
BLOCK_NS = 20_000_000
MOST_THREADS = 4096
_MAPS = ("mine", "ready", "where", "then", "others", "since", "longest", "name", "by")


@dataclass(frozen=True)
class Probe:
    """`needs` are tracepoints as `category:name`; `of_engine` marks those that look at the engine's threads alone."""

    kind: str
    text: str
    needs: tuple[str, ...]
    program: str
    of_engine: bool = False


def _span(kind: str, begin: str, end: str, least_ns: int) -> Probe:
    """Time that one thread spends between two tracepoints."""
    name = begin.partition(":")[2].removesuffix("_begin")
    program = f"""
tracepoint:{begin} {{ @{name}[tid] = nsecs; }}
tracepoint:{end} /@{name}[tid]/ {{
  if (nsecs - @{name}[tid] >= {least_ns}) {{
    printf("E\\t{kind}\\t%llu\\t%llu\\t%s\\ttid %d\\n", @{name}[tid], nsecs, comm, tid);
  }}
  delete(@{name}[tid]);
}}"""
    return Probe(kind, f"{name} longer than {least_ns / 1e6:g} ms", (begin, end), program)


# Who had the CPU is more than who had it last: `others` adds up, for each CPU, the time of tasks that are not the
# engine's, and of these the one that ran longest since a thread of the engine got that CPU is named.
_RUN_QUEUE = f"""
tracepoint:sched:sched_process_fork /@mine[args->parent_pid]/ {{ @mine[args->child_pid] = 1; }}
tracepoint:sched:sched_wakeup /@mine[args->pid]/ {{
  @ready[args->pid] = nsecs; @where[args->pid] = args->target_cpu; @then[args->pid] = @others[args->target_cpu];
}}
tracepoint:sched:sched_wakeup_new /@mine[args->pid]/ {{
  @ready[args->pid] = nsecs; @where[args->pid] = args->target_cpu; @then[args->pid] = @others[args->target_cpu];
}}
tracepoint:sched:sched_switch {{
  $ran = @since[cpu] ? nsecs - @since[cpu] : 0;
  @since[cpu] = nsecs;
  if (@mine[args->prev_pid]) {{
    if ((args->prev_state & 255) == 0) {{
      @ready[args->prev_pid] = nsecs; @where[args->prev_pid] = cpu; @then[args->prev_pid] = @others[cpu];
    }}
  }} else if (args->prev_pid) {{
    @others[cpu] += $ran;
    if ($ran >= @longest[cpu]) {{ @longest[cpu] = $ran; @name[cpu] = args->prev_comm; @by[cpu] = args->prev_pid; }}
  }}
  $from = @ready[args->next_pid];
  if ($from) {{
    if (nsecs - $from >= {RUN_QUEUE_NS}) {{
      $c = @where[args->next_pid];
      printf("E\\trun_queue\\t%llu\\t%llu\\t%s (%d)\\t%llu others tid %d CPU %d\\n", $from, nsecs,
        @name[$c], @by[$c], @others[$c] - @then[args->next_pid], args->next_pid, $c);
      @longest[$c] = 0;
    }}
    delete(@ready[args->next_pid]);
  }}
}}"""

_BLOCK = f"""
tracepoint:block:block_rq_issue {{ @issued[args->dev, args->sector] = nsecs; }}
tracepoint:block:block_rq_complete /@issued[args->dev, args->sector]/ {{
  $since = @issued[args->dev, args->sector];
  if (nsecs - $since >= {BLOCK_NS}) {{
    printf("E\\tblock\\t%llu\\t%llu\\t%s\\tdevice %d:%d %s %d sectors\\n", $since, nsecs, "",
      args->dev >> 20, args->dev & 0xfffff, args->rwbs, args->nr_sector);
  }}
  delete(@issued[args->dev, args->sector]);
}}"""

_IRQ = f"""
tracepoint:irq:irq_handler_entry {{ @irq[cpu] = nsecs; }}
tracepoint:irq:irq_handler_exit /@irq[cpu]/ {{
  if (nsecs - @irq[cpu] >= {IRQ_NS}) {{
    printf("E\\tirq\\t%llu\\t%llu\\tIRQ %d\\tCPU %d\\n", @irq[cpu], nsecs, args->irq, cpu);
  }}
  delete(@irq[cpu]);
}}"""

_SOFTIRQ = f"""
tracepoint:irq:softirq_entry {{ @soft[cpu] = nsecs; }}
tracepoint:irq:softirq_exit /@soft[cpu]/ {{
  if (nsecs - @soft[cpu] >= {IRQ_NS}) {{
    printf("E\\tsoftirq\\t%llu\\t%llu\\tsoftirq %d\\tCPU %d\\n", @soft[cpu], nsecs, args->vec, cpu);
  }}
  delete(@soft[cpu]);
}}"""

_RETRANSMIT = """
tracepoint:tcp:tcp_retransmit_skb /PORT == 0 || args->sport == PORT || args->dport == PORT/ {
  printf("E\\tretransmit\\t%llu\\t%llu\\t\\tport %d to %d\\n", nsecs, nsecs, args->sport, args->dport);
}"""

_SIGNAL = """
tracepoint:signal:signal_generate /(args->sig == 19 || args->sig == 18) && @mine[args->pid]/ {
  printf("E\\tsignal\\t%llu\\t%llu\\t%s (%d)\\tsignal %d to %d\\n", nsecs, nsecs, comm, pid, args->sig, args->pid);
}"""

_OOM = """
tracepoint:oom:mark_victim {
  printf("E\\toom\\t%llu\\t%llu\\t%s (%d)\\tvictim %d\\n", nsecs, nsecs + 1000000000, comm, pid, args->pid);
}"""

PROBES: tuple[Probe, ...] = (
    Probe("run_queue", "a thread of the engine was ready and had no CPU, and who had it then",
          ("sched:sched_process_fork", "sched:sched_wakeup", "sched:sched_wakeup_new", "sched:sched_switch"),
          _RUN_QUEUE, of_engine=True),
    _span("reclaim", "vmscan:mm_vmscan_direct_reclaim_begin", "vmscan:mm_vmscan_direct_reclaim_end", RECLAIM_NS),
    _span("reclaim", "vmscan:mm_vmscan_memcg_reclaim_begin", "vmscan:mm_vmscan_memcg_reclaim_end", RECLAIM_NS),
    _span("compaction", "compaction:mm_compaction_begin", "compaction:mm_compaction_end", RECLAIM_NS),
    Probe("block", "a disk took over 20 ms", ("block:block_rq_issue", "block:block_rq_complete"), _BLOCK),
    Probe("irq", "a CPU spent over 1 ms in an interrupt", ("irq:irq_handler_entry", "irq:irq_handler_exit"), _IRQ),
    Probe("softirq", "a CPU spent over 1 ms in a soft interrupt", ("irq:softirq_entry", "irq:softirq_exit"), _SOFTIRQ),
    Probe("retransmit", "a TCP segment was sent again", ("tcp:tcp_retransmit_skb",), _RETRANSMIT),
    Probe("signal", "the engine was told to stop or to go on", ("signal:signal_generate",), _SIGNAL, of_engine=True),
    Probe("oom", "the kernel killed a process for want of memory", ("oom:mark_victim",), _OOM),
)  # fmt: skip
KINDS = tuple(dict.fromkeys(probe.kind for probe in PROBES))


def probes_for(available: Collection[str], *, engine: bool) -> list[Probe]:
    """Those whose tracepoints this kernel has; without an engine of ours none that look at its threads."""
    known = frozenset(available)
    return [probe for probe in PROBES if known.issuperset(probe.needs) and (engine or not probe.of_engine)]


def render(probes: Sequence[Probe], threads: Sequence[int], port: int = 0) -> str:
    """The program. `threads` are the engine's, at its start; those that they start are found by the program. `port` is
    where the engine listens: segments of other servers are left out; 0 for all."""
    mine = " ".join(f"@mine[{tid}] = 1;" for tid in threads[:MOST_THREADS])
    begin = f'BEGIN {{ {mine} printf("R\\n"); }}'
    beat = 'interval:s:1 { printf("T\\n"); }'
    maps = f"END {{ {' '.join(f'clear(@{name});' for name in _MAPS)} }}" if mine else ""
    return "\n".join([begin, *(probe.program.replace("PORT", str(port)) for probe in probes), beat, maps, ""])
