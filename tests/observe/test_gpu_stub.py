"""A library in C stands for the driver's, so that the real nvidia-ml-py asks it, in the real sampler process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ASK = """
import json, sys, time
from redline.observe.samplers import Plan
from redline.observe.sampling import sampling

found = {}
def keep(ticks):
    for tick in ticks:
        for (name, unit, labels), value in zip(tick.layout.columns, json.loads(tick.values)):
            found.setdefault(name + labels, []).append((tick.t_ns, value))
with sampling(Plan(samplers=("gpu",)), keep) as watch:
    time.sleep(float(sys.argv[1]))
print(json.dumps({"found": found, "told": watch.told()}))
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler: apt install gcc")
    folder = tmp_path_factory.mktemp("stub")
    source = Path(__file__).with_name("nvml_sampling_stub.c")
    command = [compiler, "-shared", "-fPIC", "-w", "-o", str(folder / "libnvidia-ml.so.1"), str(source)]
    subprocess.run(command, check=True)
    return folder


def ask(library: Path, seconds: float, **more: str) -> dict[str, Any]:
    env = {**os.environ, "LD_LIBRARY_PATH": str(library), **more}
    command = [sys.executable, "-c", ASK, str(seconds)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def answer(library: Path) -> dict[str, Any]:
    return ask(library, 2.5)


def last(answer: dict[str, Any], name: str, **labels: str) -> float:
    value: float = answer["found"][name + json.dumps(labels, separators=(",", ":"))][-1][1]
    return value


def test_each_gpu_tells_what_it_can(answer: dict[str, Any]) -> None:
    for gpu in "012":
        assert last(answer, "gpu.memory_used_bytes", gpu=gpu) == (int(gpu) + 2) * 1e9
        assert last(answer, "gpu.power_w", gpu=gpu) == 301 + int(gpu)
        assert last(answer, "gpu.sm_clock_mhz", gpu=gpu) == 1980
        assert last(answer, "gpu.memory_clock_mhz", gpu=gpu) == 3201
        assert last(answer, "gpu.slowed", gpu=gpu) == (gpu == "0")
        assert last(answer, "gpu.slowed_by_power_s", gpu=gpu) == 2.5
        assert last(answer, "gpu.pcie_width", gpu=gpu) == 16
    assert last(answer, "gpu.utilisation_share", gpu="1") == 0.9
    assert last(answer, "gpu.ecc_uncorrected", gpu="0") == 1
    assert last(answer, "gpu.memory_temperature_c", gpu="0") == 55
    found = answer["found"]
    assert 'gpu.energy_j{"gpu":"1"}' not in found
    assert 'gpu.memory_temperature_c{"gpu":"1"}' not in found
    energy = found['gpu.energy_j{"gpu":"0"}']
    watts = (energy[-1][1] - energy[0][1]) / (energy[-1][0] - energy[0][0]) * 1e9
    assert watts == pytest.approx(300, rel=0.2)


def test_activity_comes_from_two_looks_at_the_counters(answer: dict[str, Any]) -> None:
    assert last(answer, "gpu.sm_active_share", gpu="0") == 0.5002
    assert last(answer, "gpu.tensor_active_share", gpu="0") == 0.5005
    assert last(answer, "gpu.dram_active_share", gpu="0") == 0.501
    assert last(answer, "gpu.pcie_tx_bytes_per_s", gpu="0") == 2000 << 20
    assert len(answer["found"]['gpu.sm_active_share{"gpu":"0"}']) >= 5
    assert 'gpu.sm_active_share{"gpu":"1"}' not in answer["found"], "an L4 has no GPM"
    assert last(answer, "gpu.pcie_rx_bytes_per_s", gpu="1") == 2048 << 10, "from the driver's own look"
    assert not [name for name in answer["found"] if "nvlink" in name]


def test_mig_instances_have_memory_and_activity_of_their_own(answer: dict[str, Any]) -> None:
    assert last(answer, "gpu.memory_total_bytes", gpu="2", mig="3") == 20e9
    assert last(answer, "gpu.sm_active_share", gpu="2", mig="3") == 0.3002
    assert last(answer, "gpu.sm_active_share", gpu="2", mig="5") == 0.5002
    assert 'gpu.power_w{"gpu":"2","mig":"3"}' not in answer["found"]


def test_what_is_not_told_is_said_once(answer: dict[str, Any]) -> None:
    notes = answer["told"]["notes"]
    assert "GPU 1 (NVIDIA L4) does not tell its TotalEnergyConsumption: no permission" in notes
    assert "GPU 2 (NVIDIA H100) does not tell its UtilizationRates: not supported" in notes
    assert len(notes) == len(set(notes))
    assert not [note for note in notes if "GPU 0" in note and "PerformanceState" not in note and "Rows" not in note]


def test_ten_times_a_second_and_the_cost_is_told(answer: dict[str, Any]) -> None:
    cost = answer["told"]["samplers"]["gpu"]
    assert cost["ticks"] >= 8
    assert cost["interval_s"] == 0.1
    assert 0 < cost["cpu_s"] < cost["elapsed_s"]
    assert last(answer, "sampler.cpu_s", sampler="gpu") == pytest.approx(cost["cpu_s"], abs=0.1)


def test_a_driver_that_hangs_is_said_and_left_behind(library: Path) -> None:
    began = time.monotonic()
    answer = ask(library, 7.5, STUB_HANGS="1")
    assert [note for note in answer["told"]["notes"] if note.startswith("gpu: no answer for 5 s")]
    assert time.monotonic() - began < 40, "nobody waits for it"
