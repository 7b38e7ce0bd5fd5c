"""From a base URL to what a worker needs: an address that answers, resolved once, and the head of every request."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from redline import __version__
from redline.errors import EnvironmentFault, UsageError
from redline.load.frames import Target


@dataclass(frozen=True)
class Site:
    """Where `base_url` points."""

    host: str
    port: int
    tls: bool
    path: str

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


def site(base_url: str) -> Site:
    try:
        parts = urlsplit(base_url)
    except ValueError as error:
        raise UsageError(f"not an HTTP address: {base_url}: {error}", fix="http://host:port/v1") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"not an HTTP address: {base_url}", fix="http://host:port/v1")
    tls = parts.scheme == "https"
    try:
        port = parts.port or (443 if tls else 80)
    except ValueError:
        raise UsageError(f"not a port: {base_url}", fix="http://host:port/v1") from None
    return Site(parts.hostname, port, tls, parts.path.rstrip("/"))


def resolve(base_url: str, *, connect_timeout_s: float = 5.0) -> Target:
    """A target with the first address that takes a connection; when none does, the first one. No limits set."""
    place = site(base_url)
    try:
        found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:  # the latter for a name that no DNS could hold
        raise EnvironmentFault(f"cannot resolve {place.host}: {error}", fix="check the host name in the URL") from error
    name = place.host if place.tls else ""
    for family, _, _, _, address in found:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.settimeout(connect_timeout_s)
            try:
                probe.connect(address)
            except OSError:
                continue
            return Target(int(family), tuple(address), name)
    family, _, _, _, address = found[0]
    return Target(int(family), tuple(address), name)


def is_loopback(target: Target) -> bool:
    """Whether the server is on this box by its address."""
    return ipaddress.ip_address(str(target.address[0]).partition("%")[0]).is_loopback


def request_head(base_url: str, path: str, *, api_key: str | None, stream: bool) -> str:
    """Everything of the head that all requests share, up to the request id and the content length."""
    place = site(base_url)
    lines = [
        f"POST {place.path}{path} HTTP/1.1",
        f"Host: {place.authority}",
        f"User-Agent: redline/{__version__}",
        "Content-Type: application/json",
        "Accept: text/event-stream" if stream else "Accept: application/json",
        "Accept-Encoding: identity",
        "Connection: keep-alive",
    ]
    if api_key:
        if not api_key.isprintable() or not api_key.isascii():
            raise UsageError("the API key holds characters that no HTTP header can carry")
        lines.append(f"Authorization: Bearer {api_key}")
    return "\r\n".join(lines) + "\r\n"


def request_bytes(head: str, request_id: str, body: bytes, trace: str = "") -> bytes:
    """`trace` is a W3C traceparent; none is sent when it is ''."""
    traced = f"traceparent: {trace}\r\n" if trace else ""
    return f"{head}X-Request-Id: {request_id}\r\n{traced}Content-Length: {len(body)}\r\n\r\n".encode() + body


def traceparent(prefix: str, number: int) -> str:
    """Of request `number`: its trace id is `prefix` (16 hex digits), then the number in as many. Sampled."""
    return f"00-{prefix}{number:016x}-{number + 1:016x}-01"
