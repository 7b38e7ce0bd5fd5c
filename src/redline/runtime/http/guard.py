"""The door: who may ask."""

from __future__ import annotations

import hmac
from typing import Any

from redline.engines.hf_server.exchange import Receive, Send, send_error
from redline.engines.hf_server.fault import ApiError

OPEN = frozenset({"/health", "/metrics", "/version"})
"""For balancers and observers, which hold no keys."""


class Guard:
    """An ASGI application that asks for `Authorization: Bearer KEY` before another one is reached."""

    def __init__(self, app: Any, key: str) -> None:
        self._app = app
        self._wanted = f"Bearer {key}".encode()

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN:
            told = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
            if not hmac.compare_digest(told, self._wanted):
                await send_error(send, ApiError(401, "the API key is missing or wrong", code="invalid_api_key"))
                return
        await self._app(scope, receive, send)
