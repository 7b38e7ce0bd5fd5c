"""Samples of every GPU by NVML, labelled `gpu`: its index, and of every MIG instance, labelled `mig` too; the names are
in `redline.sampled`. What a driver or a card does not tell is said once and not asked again.

What moves is read at every tick, what hardly does once a second. On Hopper and later the card's own activity counters
(GPM) are read too.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from redline.errors import Skipped
from redline.node.nvml import SLOWING, Nvml, close_nvml, open_nvml, process_memory
from redline.observe.gpm import Gpm
from redline.observe.nvml_ask import Asking
from redline.observe.proc import Tree
from redline.observe.reading import Rates, Reading
from redline.observe.sample import Sample

SLOW_EVERY_S = 1.0
_SM, _MEMORY = 1, 2  # kinds of clocks
_POWER, _THERMAL = 0, 1  # kinds of violations
_TX, _RX = 0, 1
_CORRECTED, _UNCORRECTED, _VOLATILE = 0, 1, 0
_FIELD_MEMORY_TEMPERATURE, _FIELD_PCIE_TX, _FIELD_PCIE_RX = 82, 197, 198


@dataclass
class Device:
    """A GPU, or an instance of one: then `parent` is whose it is and `instance` its number there."""

    handle: Any
    labels: dict[str, str]
    ask: Asking
    parent: Any = None
    instance: int | None = None
    gpm: Gpm | None = None
    rates: Rates = field(default_factory=Rates)


class GpuSampler:
    """Call `read` at every tick, `close` at the end."""

    name = "gpu"

    def __init__(self, opened: Nvml, pids: Sequence[int]) -> None:
        self._nvml = opened
        self._tree = Tree(tuple(pids))
        self.notes: list[str] = []
        self._devices = [device for index, handle in enumerate(opened.handles) for device in self._open(index, handle)]
        self._slow_at = 0.0

    @classmethod
    def open(cls, pids: Sequence[int], library: Any = None) -> GpuSampler | Skipped:
        opened = open_nvml(library)
        return opened if isinstance(opened, Skipped) else cls(opened, pids)

    def close(self) -> None:
        for device in self._devices:
            if device.gpm is not None:
                device.gpm.close()
        close_nvml(self._nvml)

    def _open(self, index: int, handle: Any) -> list[Device]:
        card = _text(self._nvml.ask("DeviceGetName", handle)) or "GPU"
        who = f"GPU {index} ({card})"
        labels = {"gpu": str(index)}
        device = Device(handle, labels, Asking(self._nvml.library, who, self.notes))
        found = [device, *self._instances(handle, labels, who)]
        for one in found:
            one.gpm = Gpm.open(self._nvml.library, one.parent or handle, one.instance, one.ask)
        return found

    def _instances(self, handle: Any, labels: dict[str, str], who: str) -> list[Device]:
        mode = self._nvml.ask("DeviceGetMigMode", handle)
        if not mode or not mode[0]:
            return []
        found: dict[int, Device] = {}
        for place in range(self._nvml.ask("DeviceGetMaxMigDeviceCount", handle) or 0):
            instance = self._nvml.ask("DeviceGetMigDeviceHandleByIndex", handle, place)
            number = None if instance is None else self._nvml.ask("DeviceGetGpuInstanceId", instance)
            if number is None or number in found:  # compute instances of one GPU instance share its memory and counters
                continue
            ask = Asking(self._nvml.library, f"{who}, MIG instance {number}", self.notes)
            found[number] = Device(instance, {**labels, "mig": str(number)}, ask, parent=handle, instance=number)
        return list(found.values())

    def read(self) -> list[Sample]:
        slow = time.monotonic() >= self._slow_at
        if slow:
            self._slow_at = time.monotonic() + SLOW_EVERY_S
        samples: list[Sample] = []
        used_bytes = 0.0
        for device in self._devices:
            into = Reading()
            self._fast(device, into)
            if device.gpm is not None:
                device.gpm.read(into, device.labels)
            if slow:
                self._slow(device, into)
            if device.parent is None:
                used_bytes += sum(one.value for one in into.samples if one.name == "gpu.memory_used_bytes")
            samples += into.samples
        if slow and self._tree.roots:
            samples += self._engine(used_bytes)
        return samples

    def _fast(self, device: Device, into: Reading) -> None:
        ask, handle, labels = device.ask, device.handle, device.labels
        if memory := ask("DeviceGetMemoryInfo", handle):
            into.put("gpu.memory_used_bytes", memory.used, labels)
            if device.parent is not None:
                into.put("gpu.memory_total_bytes", memory.total, labels)
        if device.parent is not None:
            return  # an instance has memory of its own; power, clocks and heat are the card's
        if rates := ask("DeviceGetUtilizationRates", handle):
            into.put("gpu.utilisation_share", rates.gpu / 100, labels)
            into.put("gpu.memory_busy_share", rates.memory / 100, labels)
        into.put("gpu.power_w", _scaled(ask("DeviceGetPowerUsage", handle), 1e-3), labels)
        into.put("gpu.energy_j", _scaled(ask("DeviceGetTotalEnergyConsumption", handle), 1e-3), labels)
        into.put("gpu.sm_clock_mhz", ask("DeviceGetClockInfo", handle, _SM), labels)
        into.put("gpu.memory_clock_mhz", ask("DeviceGetClockInfo", handle, _MEMORY), labels)
        bits = _reasons(ask, handle)
        into.put("gpu.clock_event_bits", bits, labels)
        into.put("gpu.slowed", None if bits is None else int(bool(bits & SLOWING)), labels)

    def _slow(self, device: Device, into: Reading) -> None:
        if device.parent is not None:
            return
        ask, handle, labels = device.ask, device.handle, device.labels
        if memory := ask("DeviceGetMemoryInfo", handle):
            into.put("gpu.memory_total_bytes", memory.total, labels)
        into.put("gpu.temperature_c", ask("DeviceGetTemperature", handle, 0), labels)
        into.put("gpu.power_limit_w", _scaled(ask("DeviceGetEnforcedPowerLimit", handle), 1e-3), labels)
        into.put("gpu.performance_state", ask("DeviceGetPerformanceState", handle), labels)
        into.put("gpu.pcie_generation", ask("DeviceGetCurrPcieLinkGeneration", handle), labels)
        into.put("gpu.pcie_width", ask("DeviceGetCurrPcieLinkWidth", handle), labels)
        into.put("gpu.pcie_replays", ask("DeviceGetPcieReplayCounter", handle), labels)
        for name, kind in (("power", _POWER), ("heat", _THERMAL)):
            held = ask("DeviceGetViolationStatus", handle, kind)
            into.put(f"gpu.slowed_by_{name}_s", held and held.violationTime / 1e9, labels)
        for name, kind in (("corrected", _CORRECTED), ("uncorrected", _UNCORRECTED)):
            into.put(f"gpu.ecc_{name}", ask("DeviceGetTotalEccErrors", handle, kind, _VOLATILE), labels)
        if rows := ask("DeviceGetRemappedRows", handle):
            into.put("gpu.remapped_rows", rows[0] + rows[1], labels)
        temperature = ask.field(handle, _FIELD_MEMORY_TEMPERATURE, "memory temperature")
        into.put("gpu.memory_temperature_c", temperature or None, labels)  # a card without the sensor says 0
        if device.gpm is None or not device.gpm.has_pcie:
            self._pcie(device, into)

    def _pcie(self, device: Device, into: Reading) -> None:
        """From the byte counters; where there are none, from the driver's own look, which takes 20 ms each way."""
        for name, number, kind in (("tx", _FIELD_PCIE_TX, _TX), ("rx", _FIELD_PCIE_RX, _RX)):
            counted = device.ask.field(device.handle, number, f"PCIe bytes {name}", quietly=True)
            rate: float | None
            if counted is not None:
                rate = device.rates.per_s(name, into.t_ns, counted)
            else:
                rate = _scaled(device.ask("DeviceGetPcieThroughput", device.handle, kind), 1024)
            into.put(f"gpu.pcie_{name}_bytes_per_s", rate, device.labels)

    def _engine(self, used_bytes: float) -> list[Sample]:
        mine = self._tree.look()
        held, seen = 0, False
        for handle in self._nvml.handles:
            for pid, amount in process_memory(self._nvml, handle).items():
                if pid in mine and amount is not None:
                    held, seen = held + amount, True
        into = Reading()
        source, value = ("process", float(held)) if seen else ("device", used_bytes)
        into.put("engine.gpu_memory_bytes", value, {"source": source})
        return into.samples


def _reasons(ask: Asking, handle: Any) -> int | None:
    """Drivers before 535 know the function by its old name only."""
    bits = ask("DeviceGetCurrentClocksEventReasons", handle, quietly=True)
    found = bits if bits is not None else ask("DeviceGetCurrentClocksThrottleReasons", handle)
    return None if found is None else int(found)


def _scaled(value: float | None, scale: float) -> float | None:
    return None if value is None else value * scale


def _text(name: Any) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name or "")
