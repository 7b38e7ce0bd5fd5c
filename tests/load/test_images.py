"""Pictures beside the text: real PNGs, each another, their tokens known."""

from __future__ import annotations

import base64
import random
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redline.errors import SpecError, UsageError
from redline.load.images import png
from redline.load.paced.pace import Pace
from redline.load.paced.server import PacedServer
from redline.load.prompts import PromptSource, prompt_source
from redline.load.record import Status
from tests.load.servers import closed, fast, push, workload


def decode(data: bytes) -> tuple[int, int, list[bytes]]:
    """Width, height and rows of an RGB picture; AssertionError when it is none."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, parts = 8, {}
    while at < len(data):
        size, name = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + size]
        assert struct.unpack(">I", data[at + 8 + size : at + 12 + size])[0] == zlib.crc32(name + body)
        parts[name] = body
        at += 12 + size
    assert at == len(data)
    width, height, depth, colour, *_ = struct.unpack(">IIBBBBB", parts[b"IHDR"])
    assert (depth, colour, parts[b"IEND"]) == (8, 2, b"")
    raw = zlib.decompress(parts[b"IDAT"])
    assert len(raw) == height * (1 + 3 * width)
    return width, height, [raw[i : i + 1 + 3 * width] for i in range(0, len(raw), 1 + 3 * width)]


@given(st.integers(1, 70), st.integers(1, 70), st.integers(0, 9))
def test_a_picture_is_a_proper_png(width: int, height: int, seed: int) -> None:
    found = decode(png(width, height, random.Random(seed)))
    assert found[:2] == (width, height)
    assert all(row[0] == 0 for row in found[2])


def test_a_picture_weighs_about_what_a_photograph_does() -> None:
    assert 10_000 < len(png(512, 512, random.Random(1))) < 100_000


def source(server: PacedServer, **work: Any) -> PromptSource:
    asked = workload(**{"api": "chat", "images_per_request": 2, "image_width": 24, "image_height": 16, **work})
    return prompt_source(server.endpoint, asked, seed=1, tokenizer_path=None, needed=50)


def urls(messages: tuple[dict[str, Any], ...]) -> list[str]:
    parts = messages[-1]["content"]
    return [url if isinstance(url := part["image_url"], str) else url["url"] for part in parts if "image_url" in part]


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_every_picture_is_another_and_the_same_again(api: str) -> None:
    with PacedServer(Pace(image_tokens=50)) as server:
        prompts = source(server, api=api).prompts(1, 0, 40)
        assert source(server, api=api).prompts(1, 30, 10) == prompts[30:]
    found = [url for prompt in prompts for url in urls(prompt.messages)]
    assert len(found) == len(set(found)) == 80
    assert decode(base64.b64decode(found[0].partition(",")[2]))[:2] == (24, 16)
    assert {prompt.tokens for prompt in prompts} == {32 + 100}


@pytest.mark.parametrize("api", ["chat", "responses"])
@pytest.mark.parametrize("tokenizer", [True, False])
def test_prompt_lengths_hold_with_pictures(api: str, tokenizer: bool) -> None:
    pace = fast(image_tokens=77, responses_extra_tokens=3, tokenizer=tokenizer)
    work = workload(api=api, images_per_request=1, image_width=16, image_height=16)
    with PacedServer(pace) as server:
        result = push(server, closed(2), work=work, requests=10)
    assert result.count(Status.OK) == 10
    assert {(r.prompt_tokens, r.asked_prompt_tokens) for r in result.measured} == {(109, 109)}
    assert any("a picture costs 77 prompt tokens" in note for note in result.outcome.notes)


def test_pictures_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(8, 8, random.Random(1)))
    (tmp_path / "b.JPG").write_bytes(b"\xff\xd8 not looked at")
    (tmp_path / "c.txt").write_text("no picture")
    with PacedServer(Pace()) as server:
        made = source(server, image_path=str(tmp_path), images_per_request=1)
        found = [urls(prompt.messages)[0] for prompt in made.prompts(1, 0, 4)]
        assert [url[:15] for url in found] == ["data:image/png;", "data:image/jpeg"] * 2
        assert any("a cache of images may answer" in note for note in made.notes)
        (tmp_path / "none").mkdir()
        with pytest.raises(SpecError, match="no PNG and no JPEG"):
            source(server, image_path=str(tmp_path / "none"))
        with pytest.raises(SpecError, match="cannot read"):
            source(server, image_path=str(tmp_path / "nowhere"))


def test_a_server_that_takes_none_is_found_out_before_the_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("redline.load.images._url", lambda kind, data: "data:image/webp;base64,AA==")
    with PacedServer(Pace()) as server, pytest.raises(UsageError, match="refuses a picture"):
        source(server)
