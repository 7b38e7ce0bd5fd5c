from __future__ import annotations

import json

import pytest

from redline.errors import EnvironmentFault
from redline.node import path_probe
from tests.cli.node_verbs import node


def answers_up_to(sizes: dict[str, int]) -> object:
    return lambda address, size, way, answer_s=0.5: way == "udp" and size <= sizes.get(address, 0)


def test_one_line_per_host_and_five_for_what_vanishes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(path_probe, "answers", answers_up_to({"127.0.0.2": 9000, "127.0.0.3": 4321}))
    monkeypatch.setattr(path_probe, "told", lambda address, size: 0)
    said = node("path", "127.0.0.2", "127.0.0.3", "127.0.0.4", code=5).stdout.splitlines()
    assert said[0] == "127.0.0.2: packets of 9000 bytes get through (by udp)"
    assert said[1].startswith("127.0.0.3: packets of up to 4321 bytes get through (by udp), and larger ones vanish")
    assert said[2] == "127.0.0.4: answers neither ICMP echo nor UDP to a closed port"
    (told,) = json.loads(node("path", "127.0.0.3", "--json", code=5).stdout)
    assert told == {"host": "127.0.0.3", "way": "udp", "mtu": 4321, "told": 0}


def test_a_router_that_says_what_fits_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(path_probe, "answers", answers_up_to({"127.0.0.3": 1500}))
    monkeypatch.setattr(path_probe, "told", lambda address, size: 1500)
    assert "a router or the card says 1500" in node("path", "127.0.0.3").stdout


def test_a_name_without_an_address() -> None:
    with pytest.raises(EnvironmentFault, match="no IPv4 address"):
        node("path", "no-such-host.invalid")
