"""The logs in `data/` are what vLLM printed: 0.30.0 on a CPU, and 0.26.0 on an H200 (access lines left out)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from redline.engines import vllm_log

DATA = Path(__file__).with_name("data")


@pytest.mark.parametrize("name", ["cpu-0.30.0", "gpu-0.26.0"])
def test_resolved_values_of_real_logs(name: str) -> None:
    expected = json.loads((DATA / f"vllm-{name}.json").read_text())
    assert vllm_log.resolved((DATA / f"vllm-{name}.log").read_text(), expected["metrics"]) == expected["resolved"]


def test_a_log_without_anything_known() -> None:
    assert vllm_log.resolved("", "") == {}
    assert vllm_log.resolved("non-default args: {'broken", "vllm:cache_config_info{") == {}


def test_phases_come_in_order_in_a_real_log() -> None:
    for log in sorted(DATA.glob("vllm-*.log")):
        seen, expect = [], 0
        for line in log.read_text().splitlines():
            for index in range(expect, len(vllm_log.PHASES)):
                if vllm_log.PHASES[index].pattern.search(line):
                    seen.append(vllm_log.PHASES[index].name)
                    expect = index + 1
                    break
        wanted = [phase.name for phase in vllm_log.PHASES if phase.name != "graphs" or "gpu" in log.name]
        assert seen == wanted, log.name
