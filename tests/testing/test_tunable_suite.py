"""The suite must be able to fail: each bad row or box fails exactly the tests meant for it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

EXPECTED = {
    "Good": set(),
    "NoSource": {"test_the_row_is_complete"},
    "NotFound": {
        "test_it_is_found_and_read",
        "test_it_is_judged_by_every_profile",
        "test_applied_and_read_back",
        "test_applied_twice_is_applied_once",
        "test_another_value_is_seen",
        "test_put_back_byte_for_byte",
    },
    "Refused": {
        "test_applied_and_read_back",
        "test_applied_twice_is_applied_once",
        "test_another_value_is_seen",
        "test_put_back_byte_for_byte",
    },
    "GrantedInPart": {"test_applied_and_read_back"},
    "Blind": {"test_another_value_is_seen"},
    # once spoiled it stays spoiled: the first test that writes finds it
    "ForgetsTheOther": {"test_applied_and_read_back"},
    "CountsUp": {
        "test_applied_and_read_back",
        "test_applied_twice_is_applied_once",
        "test_another_value_is_seen",
        "test_put_back_byte_for_byte",
    },
    "MakesNoSense": {"test_it_is_judged_by_every_profile", "test_applied_and_read_back", "test_another_value_is_seen"},
}

BAD = """
import pytest
from dataclasses import replace
from redline.node.fake import Box, FakeSys
from redline.node.tunables.rows import everywhere, want
from redline.node.tunables.table import BY_ID
from redline.testing.tunable_suite import TunableSuite
from tests.node.boxes import plant

ROW = BY_ID["vm.vfs_cache_pressure"]
PATH = "/proc/sys/vm/vfs_cache_pressure"

class Common(TunableSuite):
    row = ROW
    made = Box()
    kind = FakeSys

    @pytest.fixture(scope="class")
    @classmethod
    def tunable(cls):
        return cls.row

    @pytest.fixture(scope="class")
    @classmethod
    def box(cls, tmp_path_factory):
        files = {PATH[1:]: "150\\n", "proc/sys/vm/dirty_ratio": "20\\n", "proc/sys/vm/dirty_bytes": "0\\n"}
        return cls.kind(plant(tmp_path_factory.mktemp("box"), files), cls.made)

class TestGood(Common):
    pass

class TestNoSource(Common):
    row = replace(ROW, sources=())

class TestNotFound(Common):
    row = replace(ROW, places=lambda sys: [])

class TestRefused(Common):
    made = Box(refuse={PATH: "EPERM"})

class TestGrantedInPart(Common):
    row = replace(ROW, wants=everywhere("at least", 5000))
    made = Box(grants={PATH: 4000})

class TestBlind(Common):
    row = replace(ROW, read=lambda sys, place: "100")

class ForgetsTheOther(FakeSys):
    def set_attribute(self, path, value):
        super().set_attribute(path, value)
        if path == PATH:
            (self.root / "proc/sys/vm/dirty_bytes").write_text("7\\n")

class TestForgetsTheOther(Common):
    # it changes a value that can only be had back by writing a third one, which the row does not name
    row = replace(ROW, coupled=("vm.dirty_bytes",))
    kind = ForgetsTheOther

class CountsUp(FakeSys):
    writes = 0
    def set_attribute(self, path, value):
        super().set_attribute(path, value)
        CountsUp.writes += 1
        (self.root / path[1:]).write_text(f"{CountsUp.writes}\\n")

class TestCountsUp(Common):
    kind = CountsUp

class TestMakesNoSense(Common):
    row = replace(ROW, read=lambda sys, place: "a lot")
"""


def test_each_fault_is_found_by_the_tests_meant_for_it(tmp_path: Path) -> None:
    (tmp_path / "test_bad.py").write_text(BAD)
    options = ["-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), "-rfE"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(tmp_path / "test_bad.py")],
        capture_output=True,
        text=True,
        timeout=55,
        cwd=ROOT,
        check=False,
    )
    found: dict[str, set[str]] = {name: set() for name in EXPECTED}
    for name, test in re.findall(r"(?:FAILED|ERROR) \S*::Test(\w+)::(\w+)", done.stdout):
        found[name].add(test)
    assert found == EXPECTED, done.stdout[-3000:]
