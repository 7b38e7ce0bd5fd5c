from __future__ import annotations

from pathlib import Path

import yaml

from redline.node.persist.nic import NETPLAN_FILE, nics
from tests.node.folder_box import folder_box, put
from tests.node.persist.test_lines import carry_out, setting

MTU = setting("mtu", "9000", "nic", "/sys/class/net/eth0/mtu", "eth0")
NETPLAN = {"/usr/sbin/netplan": ""}


def test_netplan_by_the_id_that_it_uses(tmp_path: Path) -> None:
    plan = {"network": {"version": 2, "ethernets": {"primary": {"match": {"macaddress": "x"}, "set-name": "eth0"}}}}
    box = folder_box(tmp_path, files={**NETPLAN, "/etc/netplan/50-cloud-init.yaml": yaml.safe_dump(plan)})
    form = nics(box, [MTU])
    carry_out(box, form)
    written = yaml.safe_load(box.read(NETPLAN_FILE))
    assert written == {"network": {"version": 2, "ethernets": {"primary": {"mtu": 9000}}}}
    assert (form.changes[0].mode, form.changes[0].risk) == (0o600, 3)
    assert nics(box, [MTU]).changes == []


def test_netplan_bonds_and_matches(tmp_path: Path) -> None:
    plan = {"network": {"ethernets": {"all": {"match": {"name": "en*"}}}, "bonds": {"bond0": {"interfaces": ["all"]}}}}
    box = folder_box(tmp_path, files={**NETPLAN, "/etc/netplan/1.yaml": yaml.safe_dump(plan)})
    names = ["bond0", "ens3", "ib0"]
    form = nics(box, [setting("mtu", "9000", "nic", f"/sys/class/net/{name}/mtu", name) for name in names])
    carry_out(box, form)
    network = yaml.safe_load(box.read(NETPLAN_FILE))["network"]
    assert network["bonds"] == {"bond0": {"mtu": 9000}}
    assert network["ethernets"] == {"all": {"mtu": 9000}}
    assert "no file of netplan names ib0" in form.warnings[0]


def test_ifupdown_in_the_stanza_of_the_card(tmp_path: Path) -> None:
    before = "auto lo\niface lo inet loopback\n\nauto eth0\niface eth0 inet dhcp\n    metric 5\niface eth0 inet6 auto"
    box = folder_box(tmp_path, files={"/etc/network/interfaces": before})
    carry_out(box, nics(box, [MTU]))
    line = "    post-up ip link set dev eth0 mtu 9000\n"
    after = box.read("/etc/network/interfaces").decode()
    assert after == before.replace("inet dhcp\n", f"inet dhcp\n{line}") + "\n"
    carry_out(box, nics(box, [setting("mtu", "4000", "nic", MTU.place.path, "eth0")]))
    assert box.read("/etc/network/interfaces").decode() == after.replace("9000", "4000")


def test_network_manager(tmp_path: Path) -> None:
    profile = "/etc/NetworkManager/system-connections/lan.nmconnection"
    ask = "nmcli -g GENERAL.CONNECTION device show eth0"
    files = {"/usr/bin/nmcli": "", profile: "[connection]\nid=the lan\n"}
    box = folder_box(tmp_path, files=files, commands={ask: (0, "the lan\n")})
    (change,) = nics(box, [MTU]).changes
    assert change.argv == ("nmcli", "connection", "modify", "the lan", "802-3-ethernet.mtu", "9000")
    assert change.covers == (profile,)
    (tmp_path / profile.lstrip("/")).unlink()
    assert "is not kept in a file below /etc" in nics(box, [MTU]).warnings[0]


def test_networkd(tmp_path: Path) -> None:
    box = folder_box(tmp_path, files={"/usr/lib/systemd/network/10-all.network": "[Match]\nName=en* eth*\n"})
    (change,) = nics(box, [MTU]).changes
    assert change.path == "/etc/systemd/network/10-all.network.d/90-redline.conf"
    assert (change.after or b"").endswith(b"[Link]\nMTUBytes=9000\n")


def test_a_file_of_networkd_for_several_cards_is_left_alone(tmp_path: Path) -> None:
    box = folder_box(tmp_path, files={"/usr/lib/systemd/network/10-all.network": "[Match]\nName=e*\n"})
    put(tmp_path, {"/sys/class/net/eth1/mtu": "1500\n"})
    form = nics(box, [MTU])
    assert form.changes == []
    assert "is about eth0, eth1: the mtu of eth0 lasts until the next boot" in form.warnings[0]


def test_nobody_in_charge(tmp_path: Path) -> None:
    box = folder_box(tmp_path, files={})
    put(tmp_path, {"/etc/network/interfaces": "iface eth00 inet dhcp"})
    form = nics(box, [MTU])
    assert form.changes == []
    assert "lasts until the next boot" in form.warnings[0]
