from __future__ import annotations

import json
from dataclasses import replace

from redline.node.audit_lines import as_data, is_bad, lines
from redline.node.judge import Judged
from redline.node.tunables.rows import want
from redline.node.tunables.table import BY_ID
from redline.node.tunables.tunable import Place

GOVERNOR = Judged(BY_ID["cpu.governor"], Place("/p", "policy0"), "drift", "powersave", want("equals", "performance"))


def test_equal_places_share_a_line_and_the_odd_one_has_its_own() -> None:
    many = [replace(GOVERNOR, place=Place("/p", f"policy{n}")) for n in range(4)]
    odd = replace(GOVERNOR, place=Place("/p", "policy4"), state="ok", value="performance")
    found = lines([*many, odd])
    assert [(line.where, line.change) for line in found] == [
        ("4 of 5: policy0 … policy3", "powersave → performance"),
        ("policy4, 1 of 5", "performance"),
    ]


def test_what_is_wanted_is_shown_with_its_sign() -> None:
    limit = replace(GOVERNOR, value="", want=want("at least", 5))
    assert lines([limit])[0].change == "'' → ≥ 5"
    assert lines([replace(limit, value=None, state="unknown")])[0].change == "? → ≥ 5"
    assert lines([replace(limit, value="7", want=want("one of", 1, 2))])[0].change == "7 → 1 | 2"


def test_what_counts_as_bad() -> None:
    assert is_bad(GOVERNOR)
    assert is_bad(GOVERNOR, "medium")
    assert not is_bad(GOVERNOR, "high")
    assert not is_bad(replace(GOVERNOR, state="inert"))
    assert is_bad(replace(GOVERNOR, state="overridden"))
    assert not is_bad(replace(GOVERNOR, tunable=BY_ID["kernel.timer_migration"]))


def test_data_can_be_written_as_json() -> None:
    data = json.loads(json.dumps(as_data(GOVERNOR)))
    assert data["want"] == {"op": "equals", "values": ["performance"]}
    assert data["sources"][0]["date"]
