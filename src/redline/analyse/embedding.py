"""Requests whose answer is a vector: no token of it could be early or late, so their work is their prompt."""

from __future__ import annotations

from redline.store.requests import Bools, Requests

FINISHED = "embedding"
"""The finish reason that `load` gives them."""


def embeddings(requests: Requests) -> Bools:
    """Which of the requests were answered with vectors."""
    found: Bools = requests.finish_reason == FINISHED
    return found
