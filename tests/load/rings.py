"""Whether this box lets us have a packet ring."""

from __future__ import annotations

import pytest

from redline.load.frames import Target
from redline.load.ring import PacketRing


def _may_have_a_ring() -> bool:
    try:
        PacketRing(Target(2, ("127.0.0.1", 9)), 1 << 20).close()
    except PermissionError:
        return False
    return True


needs_ring = pytest.mark.skipif(not _may_have_a_ring(), reason="needs CAP_NET_RAW")
