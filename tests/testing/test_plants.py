"""What is planted beside a run leaves nothing behind in the process that plants it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from redline.testing import plants
from redline.testing.plants import calmed

RAISE = "import os; os.setpriority(os.PRIO_PROCESS, 0, -15)"
may_raise = subprocess.run([sys.executable, "-c", RAISE], capture_output=True).returncode == 0


@pytest.mark.skipif(not may_raise, reason="takes CAP_SYS_NICE: a raised priority")
def test_calmed_gives_our_own_weight_back() -> None:
    def weights() -> tuple[int, str]:
        group = Path("/proc/self/autogroup")
        return os.getpriority(os.PRIO_PROCESS, 0), group.read_text() if group.exists() else ""

    before = weights()
    give_back = calmed([])
    raised = weights()
    give_back()
    assert weights() == before
    assert raised[0] == -15


@pytest.mark.parametrize("text", [None, "", "/autogroup-12 nice 0\n"], ids=["no file", "in no group", "in a group"])
def test_calmed_where_there_is_no_autogroup(text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "autogroup"
    if text is not None:
        file.write_text(text)
    monkeypatch.setattr(plants, "_AUTOGROUP", str(file))
    before = os.getpriority(os.PRIO_PROCESS, 0)
    calmed([])()
    assert os.getpriority(os.PRIO_PROCESS, 0) == before
    assert file.read_text() == "0"
