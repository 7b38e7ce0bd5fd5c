"""Rows on this machine itself: harmless ones through the suite, and proofs in a network namespace of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

from redline.node.live import LiveSys
from redline.node.sys import SysFault
from redline.node.tunables.table import BY_ID
from redline.node.tunables.tunable import Tunable
from redline.testing.tunable_suite import TunableSuite
from tests.node.alone import alone

HARMLESS = ("vm.swappiness", "vm.compaction_proactiveness", "vm.dirty_ratio", "thp.khugepaged_defrag")


def writable(row: Tunable) -> bool:
    """Whether the file is there and takes the value that it has."""
    box = LiveSys()
    places = row.places(box)
    if os.geteuid() != 0 or not places:
        return False
    try:
        box.set_attribute(places[0].path, box.read(places[0].path).split()[0])
    except SysFault:
        return False
    return True


@pytest.mark.parametrize("tunable", [BY_ID[id_] for id_ in HARMLESS], ids=HARMLESS, indirect=True, scope="class")
class TestLive(TunableSuite):
    @pytest.fixture(scope="class")
    @classmethod
    def tunable(cls, request: pytest.FixtureRequest) -> Iterator[Tunable]:
        with alone():
            if not writable(request.param):
                pytest.skip("this box does not let us write it")
            yield request.param

    @pytest.fixture(scope="class")
    @classmethod
    def box(cls) -> LiveSys:
        return LiveSys()


ALONE = ("unshare", "--net", "--pid", "--fork", "--mount-proc")
"""Without the processes of the box: an engine in another namespace is a reason of its own."""
NAMESPACE = """
import json, socket
from redline.node.audit import audit
from redline.node.live import LiveSys
box, path, states = LiveSys(), "/proc/sys/net/core/somaxconn", []
def state():
    found = audit(box, "latency", ["net.core.somaxconn"])[0]
    states.append([found.value, found.state, found.why])
state()
for backlog in (2048, 65535):
    with socket.create_server(("127.0.0.1", 0), backlog=backlog):
        state()
        box.set_attribute(path, b"65535")
        state()
    with socket.create_server(("127.0.0.1", 0), backlog=backlog):
        state()
    box.set_attribute(path, b"4096")
print(json.dumps(states))
"""


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("ss"), reason="needs root and ss")
def test_somaxconn_is_proved_inert_by_a_real_listener_in_a_namespace_of_its_own() -> None:
    """The host's own value stays as it is: each network namespace has one."""
    before = LiveSys().read("/proc/sys/net/core/somaxconn")
    done = subprocess.run(
        [*ALONE, sys.executable, "-c", NAMESPACE], capture_output=True, text=True, timeout=50, check=False
    )
    if "Operation not permitted" in done.stderr:
        pytest.skip("this box gives no network namespace")
    assert done.returncode == 0, done.stderr
    bare, small, small_raised, small_anew, large, large_raised, large_anew = json.loads(done.stdout)
    assert bare[:2] == ["4096", "drift"], "a new namespace has the kernel's default, whatever the host has"
    assert (small[1], small_raised[1], small_anew[1]) == ("inert", "inert", "inert")
    assert "2048" in small[2]
    assert large[:2] == ["4096", "drift"]
    assert large_raised[:2] == ["65535", "inert"], "listen() was cut to 4096 and stays so"
    assert large_anew[:2] == ["65535", "ok"]
    assert LiveSys().read("/proc/sys/net/core/somaxconn") == before
