"""Checks of the box: GPU, cores, clock, memory, disk, files, the kernel's receive timestamps."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from redline.node.check import Check
from redline.node.tree import Fact, is_skipped

SO_TIMESTAMPNS = 35  # asm-generic/socket.h; Python does not name it
GIB = 1 << 30


def check_gpu(gpu: Fact) -> Check:
    if is_skipped(gpu):
        return Check(
            "GPU",
            "missing",
            str(gpu["skipped"]),
            "engines run on the CPU; figures say nothing about GPUs",
            str(gpu["how"]),
        )
    devices = gpu["devices"]
    names = ", ".join(sorted({str(device["name"]) for device in devices}))
    found = f"{len(devices)} × {names}, driver {gpu['driver']}, CUDA {gpu['cuda']}"
    faults = [fault for device in devices for fault in _gpu_faults(device)]
    if faults:
        how = "see nvidia-smi -q; free or reset the card before you trust a number from it"
        return Check("GPU", "warn", found, "; ".join(faults), how)
    smallest = min((device["memory_bytes"] or 0 for device in devices), default=0)
    return Check("GPU", "ok", found, f"nobody else on it; {_fitting(smallest)} on each")


def _gpu_faults(device: Fact) -> list[str]:
    """What would make a number from this card doubtful."""
    name, faults = f"GPU {device['index']}", []
    if device["processes"]:
        faults.append(f"{name}: {device['processes']} other processes hold memory on it")
    pcie, power, rows = device["pcie"], device["power"], device["remapped_rows"] or {}
    if pcie["width"] and pcie["width_max"] and pcie["width"] < pcie["width_max"]:
        faults.append(f"{name}: PCIe link is ×{pcie['width']} of ×{pcie['width_max']}")
    if power["limit_w"] and power["default_limit_w"] and power["limit_w"] < power["default_limit_w"]:
        faults.append(f"{name}: power limit {power['limit_w']:.0f} W, by default {power['default_limit_w']:.0f} W")
    if rows.get("pending") or rows.get("failed"):
        faults.append(f"{name}: memory rows wait to be remapped or could not be")
    slowed = [reason for reason in device["clock_event_reasons"] if "thermal" in reason or "hardware" in reason]
    return faults + [f"{name}: clock held down: {reason}" for reason in slowed]


def check_cores(cpu: Fact) -> Check:
    usable, threads = cpu["usable_cores"], cpu["threads"]
    found = f"{usable:g} usable of {threads} logical CPUs ({cpu['cores']} cores), {cpu['model']}"
    limited = []
    if cpu["quota_cores"]:
        limited.append(f"a CPU quota of {cpu['quota_cores']:g}")
    if cpu["affinity"] and usable < threads and not (cpu["quota_cores"] and cpu["quota_cores"] < threads):
        limited.append(f"affinity to CPUs {cpu['affinity']}")
    if usable < 2:
        return Check(
            "cores", "warn", found, "engine and load generator share one core and slow each other down", "two or more"
        )
    if limited:
        return Check(
            "cores",
            "warn",
            found,
            f"limited by {' and '.join(limited)}; a quota stops threads in bursts and shows up in tail latency",
            "prefer whole cores (cpuset) to a quota",
        )
    return Check("cores", "ok", found, "no limit below the box's own")


def check_features(cpu: Fact) -> Check:
    features = cpu["features"]
    known = [name for name in features if name.startswith(("avx", "amx", "asimd", "bf16", "sve", "i8mm"))]
    found = " ".join(known) or "none that matter"
    if "amx_bf16" in features or "avx512_bf16" in features or "bf16" in features:
        return Check("CPU arithmetic", "ok", found, "bfloat16 in hardware")
    if "avx2" in features or "asimd" in features:
        return Check(
            "CPU arithmetic",
            "warn",
            found,
            "no bfloat16 in hardware: float32 may be faster",
            "--dtype float32 on this CPU",
        )
    return Check("CPU arithmetic", "warn", found, "engines may refuse to start on this CPU", "a CPU with AVX2")


def check_governor(cpu: Fact) -> Check:
    frequency = cpu["frequency"]
    if is_skipped(frequency):
        return Check("CPU clock", "ok", "not exposed here", "whoever runs this virtual machine sets it")
    governor, preference = frequency["governor"], frequency["energy_preference"]
    found = f"{governor} ({frequency['driver']}" + ("" if is_skipped(preference) else f", {preference}") + ")"
    if governor == "performance":
        return Check("CPU clock", "ok", found, "held up")
    how = "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
    return Check("CPU clock", "warn", found, "the clock falls between requests; tail latencies vary", how)


def check_load(load: Fact, cpu: Fact) -> Check:
    if is_skipped(load["loadavg"]):
        return Check("other load", "ok", "unknown", "no /proc/loadavg")
    busy = load["loadavg"][0]
    found = f"load average {busy:g} on {cpu['usable_cores']:g} cores"
    if busy > 0.5 * cpu["usable_cores"]:
        return Check(
            "other load",
            "warn",
            found,
            "something else is running; it will show in the numbers",
            "top, then wait or stop it",
        )
    return Check("other load", "ok", found, "the box is quiet")


def check_memory(memory: Fact) -> Check:
    usable, total = memory["usable_bytes"], memory["total_bytes"]
    found = f"{usable / GIB:.1f} GiB free of {total / GIB:.1f} GiB"
    if memory["limit_bytes"]:
        found += f", limited to {memory['limit_bytes'] / GIB:.1f} GiB"
    if usable < 2 * GIB:
        return Check(
            "memory", "warn", found, "too little for more than the bundled model", "close something, or a bigger box"
        )
    if memory["swap_used_bytes"] > GIB:
        used = memory["swap_used_bytes"] / GIB
        return Check("memory", "warn", found, f"{used:.1f} GiB are swapped out", "free memory before you measure")
    return Check("memory", "ok", found, f"{_fitting(usable)} on the CPU")


def _fitting(size: float) -> str:
    # two bytes a parameter, and a third on top for the KV cache and activations
    return f"a bfloat16 model of about {size / 2 / 1.3 / 1e9:.0f} billion parameters fits"


def check_disk(place: Path) -> Check:
    folder = next((parent for parent in [place, *place.parents] if parent.exists()), Path())
    free = shutil.disk_usage(folder).free
    found = f"{free / GIB:.1f} GiB free at {folder.resolve()}"
    if free < GIB:
        return Check("disk", "warn", found, "results and logs may not fit", "make room, or --db on another disk")
    return Check("disk", "ok", found, "enough for results" if free < 50 * GIB else "enough for results and models")


def check_open_files() -> Check:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    shown = "unlimited" if hard == resource.RLIM_INFINITY else str(hard)
    if soft == resource.RLIM_INFINITY or soft >= 4096:
        return Check(
            "open files", "ok", f"{soft} (can be raised to {shown})", f"about {soft - 200} connections at once"
        )
    how = f"ulimit -n {min(65536, hard) if hard != resource.RLIM_INFINITY else 65536}"
    return Check(
        "open files", "warn", f"{soft} (can be raised to {shown})", f"about {soft - 200} connections at once", how
    )


def check_timestamps(probe: Callable[[], float | None] | None = None) -> Check:
    """Sends through loopback and asks the kernel when it arrived."""
    name = "kernel timestamps"
    try:
        lag_us = (probe or _stamp_lag_us)()
    except OSError as error:
        return Check(name, "warn", f"refused: {error}", "arrivals are stamped by our own clock, later and less exact")
    if lag_us is None:
        return Check(
            name,
            "warn",
            "no stamp came with the data",
            "arrivals are stamped by our own clock, later and less exact",
            "a Linux kernel with SO_TIMESTAMPNS (not gVisor)",
        )
    return Check(
        name, "ok", f"on TCP sockets; read {lag_us:.0f} µs after arrival", "arrivals are stamped by the kernel"
    )


def _stamp_lag_us() -> float | None:
    """Microseconds from the kernel's stamp to our own reading of the clock; None when no stamp came."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(1)
        with socket.create_connection(server.getsockname(), timeout=1) as client, server.accept()[0] as peer:
            client.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            lags: list[float] = []
            give_up = time.monotonic() + 1
            while len(lags) < 5 and time.monotonic() < give_up:
                peer.sendall(b"x")
                _, ancillary, _, _ = client.recvmsg(16, 256)
                read_ns = time.time_ns()
                stamps = [stamp for stamp in map(_stamp_ns, ancillary) if stamp]
                lags += [(read_ns - stamp) / 1000 for stamp in stamps]
                if not stamps:  # for the first asker the kernel switches stamping on in a worker, a few ms later
                    time.sleep(0.01)
            return min(lags) if lags else None


def _stamp_ns(message: tuple[int, int, Any]) -> int | None:
    level, kind, data = message
    if (level, kind) != (socket.SOL_SOCKET, SO_TIMESTAMPNS) or len(data) < 16:
        return None
    seconds, nanoseconds = struct.unpack("@qq", data[:16])
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


def check_shared_memory() -> Check:
    """/dev/shm, through which engines with several processes pass tensors; docker gives 64 MB unless told."""
    try:
        info = os.statvfs("/dev/shm")
    except OSError:
        return Check(
            "shared memory", "warn", "no /dev/shm", "engines with several processes will fail", "mount a tmpfs there"
        )
    size = info.f_blocks * info.f_frsize
    if size < GIB:
        meaning = "tensor-parallel engines may crash or hang"
        return Check("shared memory", "warn", f"{size / (1 << 20):.0f} MiB", meaning, "docker run --shm-size=8g")
    return Check("shared memory", "ok", f"{size / GIB:.1f} GiB", "enough")
