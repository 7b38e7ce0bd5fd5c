from __future__ import annotations

from pathlib import Path

import pytest

from redline.node.daemons import runs, tuned_profiles, tuned_value
from redline.node.fake import FakeSys
from tests.node.boxes import plant

RUNNING = {"sys/fs/cgroup/system.slice/tuned.service/cgroup.procs": "500\n"}


def box(root: Path, profile: str, **profiles: str) -> FakeSys:
    files = {f"usr/lib/tuned/{name}/tuned.conf": content for name, content in profiles.items()}
    return FakeSys(plant(root, RUNNING | files | {"etc/tuned/active_profile": profile + "\n"}))


@pytest.mark.parametrize(
    ("files", "there"),
    [
        (RUNNING, True),
        ({"sys/fs/cgroup/system.slice/tuned.service/cgroup.procs": ""}, False),
        ({"run/tuned/tuned.pid": "7\n", "proc/7/comm": "tuned\n"}, True),
        ({"run/tuned/tuned.pid": "7\n"}, False),
        ({}, False),
    ],
)
def test_whether_a_daemon_runs(tmp_path: Path, files: dict[str, str], there: bool) -> None:
    assert runs(FakeSys(plant(tmp_path, files)), "tuned") is there


def test_values_of_the_active_profile_and_of_those_it_includes(tmp_path: Path) -> None:
    found = box(
        tmp_path,
        "site",
        site="[main]\ninclude=middle\n[sysctl]\nvm.swappiness = 5 # ours\n",
        middle="[main]\ninclude=bottom\n[cpu]\ngovernor=performance\n",
        bottom="[sysctl]\nvm.swappiness=60\nnet.core.somaxconn=>2048\n[disk]\nreadahead=>4096\n",
    )
    assert tuned_profiles(found) == ["site"]
    assert tuned_value(found, "vm.swappiness") == ("5", "/usr/lib/tuned/site/tuned.conf")
    assert tuned_value(found, "net.core.somaxconn") == ("2048", "/usr/lib/tuned/bottom/tuned.conf")
    assert tuned_value(found, "scaling_governor") == ("performance", "/usr/lib/tuned/middle/tuned.conf")
    assert tuned_value(found, "queue/read_ahead_kb") == ("4096", "/usr/lib/tuned/bottom/tuned.conf")
    assert tuned_value(found, "vm.dirty_ratio") is None


def test_profiles_that_include_each_other_end(tmp_path: Path) -> None:
    found = box(tmp_path, "a", a="[main]\ninclude=b\n", b="[main]\ninclude=a\n")
    assert tuned_value(found, "vm.swappiness") is None


def test_a_file_that_is_no_profile(tmp_path: Path) -> None:
    assert tuned_value(box(tmp_path, "a", a="no section\n"), "vm.swappiness") is None
