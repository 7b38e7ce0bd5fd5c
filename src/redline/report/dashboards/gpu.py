"""The GPUs' dashboard. Every panel asks DCGM's exporter and redline's own (NVML); one of them is enough."""

from __future__ import annotations

from redline.report.dashboards.board import Board, Row, panel

_ME = '{instance=~"$instance"}'
_GPU = "GPU {{gpu}} {{source}}"
_DCGM = "GPU {{gpu}} dcgm"

GPU = Board(
    uid="redline-gpu",
    title="redline: GPU",
    version=1,
    text="What DCGM and NVML tell of each card. Utilisation only says that a kernel was resident.",
    variables=(("instance", 'label_values({__name__=~"DCGM_FI_DEV_GPU_TEMP|redline_gpu_temperature_c"}, instance)'),),
    rows=(
        Row("Is it busy, and with what", (
            panel("A kernel was resident", "share", (f"gpu:utilisation:ratio{_ME}", _GPU), most=1,
                  text="100 % may still be an idle card with one slow kernel"),
            panel("SMs, tensor cores and memory at work", "share",
                  (f"gpu:sm_active:ratio{_ME}", f"SM {_GPU}"),
                  (f"gpu:tensor_active:ratio{_ME}", f"tensor {_GPU}"),
                  (f"gpu:dram_active:ratio{_ME}", f"DRAM {_GPU}"), most=1,
                  text="DRAM high and tensor low: bound by memory; both low: by the host"),
            panel("Device memory in use", "bytes", (f"gpu:memory_used:bytes{_ME}", _GPU)),
            panel("PCIe", "bytes/s", (f"gpu:pcie_received:bytes_rate1m{_ME}", f"in {_GPU}"),
                  (f"gpu:pcie_sent:bytes_rate1m{_ME}", f"out {_GPU}")),
        )),
        Row("Power, heat, clocks", (
            panel("Power", "W", (f"gpu:power:watts{_ME}", _GPU)),
            panel("Temperature", "°C", (f"gpu:temperature:celsius{_ME}", _GPU)),
            panel("SM clock", "MHz", (f"gpu:sm_clock:mhz{_ME}", _GPU)),
            panel("Slowed down", "", (f"gpu:slowed:bool{_ME}", "{{reason}} " + _GPU), most=1,
                  text="power-cap is usual under full load; the others are not"),
            panel("Tokens per joule", "tokens/J",
                  ("sum(engine:generation_tokens:rate1m) / sum(gpu:power:watts{source=\"dcgm\"})", "dcgm"),
                  ("sum(engine:generation_tokens:rate1m) / sum(gpu:power:watts{source=\"nvml\"})", "nvml"),
                  text="all engines over all GPUs that are scraped"),
        )),
        Row("Faults", (
            panel("Xids in the kernel log", "", (f"redline_gpu_xid_total{_ME}", "{{xid}} {{meaning}} {{pci}}"),
                  text="counted from the oldest line that the kernel still has"),
            panel("Uncorrectable ECC errors", "", (f"gpu:ecc_uncorrected:total{_ME}", _GPU)),
            panel("PCIe retries", "1/s", (f"rate(DCGM_FI_DEV_PCIE_REPLAY_COUNTER{_ME}[1m])", _DCGM)),
        )),
    ),
)  # fmt: skip
