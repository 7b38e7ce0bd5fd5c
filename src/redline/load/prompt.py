"""One prompt, ready to be sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Prompt:
    """`text` or `token_ids` for completions, `messages` for chat and responses, `inputs` for embeddings.

    `tokens` is its length as the server counts it, chat template and special tokens included, all `inputs` together; 0
    when nobody can tell before it is sent. `exact` is False when the length asked for could not be met.
    `prefix` is the shared prefix it begins with, -1 without one. `output_tokens` 0 leaves the answer's length to the
    server."""

    text: str = ""
    messages: tuple[dict[str, Any], ...] = ()
    token_ids: tuple[int, ...] = ()
    tokens: int = 0
    output_tokens: int = 0
    exact: bool = True
    inputs: tuple[str, ...] = ()
    request_class: str = ""
    priority: int = 0
    prefix: int = -1
