from __future__ import annotations

import socket

import pytest

from redline.engines.hf_server.serve import listen


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_chunks_leave_at_once(host: str) -> None:
    """Nagle's algorithm and a delayed acknowledgement together hold the first chunk back by 40 ms."""
    try:
        listener = listen(host, 0)
    except OSError:
        pytest.skip(reason="no IPv6 on this box")
    with listener, socket.create_connection(listener.getsockname()[:2]):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
            assert accepted.proto == socket.IPPROTO_TCP, "asyncio looks at this"
