"""GPU facts by NVML: identity without serial numbers, health, clocks, power, link, and who else is on it."""

from __future__ import annotations

import hashlib
from typing import Any

from redline.errors import Skipped
from redline.node.nvml import Nvml, clock_reasons, nvml, process_memory, reason_names
from redline.node.tree import Fact, skipped

_REMOTES = {0: "gpu", 1: "cpu", 2: "nvswitch"}
_MODES = {0: "default", 1: "exclusive-thread", 2: "prohibited", 3: "exclusive-process"}


def gpu_facts(library: Any = None) -> Fact:
    """`driver`, `cuda` and one entry of `devices` per GPU; skipped without any."""
    with nvml(library) as opened:
        if isinstance(opened, Skipped):
            return skipped(opened.reason, opened.how_to_get_it)
        cuda = opened.ask("SystemGetCudaDriverVersion_v2") or opened.ask("SystemGetCudaDriverVersion")
        return {
            "driver": _text(opened.ask("SystemGetDriverVersion")),
            "cuda": f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else None,
            "devices": [_device(opened, index, handle) for index, handle in enumerate(opened.handles)],
        }


def _device(opened: Nvml, index: int, handle: Any) -> Fact:
    ask = opened.ask
    memory = ask("DeviceGetMemoryInfo", handle)
    capability = ask("DeviceGetCudaComputeCapability", handle)
    uuid = _text(ask("DeviceGetUUID", handle)) or ""
    return {
        "index": index,
        "name": _text(ask("DeviceGetName", handle)),
        "pci_address": pci_address(ask("DeviceGetPciInfo", handle)),
        "uuid_hash": hashlib.sha256(uuid.encode()).hexdigest()[:12] if uuid else None,
        "compute_capability": ".".join(map(str, capability)) if capability else None,
        "memory_bytes": memory.total if memory else None,
        "memory_used_bytes": memory.used if memory else None,
        "processes": len(process_memory(opened, handle)),
        "compute_mode": _MODES.get(ask("DeviceGetComputeMode", handle)),
        "persistence": _switch(ask("DeviceGetPersistenceMode", handle)),
        "ecc": _switch(_first(ask("DeviceGetEccMode", handle))),
        "mig": _switch(_first(ask("DeviceGetMigMode", handle))),
        "mig_devices": _mig_devices(opened, handle),
        "ecc_errors": _ecc_errors(opened, handle),
        "remapped_rows": _remapped(ask("DeviceGetRemappedRows", handle)),
        "power": _power(opened, handle),
        "clocks_mhz": _clocks(opened, handle),
        "clock_event_reasons": reason_names(clock_reasons(opened, handle)),
        "temperature_c": ask("DeviceGetTemperature", handle, 0),
        "pcie": _pcie(opened, handle),
        "nvlinks": sum(1 for link in range(18) if ask("DeviceGetNvLinkState", handle, link) == 1),
        "nvlink_version": ask("DeviceGetNvLinkVersion", handle, 0),
        "nvlink_to": _REMOTES.get(ask("DeviceGetNvLinkRemoteDeviceType", handle, 0)),
    }


def gpu_addresses(library: Any = None) -> tuple[str, ...]:
    """PCI addresses in NVML's order, as sysfs writes them; empty without NVML."""
    with nvml(library) as opened:
        if isinstance(opened, Skipped):
            return ()
        return tuple(pci_address(opened.ask("DeviceGetPciInfo", handle)) or "" for handle in opened.handles)


def pci_address(info: Any) -> str | None:
    """NVML's `00000000:1B:00.0` as sysfs writes it: `0000:1b:00.0`."""
    domain, colon, rest = (_text(getattr(info, "busId", None)) or "").lower().partition(":")
    return f"{int(domain, 16):04x}:{rest}" if colon else None


def _power(opened: Nvml, handle: Any) -> Fact:
    names = {
        "limit_w": "DeviceGetEnforcedPowerLimit",
        "default_limit_w": "DeviceGetPowerManagementDefaultLimit",
        "now_w": "DeviceGetPowerUsage",
    }
    milliwatts = {name: opened.ask(function, handle) for name, function in names.items()}
    return {name: None if value is None else value / 1000 for name, value in milliwatts.items()}


def _clocks(opened: Nvml, handle: Any) -> Fact:
    """Now, highest and, where set, locked application clocks of the streaming multiprocessors (sm) and memory."""
    found: Fact = {}
    for name, kind in (("sm", 1), ("memory", 2)):
        found[name] = opened.ask("DeviceGetClockInfo", handle, kind)
        found[f"{name}_max"] = opened.ask("DeviceGetMaxClockInfo", handle, kind)
        found[f"{name}_application"] = opened.ask("DeviceGetApplicationsClock", handle, kind)
    return found


def _pcie(opened: Nvml, handle: Any) -> Fact:
    """Generation drops while the link idles, which is no fault; the width never should. `generation_max` is what card
    and slot can do together, `generation_device_max` the card alone."""
    return {
        "generation": opened.ask("DeviceGetCurrPcieLinkGeneration", handle),
        "generation_max": opened.ask("DeviceGetMaxPcieLinkGeneration", handle),
        "generation_device_max": opened.ask("DeviceGetGpuMaxPcieLinkGeneration", handle),
        "width": opened.ask("DeviceGetCurrPcieLinkWidth", handle),
        "width_max": opened.ask("DeviceGetMaxPcieLinkWidth", handle),
    }


def _mig_devices(opened: Nvml, handle: Any) -> list[str]:
    """Names of the instances that the card is cut into: `NVIDIA H100 80GB HBM3 MIG 1g.10gb`."""
    if not _first(opened.ask("DeviceGetMigMode", handle)):
        return []
    most = opened.ask("DeviceGetMaxMigDeviceCount", handle) or 0
    parts = (opened.ask("DeviceGetMigDeviceHandleByIndex", handle, place) for place in range(most))
    return [_text(opened.ask("DeviceGetName", part)) or "?" for part in parts if part is not None]


def _ecc_errors(opened: Nvml, handle: Any) -> Fact:
    """Counts since the driver was loaded (`volatile`) and ever (`aggregate`)."""
    kinds = {"corrected": 0, "uncorrected": 1}
    spans = {"volatile": 0, "aggregate": 1}
    return {
        f"{span}_{kind}": opened.ask("DeviceGetTotalEccErrors", handle, kinds[kind], spans[span])
        for span in spans
        for kind in kinds
    }


def _remapped(rows: Any) -> Fact | None:
    if not rows:
        return None
    correctable, uncorrectable, pending, failed = rows
    return {
        "correctable": correctable,
        "uncorrectable": uncorrectable,
        "pending": bool(pending),
        "failed": bool(failed),
    }


def _first(pair: Any) -> Any:
    """Current of (current, pending)."""
    return pair[0] if isinstance(pair, list | tuple) and pair else pair


def _switch(value: Any) -> bool | None:
    return None if value is None else bool(value)


def _text(value: Any) -> str | None:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
