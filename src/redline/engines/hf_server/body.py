"""A request's body: bounded, and JSON."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request

from .fault import ApiError, bad


async def read_body(request: Request, most: int) -> dict[str, Any]:
    """The JSON object of at most `most` bytes; ApiError otherwise, ClientDisconnect when the client left."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise ApiError(413, f"the body is larger than {most} bytes")
        parts.append(part)
    try:
        body = json.loads(b"".join(parts))
    except (ValueError, RecursionError) as error:
        raise bad(f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise bad("the body must be a JSON object")
    return body
