"""The host's dashboard, of node_exporter: what takes time from an engine that is not the GPU's."""

from __future__ import annotations

from redline.report.dashboards.board import Board, Row, panel

_ME = 'instance=~"$instance"'
_I = "{{instance}}"


def _rate(name: str, more: str = "") -> str:
    return f"rate({name}{{{_ME}{more}}}[1m])"


_BUSY = _rate("node_cpu_seconds_total", ', mode!="idle"')

HOST = Board(
    uid="redline-host",
    title="redline: host",
    version=1,
    text="CPU, memory, disk and network of the box, with the signs of waiting first.",
    variables=(("instance", 'label_values(up{job="node"}, instance)'),),
    rows=(
        Row("Waiting", (
            panel("Time in which something waited (PSI)", "share",
                  *((_rate(f"node_pressure_{kind}_waiting_seconds_total"), f"{kind} {_I}")
                    for kind in ("cpu", "memory", "io")), most=1),
            panel("Runnable threads", "", (f"node_procs_running{{{_ME}}}", f"running or ready {_I}"),
                  (f"node_load1{{{_ME}}}", f"load, 1 minute {_I}"),
                  (f'count by (instance) (node_cpu_seconds_total{{{_ME}, mode="idle"}})', f"CPUs {_I}")),
        )),
        Row("CPU", (
            panel("CPU time", "cores", (f"sum by (instance, mode) ({_BUSY})",
                                        "{{mode}} " + _I)),
            panel("Context switches and interrupts", "1/s", (_rate("node_context_switches_total"), f"switches {_I}"),
                  (_rate("node_intr_total"), f"interrupts {_I}")),
            panel("Receive loop out of budget", "1/s",
                  (f"sum by (instance) ({_rate('node_softnet_times_squeezed_total')})", f"squeezed {_I}"),
                  (f"sum by (instance) ({_rate('node_softnet_dropped_total')})", f"dropped {_I}")),
        )),
        Row("Memory", (
            panel("Memory", "bytes", (f"node_memory_MemAvailable_bytes{{{_ME}}}", f"available {_I}"),
                  (f"node_memory_Cached_bytes{{{_ME}}}", f"page cache {_I}"),
                  (f"node_memory_AnonHugePages_bytes{{{_ME}}}", f"transparent huge pages {_I}")),
            panel("Faults that read a disk, swapping", "1/s", (_rate("node_vmstat_pgmajfault"), f"major faults {_I}"),
                  (_rate("node_vmstat_pswpin"), f"swapped in {_I}"), (_rate("node_vmstat_pswpout"), f"out {_I}")),
            panel("Killed for lack of memory", "", (f"node_vmstat_oom_kill{{{_ME}}}", f"since boot {_I}")),
        )),
        Row("Disk and network", (
            panel("Disk", "bytes/s", (f"sum by (instance) ({_rate('node_disk_read_bytes_total')})", f"read {_I}"),
                  (f"sum by (instance) ({_rate('node_disk_written_bytes_total')})", f"written {_I}")),
            panel("Network", "bytes/s",
                  (f"sum by (instance) ({_rate('node_network_receive_bytes_total')})", f"in {_I}"),
                  (f"sum by (instance) ({_rate('node_network_transmit_bytes_total')})", f"out {_I}")),
            panel("Connections in trouble", "1/s",
                  (_rate("node_netstat_TcpExt_ListenOverflows"), f"accept queue full {_I}"),
                  (_rate("node_netstat_Tcp_RetransSegs"), f"segments sent again {_I}")),
        )),
    ),
)  # fmt: skip
