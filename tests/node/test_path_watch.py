"""Frame sizes in network namespaces: cards of the kernel's own, real packets, a bottleneck in the middle."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from redline.errors import EnvironmentFault
from redline.node.change import Change
from redline.node.live import LiveSys
from redline.node.path_watch import hosts_behind, on_link, path_watch
from tests.node.folder_box import folder_box, put

ROOT = Path(__file__).parents[2]
NEAR, FAR, ROUTER, BEYOND = "10.98.0.1", "10.98.0.2", "10.98.0.9", "10.97.0.2"


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


class Net:
    """near -- a switch -- far, and on the switch a router that leads beyond. Every card starts with 1500 bytes but that
    of far, which takes 9000."""

    def __init__(self) -> None:
        self.near, self.switch, self.far, self.router, self.beyond = self.all = [
            f"rl-{os.getpid()}-{name}" for name in ("near", "switch", "far", "router", "beyond")
        ]

    def build(self) -> None:
        for space in self.all:
            ip("netns", "add", space)
            ip("-n", space, "link", "set", "lo", "up")
        ip("-n", self.switch, "link", "add", "name", "sw", "type", "bridge")
        ip("-n", self.switch, "link", "set", "sw", "up")
        for space, name, address in (
            (self.near, "near", NEAR), (self.far, "far", FAR), (self.router, "wan", ROUTER),
        ):  # fmt: skip
            self._wire(space, name, address, self.switch, f"to-{name}")
            ip("-n", self.switch, "link", "set", f"to-{name}", "master", "sw")
        self._wire(self.beyond, "beyond", BEYOND, self.router, "out")
        ip("-n", self.router, "addr", "add", "10.97.0.9/24", "dev", "out")
        ip("-n", self.near, "route", "add", "default", "via", ROUTER)
        ip("-n", self.beyond, "route", "add", "default", "via", "10.97.0.9")
        ip("netns", "exec", self.router, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        ip("-n", self.far, "link", "set", "far", "mtu", "9000")

    def _wire(self, space: str, name: str, address: str, other: str, there: str) -> None:
        ip("link", "add", name, "netns", space, "type", "veth", "peer", "name", there, "netns", other)
        ip("-n", space, "addr", "add", f"{address}/24", "dev", name)
        ip("-n", space, "link", "set", name, "up")
        ip("-n", other, "link", "set", there, "up")

    def mtu(self, space: str, card: str, size: int) -> None:
        ip("-n", space, "link", "set", card, "mtu", str(size))

    def python(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        argv = ["ip", "netns", "exec", self.near, sys.executable, "-c", program, *arguments]
        return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)

    def remove(self) -> None:
        for space in self.all:
            subprocess.run(["ip", "netns", "del", space], check=False, capture_output=True)


@pytest.fixture
def net() -> Iterator[Net]:
    if os.geteuid() or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and ip: sudo, apt install iproute2")
    made = Net()
    try:
        made.build()
    except subprocess.CalledProcessError as error:
        made.remove()
        pytest.skip(f"network namespaces, veth pairs or bridges cannot be made here: {error.stderr.strip()}")
    yield made
    made.remove()


APPLY = """
import sys
from pathlib import Path
from redline.errors import RedlineError
from redline.node.apply import apply
from redline.node.change import Change
from redline.node.live import LiveSys
from redline.node.path_watch import path_watch
box, path, state = LiveSys(), "/sys/class/net/near/mtu", Path(sys.argv[1])
changes = [Change("attribute", path, box.read(path), sys.argv[2].encode(), ("net.mtu",), risk=3)]
check = path_watch(box, changes, sys.argv[3:])
check.answer_s, check.back_s = 0.2, 1.0
try:
    done = apply(box, changes, state, check=check)
    print(done.status)
except RedlineError as error:
    print(error)
print(box.read(path).decode().strip())
"""


def applied(net: Net, state: Path, size: int, *hosts: str) -> tuple[str, str]:
    done = net.python(APPLY, str(state), str(size), *hosts)
    assert done.returncode == 0, done.stderr
    *said, mtu = done.stdout.strip().splitlines()
    return "\n".join(said), mtu


def records(state: Path) -> list[dict[str, object]]:
    (path,) = sorted(state.glob("*.jsonl"))[-1:]
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_bottleneck_undoes_the_change(net: Net, tmp_path: Path) -> None:
    """The two ends take 9000 bytes, the switch between them does not, and nobody says so."""
    said, mtu = applied(net, tmp_path, 9000, FAR)
    assert f"packets above 1500 bytes vanish on the way to {FAR}" in said
    assert "everything is as it was before" in said
    assert mtu == "1500"
    before, after = (record for record in records(tmp_path) if record["what"] == "checked")
    asked = {host["host"]: host["way"] for host in before["hosts"]}  # type: ignore[attr-defined]
    assert asked == {FAR: "icmp", ROUTER: "icmp"}, "the router of the card is asked, too"
    assert {host["host"]: host["mtu"] for host in after["hosts"]}[FAR] == 1500  # type: ignore[attr-defined]
    assert records(tmp_path)[-1]["state"] == "rolled back"


def test_a_path_that_takes_it_keeps_the_change(net: Net, tmp_path: Path) -> None:
    for card in ("to-near", "to-far", "to-wan", "sw"):
        net.mtu(net.switch, card, 9000)
    net.mtu(net.router, "wan", 9000)
    assert applied(net, tmp_path, 9000, FAR, BEYOND) == ("applied", "9000"), "beyond takes 1500, and the router says so"
    told = {host["host"]: host for host in records(tmp_path)[-2]["hosts"]}  # type: ignore[attr-defined]
    assert (told[FAR]["mtu"], told[BEYOND]["told"]) == (9000, 1500)


def test_a_path_that_is_lost_undoes_the_change(net: Net, tmp_path: Path) -> None:
    """The far side goes away while the size is changed: nothing answers any more."""
    program = APPLY.replace("check.answer_s", f"cut = {net.far!r}\ncheck.answer_s").replace(
        "try:", "was = check.after\ndef after():\n    import subprocess\n    subprocess.run(['ip', '-n', cut, 'link',"
        " 'set', 'far', 'down'], check=True)\n    return was()\ncheck.after = after\ntry:", 1,
    )  # fmt: skip
    done = net.python(program, str(tmp_path), "1400", FAR)
    assert f"{FAR} answered before and does not any more" in done.stdout, done.stderr
    assert done.stdout.strip().endswith("1500")


def test_who_never_answered_cannot_stop_it(net: Net, tmp_path: Path) -> None:
    net.mtu(net.router, "wan", 9000)
    for card in ("to-near", "to-wan", "sw"):
        net.mtu(net.switch, card, 9000)
    assert applied(net, tmp_path, 9000, "10.98.0.77") == ("applied", "9000")


def test_the_verb_finds_the_bottleneck(net: Net) -> None:
    program = "import sys; from redline.cli.main import run; sys.argv = ['redline', *sys.argv[1:]]; sys.exit(run())"
    done = net.python(program, "node", "path", FAR, "--size", "1400")
    assert (done.returncode, done.stdout) == (0, f"{FAR}: packets of 1400 bytes get through (by icmp)\n")
    net.mtu(net.near, "near", 9000)
    done = net.python(program, "node", "path", FAR)
    assert done.returncode == 5, done.stderr
    assert "up to 1500 bytes get through (by icmp), and larger ones vanish" in done.stdout


def test_a_host_without_echo_is_asked_by_udp(net: Net) -> None:
    ip("netns", "exec", net.far, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/icmp_echo_ignore_all")
    program = f"from redline.node.path_probe import path_mtu; print(path_mtu({FAR!r}, 1500, answer_s=0.2).to_json())"
    assert "'way': 'udp', 'mtu': 1500" in net.python(program).stdout


def test_routes_and_neighbours_are_read_from_the_box(tmp_path: Path) -> None:
    box = folder_box(tmp_path)
    head = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT"
    routes = ["eth0 00000000 0100A8C0 0003 0 0 0 00000000 0 0 0", "eth0 0000A8C0 00000000 0001 0 0 0 00FFFFFF 0 0 0"]
    neighbours = [
        "192.168.0.7 0x1 0x2 aa:bb * eth0",
        "192.168.0.8 0x1 0x0 00:00 * eth0",
        "10.0.0.1 0x1 0x2 aa:bc * eth1",
    ]
    put(tmp_path, {"/proc/net/route": "\n".join([head, *routes]), "/proc/net/arp": "\n".join(["IP HW", *neighbours])})
    assert hosts_behind(box, "eth0") == ["192.168.0.1", "192.168.0.7"]
    assert on_link(box, "eth0", "192.168.0.200")
    assert not on_link(box, "eth0", "10.0.0.1")
    change = Change("attribute", "/sys/class/net/eth0/mtu", b"1500", b"9000", ("net.mtu",))
    assert path_watch(box, [change]) is None, "a rehearsal sends no packets"
    with pytest.raises(EnvironmentFault, match="no IPv4 address"):
        path_watch(LiveSys(), [change], ["no-such-host.invalid"])
