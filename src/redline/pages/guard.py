"""Who may ask: the Host header against DNS rebinding, a token off the loopback, and what a page may do in a browser.

A page of another site can make a browser send requests here. Its name in `Host` gives a rebound name away; `Origin` and
`Sec-Fetch-Site` give a form of another site away; what it cannot do is read an answer, and no answer changes anything.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "redline-token"
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; style-src-attr 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
}


def new_token() -> str:
    return secrets.token_urlsafe(24)


def is_loopback(host: str) -> bool:
    """Whether only this box can reach `host`."""
    address = _address(host)
    return address.is_loopback if address else host == "localhost"


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None


@dataclass(frozen=True)
class Access:
    """`names` are the host names that are ours. Off the loopback an address is always taken: a name can be rebound, an
    address cannot. `token` '' asks for none."""

    names: frozenset[str] = frozenset(LOOPBACK_NAMES)
    token: str = field(default="", repr=False)
    any_address: bool = False

    @classmethod
    def of(cls, host: str, token: str = "", also: Iterable[str] = ()) -> Access:
        names = {*LOOPBACK_NAMES, host.lower(), *(name.lower() for name in also)}
        local = is_loopback(host)
        if not local:
            names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
        return cls(frozenset(names), token, not local)

    def knows(self, header: str) -> bool:
        """Whether a Host header is one of ours, whatever its port."""
        try:
            name = (urlsplit(f"//{header}").hostname or "").rstrip(".")
        except ValueError:
            return False
        if name in self.names:
            return True
        address = _address(name)
        return address is not None and (self.any_address or address.is_loopback)


class Guard:
    """Lets those requests through that may pass, and gives every answer its headers."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def sealed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        refusal = self._refusal(scope)
        await (refusal or self.app)(scope, receive, sealed)

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self.access.knows(host):
            return _no(
                421, f"redline does not go by the name of {host!r}.\n"
                "A page of another site may have sent your browser here (DNS rebinding), so nothing is shown.\n"
                "If the name is yours: redline ui --allow-host NAME",
            )  # fmt: skip
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return _no(405, "redline only shows; nothing can be changed here.")
        if scope["method"] == "POST" and not _own(headers, host):
            return _no(403, "This request comes from a page of another site.")
        return self._without_token(scope, headers) if self.access.token else None

    def _without_token(self, scope: Scope, headers: Headers) -> ASGIApp | None:
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = dict(query).get("token", "")
        if given and self._fits(given):
            rest = urlencode([(name, value) for name, value in query if name != "token"])
            path = "/" + scope["path"].lstrip("/\\")
            answer = RedirectResponse(path + (f"?{rest}" if rest else ""), 303)
            answer.set_cookie(COOKIE, self.access.token, httponly=True, samesite="strict")
            return answer
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        cookie = cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
        if self._fits(bearer) or self._fits(cookie):
            return None
        return _no(401, "These pages want the token that `redline ui` printed when it started: open that address.")

    def _fits(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "replace"), self.access.token.encode())


def _own(headers: Headers, host: str) -> bool:
    """Whether a POST was sent by a page of ours, or by no browser at all."""
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    return origin is None or (origin != "null" and urlsplit(origin).netloc == host)


def _no(status: int, text: str) -> ASGIApp:
    return PlainTextResponse(text + "\n", status)
