"""Pictures beside the text of a prompt: noise that nobody has seen before, or files of a folder.

Noise is in blocks of 8 × 8 pixels, so that a picture weighs about as much as a photograph of its size does, and every
picture is another one: no cache of images answers by accident.
"""

from __future__ import annotations

import base64
import random
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from redline.errors import EnvironmentFault, SpecError, Unsupported, UsageError
from redline.load.prompt import Prompt
from redline.load.tokens import UsageTokenizer
from redline.spec.workload import WorkloadSpec

_BLOCK = 8
_KINDS = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}
_PROBED = 8
_PROBE_KEY = -1


def png(width: int, height: int, rng: random.Random) -> bytes:
    """An RGB picture of noise."""
    across = -(-width // _BLOCK)
    rows = bytearray()
    for top in range(0, height, _BLOCK):
        colours = rng.randbytes(3 * across)
        row = b"".join(colours[i : i + 3] * _BLOCK for i in range(0, len(colours), 3))[: 3 * width]
        rows += (b"\0" + row) * min(_BLOCK, height - top)

    def part(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", zlib.compress(bytes(rows), 1)) + part(b"IEND", b"")
    )


@dataclass
class Pictures:
    """Puts pictures into prompts; the same seed, key and number give the same ones.

    `tokens` is what the pictures of one prompt cost, -1 when nobody can tell before it is sent.
    """

    workload: WorkloadSpec
    seed: int
    tokens: int = -1

    @cached_property
    def files(self) -> tuple[str, ...]:
        """Data URLs of the folder's pictures, by name. SpecError when there is none."""
        if not self.workload.image_path:
            return ()
        folder = Path(self.workload.image_path)
        try:
            paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in _KINDS)
            found = tuple(_url(_KINDS[path.suffix.lower()], path.read_bytes()) for path in paths)
        except OSError as error:
            raise SpecError(f"cannot read {folder}: {error.strerror}", field="workload.image_path") from error
        if not found:
            raise SpecError(f"no PNG and no JPEG file in {folder}", field="workload.image_path", fix="a folder of some")
        return found

    def put(self, prompt: Prompt, key: int, number: int) -> Prompt:
        """The prompt with its pictures behind the text of its last message."""
        *before, last = prompt.messages
        known = prompt.tokens and self.tokens >= 0
        tokens = prompt.tokens + self.tokens if known else 0
        return replace(prompt, messages=(*before, self.message(last, self._urls(key, number))), tokens=tokens)

    def message(self, message: dict[str, Any], urls: Sequence[str]) -> dict[str, Any]:
        """One message with pictures, in the words of the API."""
        said = message["content"]
        if self.workload.api == "responses":
            parts: list[dict[str, Any]] = [{"type": "input_text", "text": said}] if isinstance(said, str) else [*said]
            parts += [{"type": "input_image", "image_url": url, "detail": "auto"} for url in urls]
        else:
            parts = [{"type": "text", "text": said}] if isinstance(said, str) else [*said]
            parts += [{"type": "image_url", "image_url": {"url": url}} for url in urls]
        return {**message, "content": parts}

    def _urls(self, key: int, number: int) -> list[str]:
        count, files = self.workload.images_per_request, self.files
        if files:
            return [files[(number * count + i) % len(files)] for i in range(count)]
        return [self._noise(f"{self.seed}/{key}/{number}/{i}/image") for i in range(count)]

    def _noise(self, seed: str) -> str:
        return _url("image/png", png(self.workload.image_width, self.workload.image_height, random.Random(seed)))

    def learn(self, usage: UsageTokenizer, notes: list[str]) -> None:
        """What pictures cost, from the usage of a few answers. UsageError when the server takes none."""
        count = self.workload.images_per_request
        urls = list(dict.fromkeys(self.files))[:_PROBED] or [self._noise(f"{self.seed}/{_PROBE_KEY}/image")]
        plain = {"role": "user", "content": "What is in the picture?"}
        try:
            base, *with_one = usage.chat_counts([[plain], *([self.message(plain, [url])] for url in urls)])
        except Unsupported as problem:
            notes.append(f"what pictures cost is not known: {problem.what}")
            return
        except EnvironmentFault as problem:
            raise UsageError(
                f"the server refuses a picture: {problem.what}",
                why="A model that reads text only cannot be asked about pictures.",
                fix="serve a model that sees, or images_per_request: 0",
            ) from problem
        costs = sorted({cost - base for cost in with_one})
        if len(costs) == 1 and (not self.files or len(set(self.files)) <= _PROBED):
            self.tokens = costs[0] * count
            notes.append(f"a picture costs {costs[0]} prompt tokens, by the server's own count")
        else:
            notes.append(
                f"pictures cost {costs[0]} to {costs[-1]} prompt tokens: prompt lengths are as the server says"
            )
        if self.files:
            notes.append(f"{len(self.files)} pictures are used again and again, and a cache of images may answer them")


def _url(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
