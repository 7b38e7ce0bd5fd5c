"""`redline ui`: the pages, served until Ctrl-C."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from redline.errors import EnvironmentFault, PortInUse, UsageError
from redline.store.file import default_path

PORT = 8765
_NICE = 10
"""Pages are drawn when nothing else wants the core: what is measured beside them must not notice."""


@dataclass(frozen=True)
class Address:
    """Where the pages are. `url` holds the token where one is needed."""

    host: str
    port: int
    token: str = field(default="", repr=False)

    @property
    def url(self) -> str:
        shown = socket.gethostname() if self.host in ("0.0.0.0", "::") else self.host
        shown = f"[{shown}]" if ":" in shown else shown
        return f"http://{shown}:{self.port}/" + (f"?token={self.token}" if self.token else "")


def ui(
    db: Path | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = PORT,
    token: str = "",
    allow_hosts: Sequence[str] = (),
    ready: Callable[[Address], None] | None = None,
) -> None:
    """Serves the pages of a results file, which need not exist yet; returns after Ctrl-C.

    Off the loopback a token is always asked for: `token`, or a new one. Port 0 picks a free one; `ready` hears of the
    address. EnvironmentFault when the extra is missing, PortInUse, UsageError for a host that is none of ours.
    """
    _require()
    import uvicorn

    from redline.pages.app import build
    from redline.pages.guard import Access, is_loopback, new_token

    token = token or ("" if is_loopback(host) else new_token())
    listening = _listen(host, port)
    address = Address(host, listening.getsockname()[1], token)
    with suppress(OSError):
        os.nice(max(0, _NICE - os.nice(0)))
    config = uvicorn.Config(
        build(db or default_path(), Access.of(host, token, allow_hosts)), log_level="warning", access_log=False,
        server_header=False, proxy_headers=False, timeout_graceful_shutdown=1, lifespan="off",
    )  # fmt: skip
    if ready is not None:
        ready(address)
    with listening, suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listening])


def _require() -> None:
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise EnvironmentFault(
            "the pages cannot be served", why=f"{error.name} is not installed", fix="pip install 'redline[ui]'"
        ) from error


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise UsageError(f"{host!r} is no address of this box", why=str(error), fix="--host 127.0.0.1") from error
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(place)
        listening.listen(128)
    except OSError as error:
        listening.close()
        if error.errno in (98, 48):
            raise PortInUse(
                f"port {port} is in use", why="another program listens there", fix="--port 0 takes a free one"
            ) from error
        raise EnvironmentFault(
            f"cannot listen on {host}:{port}", why=error.strerror or str(error), fix="--host 127.0.0.1 --port 0"
        ) from error
    return listening
