"""The fake box beside the kernel that runs here: the same writes end in the same bytes or the same refusal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from redline.node.fake import FakeSys
from redline.node.live import LiveSys
from redline.node.sys import Sys, SysFault
from tests.node.alone import alone
from tests.node.boxes import plant

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="writing attributes takes root")
VM, THP = "/proc/sys/vm", "/sys/kernel/mm/transparent_hugepage"
LOOP, IPV4 = "/sys/block/loop0/queue", "/proc/sys/net/ipv4"
HOST = {
    (f"{VM}/swappiness",): ["10", "0", "201", "-1", "ten", "10 20", " 60 "],
    (f"{VM}/compaction_proactiveness",): ["30", "100", "101"],
    (f"{VM}/dirty_ratio", f"{VM}/dirty_bytes"): ["25", "101"],
    (f"{VM}/dirty_bytes", f"{VM}/dirty_ratio"): ["1073741824", "0"],
    (f"{THP}/khugepaged/defrag",): ["0", "1", "2"],
    (f"{THP}/defrag",): ["defer", "sometimes"],
    (f"{LOOP}/read_ahead_kb",): ["127", "4096"],
    (f"{LOOP}/scheduler",): ["none", "nosuch"],
    (f"{LOOP}/rq_affinity",): ["0", "1", "2"],
}
NETNS = {
    ("/proc/sys/net/core/somaxconn",): ["65535", "0", "x"],
    (f"{IPV4}/tcp_rmem",): ["4096 131072 16777216", "0 1 2", "4096 131072"],
    (f"{IPV4}/ip_local_port_range",): ["10240 65535", "60000 1024", "0 1024", "1 70000"],
    (f"{IPV4}/tcp_tw_reuse",): ["1", "3"],
    (f"{IPV4}/tcp_slow_start_after_idle",): ["0", "1"],
}


def outcome(box: Sys, paths: tuple[str, ...], value: str) -> list[str]:
    """What is read after the write, of the file and of those that it may change; or why it was refused."""
    try:
        box.set_attribute(paths[0], value.encode())
    except SysFault as fault:
        return [fault.why, *(box.read(path).decode() for path in paths)]
    return ["taken", *(box.read(path).decode() for path in paths)]


def put_back(box: Sys, before: dict[str, bytes]) -> None:
    """The ratio brings the bytes back to 0; a bracketed word is written without its brackets."""
    for path, content in before.items():
        word = content.decode().strip()
        word = word.partition("[")[2].partition("]")[0] or word
        if box.read(path) != content and not (path.endswith("_bytes") and word == "0"):
            box.set_attribute(path, word.encode())
    assert {path: box.read(path) for path in before} == before


def both(root: Path, paths: tuple[str, ...], values: list[str]) -> list[tuple[str, list[str], list[str]]]:
    live = LiveSys()
    before = {path: live.read(path) for path in paths}
    fake = FakeSys(plant(root, {path.lstrip("/"): content.decode() for path, content in before.items()}))
    try:
        return [(value, outcome(fake, paths, value), outcome(live, paths, value)) for value in values]
    finally:
        put_back(live, before)


@pytest.mark.parametrize("paths", HOST, ids=lambda paths: paths[0].rpartition("/")[2])
def test_against_kernel(paths: tuple[str, ...], tmp_path: Path) -> None:
    if not all(Path(path).exists() for path in paths):
        pytest.skip("this kernel does not have it")
    with alone():
        found = both(tmp_path, paths, HOST[paths])
    if all(live[0] in ("denied", "readonly") for _value, _fake, live in found):
        pytest.skip("this box does not let root write it")
    assert [(value, fake) for value, fake, _live in found] == [(value, live) for value, _fake, live in found]


def test_against_kernel_in_a_network_namespace_of_its_own(tmp_path: Path) -> None:
    code = (
        "import json; from pathlib import Path; from tests.node.test_fake_against_kernel import NETNS, both\n"
        f"print(json.dumps([both(Path({str(tmp_path)!r}), paths, values) for paths, values in NETNS.items()]))"
    )
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False
    )
    if "Operation not permitted" in done.stderr:
        pytest.skip("this box gives no network namespace")
    assert done.returncode == 0, done.stderr
    for paths, found in zip(NETNS, json.loads(done.stdout), strict=True):
        assert [(paths[0], *fake) for _value, fake, _live in found] == [(paths[0], *live) for _v, _f, live in found]
