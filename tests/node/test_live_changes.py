"""On this machine's own kernel, as root: harmless settings, in a network namespace of their own or put back at once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from redline.errors import ApplyFailed
from redline.node.apply import apply
from redline.node.change import Change
from redline.node.live import LiveSys
from redline.node.revert import revert
from redline.node.sys import SysFault
from redline.node.transaction import transactions
from redline.node.verify import verify

VM = "/proc/sys/vm/"
BYTES, RATIO = f"{VM}dirty_background_bytes", f"{VM}dirty_background_ratio"
MAPS, SCAN = f"{VM}max_map_count", "/sys/kernel/mm/transparent_hugepage/khugepaged/scan_sleep_millisecs"
ROOT = Path(__file__).parents[2]


def writable(path: str) -> bool:
    try:
        LiveSys().set_attribute(path, LiveSys().read(path).strip())
    except SysFault:
        return False
    return True


def namespace_works() -> bool:
    if os.geteuid() or not shutil.which("unshare"):
        return False
    argv = ["unshare", "--net", "--mount", "sh", "-c", "mount -t sysfs sysfs /sys"]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


needs_root = pytest.mark.skipif(os.geteuid() != 0 or not writable(MAPS), reason="needs root and a writable /proc/sys")
needs_namespace = pytest.mark.skipif(
    not namespace_works(), reason="needs root and CAP_SYS_ADMIN: unshare --net --mount"
)


@pytest.fixture
def kept() -> Iterator[None]:
    """Whatever goes wrong, the settings of this machine are as before."""
    box = LiveSys()
    paths = [path for path in (RATIO, BYTES, MAPS, SCAN) if box.exists(path)]
    was = {path: box.read(path) for path in paths}
    yield
    for path, value in was.items():
        if box.read(path) != value and value.strip() != b"0":
            box.set_attribute(path, value.strip())
    assert {path: box.read(path) for path in paths} == was


def change(path: str, value: str, *coupled: str) -> Change:
    return Change("attribute", path, LiveSys().read(path), value.encode(), (path,), coupled=coupled)


@needs_root
@pytest.mark.usefixtures("kept")
def test_against_the_kernel_pairs_come_back(tmp_path: Path) -> None:
    """The kernel itself is the oracle: it zeroes the partner, and refuses 0."""
    box = LiveSys()
    was = box.read(BYTES), box.read(RATIO)
    apply(box, [change(BYTES, "268435456", RATIO)], tmp_path)
    assert box.read(RATIO) == b"0\n"
    with pytest.raises(SysFault) as refused:
        box.set_attribute(BYTES, b"0")
    assert refused.value.why == "invalid"
    assert verify(box, tmp_path)[0].state == "in force"
    revert(box, tmp_path)
    assert (box.read(BYTES), box.read(RATIO)) == was


@needs_root
@pytest.mark.usefixtures("kept")
def test_a_value_that_the_kernel_refuses_takes_the_others_back(tmp_path: Path) -> None:
    box = LiveSys()
    was = box.read(MAPS)
    with pytest.raises(ApplyFailed, match="as it was before") as raised:
        apply(box, [change(MAPS, "1048576"), change(RATIO, "101", BYTES)], tmp_path)
    assert "does not take this value" in raised.value.why
    assert box.read(MAPS) == was
    assert next(transactions(tmp_path)).status == "rolled back"


@needs_root
@pytest.mark.usefixtures("kept")
@pytest.mark.skipif(not Path(SCAN).exists(), reason="a kernel without transparent huge pages")
def test_killed_in_the_middle_on_a_real_box(tmp_path: Path) -> None:
    box = LiveSys()
    was = box.read(MAPS), box.read(SCAN)
    code = (
        "import os, sys; from pathlib import Path; from redline.node.apply import apply\n"
        "from redline.node.live import LiveSys; from tests.node.test_live_changes import MAPS, SCAN, change\n"
        "class Mortal(LiveSys):\n"
        "    def set_attribute(self, path, value):\n"
        "        super().set_attribute(path, value)\n"
        "        if path == SCAN: os.kill(os.getpid(), 9)\n"
        "apply(Mortal(), [change(MAPS, '1048576'), change(SCAN, '20000')], Path(sys.argv[1]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == -9
    assert (box.read(MAPS), box.read(SCAN)) == (b"1048576\n", b"20000\n")
    assert next(transactions(tmp_path)).status == "unfinished"
    revert(box, tmp_path)
    assert (box.read(MAPS), box.read(SCAN)) == was


IN_A_NAMESPACE = """
import sys, time
from pathlib import Path
from redline.node.apply import apply
from redline.node.commit_confirm import arm
from redline.node.live import LiveSys
from redline.node.revert import revert
from redline.node.transaction import transactions
from redline.node.verify import verify
from tests.node.test_live_changes import change
box, state = LiveSys(), Path(sys.argv[1])
somaxconn, mtu = "/proc/sys/net/core/somaxconn", "/sys/class/net/lo/mtu"
was = box.read(somaxconn), box.read(mtu)
apply(box, [change(somaxconn, "65535")], state)
assert box.read(somaxconn) == b"65535\\n" and verify(box, state)[0].state == "in force"
revert(box, state)
done = apply(box, [change(mtu, "9000")], state, confirm_s=1, arm=arm)
assert done.status == "unconfirmed" and box.read(mtu) == b"9000\\n"
deadline = time.monotonic() + 40
while list(transactions(state))[-1].status != "reverted" and time.monotonic() < deadline:
    time.sleep(0.05)
assert (box.read(somaxconn), box.read(mtu)) == was, box.read(mtu)
print("both as before")
"""


@needs_namespace
def test_somaxconn_and_frame_size_in_a_network_namespace_of_its_own(tmp_path: Path) -> None:
    outside = LiveSys().read("/proc/sys/net/core/somaxconn")
    script = 'mount -t sysfs sysfs /sys && exec "$0" -c "$1" "$2"'
    argv = ["unshare", "--net", "--mount", "sh", "-c", script, sys.executable, IN_A_NAMESPACE, str(tmp_path)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "both as before\n", done.stderr
    assert LiveSys().read("/proc/sys/net/core/somaxconn") == outside
