"""The verdict by what happened to the box."""

from __future__ import annotations

from typing import Any

import pytest

from redline.analyse.case import Case
from redline.analyse.latency import latencies_of
from redline.analyse.verdict import judge
from redline.analyse.window import SteadyWindow
from tests.analyse.traffic import Row, requests_of


def reasons(**box: Any) -> list[str]:
    requests = requests_of(*(Row(chunks=[10.0 + i, 20.0 + i]) for i in range(120)))
    case = Case(requests, latencies_of(requests), SteadyWindow(0, 10**9, True), 10**9, {"box": box})
    return list(judge(case).reasons)


@pytest.mark.parametrize(
    ("box", "said"),
    [
        ({"governors": ["powersave"]}, "governor is powersave"),
        ({"governors": ["performance", "powersave"], "governor_changed": True}, "changed while measuring"),
        ({"heat_events": 3}, "heat 3 times"),
        ({"gpu_slowed": 1.0}, "GPU's clock was held down"),
        ({"swapped_pages": 5000}, "5,000 pages"),
        ({"quota_throttled_s": 1.5}, "CPU quota"),
        ({"steal_cores": 0.4}, "took 0.40 cores"),
        ({"others_cores": 1.2, "cores": 4}, "1.2 of 4 cores"),
    ],
)
def test_what_changed_is_said(box: dict[str, Any], said: str) -> None:
    assert any(said in reason for reason in reasons(**box)), reasons(**box)


@pytest.mark.parametrize(
    "box",
    [
        {},
        {"governors": ["performance"], "heat_events": 0, "swapped_pages": 3, "steal_cores": 0.01, "gpu_slowed": 0.0},
        {"governors": [], "others_cores": 0.2, "cores": 2, "gpu_slowed": None, "quota_throttled_s": None},
    ],
)
def test_a_quiet_box_is_no_reason(box: dict[str, Any]) -> None:
    assert reasons(**box) == []
