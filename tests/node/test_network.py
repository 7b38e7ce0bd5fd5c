from __future__ import annotations

from pathlib import Path

from redline.node.fake import FakeSys
from redline.node.network import nic_facts
from redline.node.tree import is_skipped
from tests.node.boxes import plant
from tests.node.gpu_boxes import eight_gpus


def test_a_card_with_speed_queues_driver_and_node_but_no_address(tmp_path: Path) -> None:
    nics = {nic["name"]: nic for nic in nic_facts(FakeSys(eight_gpus(tmp_path)))}
    nic = nics["enp112s0"]
    assert (nic["speed_mbit_per_s"], nic["mtu"], nic["node"], nic["driver"]) == (400_000, 9000, 1, "mlx5_core")
    assert (nic["rx_queues"], nic["tx_queues"], nic["virtual"]) == (2, 1, False)
    assert "b8:ce" not in str(nics)


def test_an_interface_that_is_down_tells_no_speed(tmp_path: Path) -> None:
    plant(tmp_path, {"sys/class/net/veth0/speed": "-1\n", "sys/class/net/lo/mtu": "65536\n"})
    (nic,) = nic_facts(FakeSys(tmp_path))
    assert is_skipped(nic["speed_mbit_per_s"])
    assert nic["virtual"] is True
