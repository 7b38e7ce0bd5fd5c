"""One prompt, ready to be sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Prompt:
    """`text` or `token_ids` for completions, `messages` for chat. `tokens` is its length as the server counts it,
    chat template and special tokens included; 0 when nobody can tell before it is sent. `exact` is False when the
    length asked for could not be met. `output_tokens` 0 leaves the answer's length to the server."""

    text: str = ""
    messages: tuple[dict[str, Any], ...] = ()
    token_ids: tuple[int, ...] = ()
    tokens: int = 0
    output_tokens: int = 0
    exact: bool = True
    request_class: str = ""
