"""What is planted beside a run leaves nothing behind in the process that plants it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from redline.testing.plants import calmed


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root: a raised priority")
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
