from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from redline.errors import Skipped
from redline.observe.dcgm import DcgmiSampler, ExporterSampler, monitored, open_dcgm
from redline.observe.sample import Sample
from tests.observe.test_engine_metrics import pages

PAGE = """# HELP DCGM_FI_DEV_SM_CLOCK SM clock frequency (in MHz).
# TYPE DCGM_FI_DEV_SM_CLOCK gauge
DCGM_FI_DEV_SM_CLOCK{gpu="0",UUID="GPU-1",device="nvidia0",modelName="NVIDIA H200",Hostname="h"} 1980
# TYPE DCGM_FI_PROF_PIPE_TENSOR_ACTIVE gauge
DCGM_FI_PROF_PIPE_TENSOR_ACTIVE{gpu="1",UUID="GPU-2",GPU_I_PROFILE="1g.18gb",GPU_I_ID="7"} 0.315
"""
LINES = """#Entity   GRACT  SMACT  SMOCC  TENSO  DRAMA  PCITX  PCIRX  NVLTX  NVLRX
ID
GPU 0     0.998  0.871  0.412  0.300  0.655  1048576  2048  N/A  N/A
"""


def named(samples: list[Sample]) -> dict[tuple[str, ...], tuple[float, str]]:
    return {(one.name, *one.labels.values()): (one.value, one.unit) for one in samples}


def test_an_exporters_page() -> None:
    with pages(PAGE) as (url, _):
        opened = open_dcgm(url)
        assert isinstance(opened, ExporterSampler)
        assert named(opened.read()) == {
            ("dcgm.DCGM_FI_DEV_SM_CLOCK", "0"): (1980, "MHz"),
            ("dcgm.DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", "1", "7"): (0.315, "share"),
        }


def test_dcgmi_is_listened_to_and_its_end_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A made-up program in its place."""
    program = tmp_path / "dcgmi"
    program.write_text(f"#!/bin/sh\ncat <<'X'\n{LINES}X\necho 'Error: hostengine went away'\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    opened = open_dcgm("http://127.0.0.1:1/metrics")
    assert isinstance(opened, DcgmiSampler)
    found: list[Sample] = []
    until = time.monotonic() + 10
    while not opened.notes and time.monotonic() < until:
        time.sleep(0.05)
        found += opened.read()
    opened.close()
    assert named(found)["dcgm.DCGM_FI_PROF_DRAM_ACTIVE", "0"] == (0.655, "share")
    assert named(found)["dcgm.DCGM_FI_PROF_PCIE_TX_BYTES", "0"] == (1048576, "B/s")
    assert not [one for one in found if "NVLINK" in one.name], "N/A is not zero"
    assert "ended with 3" in opened.notes[0]


def test_lines_of_others_are_nothing() -> None:
    for line in ("", "#Entity GRACT", "GPU-I 0 1 2", "GPU x 1 2 3 4 5 6 7 8 9", "GPU 0 0.1"):
        assert monitored(line, 1) == []


def test_without_dcgm_it_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert isinstance(open_dcgm("http://127.0.0.1:1/metrics"), Skipped)
