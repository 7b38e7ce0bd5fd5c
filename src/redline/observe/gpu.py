"""Samples of every GPU by NVML, labelled `gpu`: its index; and of what the engine holds on all of them.

engine.gpu_memory_bytes     device memory of the engine's processes, all GPUs; label `source` is `process`, or
                            `device` where NVML does not tell processes apart (a container, WSL): then it is all
                            that is in use on the GPUs, whoever holds it
gpu.memory_used_bytes  gpu.utilisation_share  gpu.memory_busy_share  gpu.power_w  gpu.energy_j
gpu.sm_clock_mhz  gpu.temperature_c  gpu.pcie_generation
gpu.clock_event_bits        why the clock is where it is (node/nvml.py names the bits)
gpu.slowed                  1 while power, heat or hardware hold the clock down
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redline.clock import now_ns
from redline.errors import Skipped
from redline.node.nvml import SLOWING, Nvml, clock_reasons, close_nvml, open_nvml, process_memory
from redline.observe.proc import Tree
from redline.observe.sample import Sample


class GpuSampler:
    """Call `read` at every tick, `close` at the end."""

    name = "gpu"

    def __init__(self, opened: Nvml, pids: Sequence[int]) -> None:
        self._nvml = opened
        self._tree = Tree(tuple(pids))

    @classmethod
    def open(cls, pids: Sequence[int], library: Any = None) -> GpuSampler | Skipped:
        opened = open_nvml(library)
        return opened if isinstance(opened, Skipped) else cls(opened, pids)

    def close(self) -> None:
        close_nvml(self._nvml)

    def read(self) -> list[Sample]:
        samples: list[Sample] = []
        used_bytes = 0.0
        for index, handle in enumerate(self._nvml.handles):
            one = self._device(handle, {"gpu": str(index)})
            used_bytes += sum(sample.value for sample in one if sample.name == "gpu.memory_used_bytes")
            samples += one
        return samples + self._engine(used_bytes)

    def _device(self, handle: Any, labels: dict[str, str]) -> list[Sample]:
        ask, t_ns = self._nvml.ask, now_ns()
        memory, rates = ask("DeviceGetMemoryInfo", handle), ask("DeviceGetUtilizationRates", handle)
        bits = clock_reasons(self._nvml, handle)
        values = [
            ("gpu.memory_used_bytes", memory and memory.used, 1.0, "B"),
            ("gpu.utilisation_share", rates and rates.gpu, 0.01, "share"),
            ("gpu.memory_busy_share", rates and rates.memory, 0.01, "share"),
            ("gpu.power_w", ask("DeviceGetPowerUsage", handle), 0.001, "W"),
            ("gpu.energy_j", ask("DeviceGetTotalEnergyConsumption", handle), 0.001, "J"),
            ("gpu.sm_clock_mhz", ask("DeviceGetClockInfo", handle, 1), 1.0, "MHz"),
            ("gpu.temperature_c", ask("DeviceGetTemperature", handle, 0), 1.0, "°C"),
            ("gpu.pcie_generation", ask("DeviceGetCurrPcieLinkGeneration", handle), 1.0, ""),
            ("gpu.clock_event_bits", bits, 1.0, ""),
            ("gpu.slowed", None if bits is None else int(bool(bits & SLOWING)), 1.0, ""),
        ]
        return [
            Sample(t_ns, name, value * scale, unit, labels) for name, value, scale, unit in values if value is not None
        ]

    def _engine(self, used_bytes: float) -> list[Sample]:
        if not self._tree.roots:
            return []
        mine = self._tree.look()
        held, seen = 0, False
        for handle in self._nvml.handles:
            for pid, amount in process_memory(self._nvml, handle).items():
                if pid in mine and amount is not None:
                    held, seen = held + amount, True
        source, value = ("process", float(held)) if seen else ("device", used_bytes)
        return [Sample(now_ns(), "engine.gpu_memory_bytes", value, "B", {"source": source})]
