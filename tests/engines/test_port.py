from __future__ import annotations

import os
import socket

import pytest

from redline.engines.port import Claim, answered_by, holder, listeners
from redline.errors import EnvironmentFault, PortInUse


def test_free_port_is_held_until_released() -> None:
    with Claim("127.0.0.1", 0) as claim, socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", claim.port))
    with socket.socket() as other:
        other.bind(("127.0.0.1", claim.port))


def test_taken_port_names_its_holder() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortInUse) as caught:
            Claim("127.0.0.1", port)
        assert f"pid {os.getpid()}" in caught.value.why
        assert caught.value.exit_code == 3
        assert holder(port).startswith(f"pid {os.getpid()} (")
        assert answered_by(port, [os.getpid()])
        assert not answered_by(port, [os.getppid()])
    assert not listeners(port)
    assert holder(port) == ""


def test_wildcard_listener_counts() -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        with pytest.raises(PortInUse):
            Claim("127.0.0.1", taken.getsockname()[1])


def test_an_address_that_is_not_ours() -> None:
    with pytest.raises(EnvironmentFault, match=r"cannot listen on 192\.0\.2\.77"):
        Claim("192.0.2.77", 0)


def test_ipv6() -> None:
    try:
        with Claim("::1", 0) as claim:
            assert claim.port > 0
    except EnvironmentFault:
        pytest.skip("no IPv6 here")
