from __future__ import annotations

from pathlib import Path

import pytest

from redline.errors import SpecError
from redline.load.datasets import read_items

WRONG = [
    ("jsonl", b'{"prompt": "a"}\n{"prompt": \n', "2", "not JSON"),
    ("jsonl", b'{"prompt": "a"}\n\n[1]\n', "3", "not a JSON object"),
    ("jsonl", b'{"promt": "a"}\n', "1", "needs either prompt or messages"),
    ("jsonl", b'{"prompt": "a", "messages": []}\n', "1", "needs either prompt or messages"),
    ("jsonl", b'{"prompt": ""}\n', "1", "prompt: must be text"),
    ("jsonl", b'{"prompt": 7}\n', "1", "prompt: must be text"),
    ("jsonl", b'{"messages": [{"role": "user"}]}\n', "1", "messages: each message needs role and content"),
    ("jsonl", b'{"messages": "hi"}\n', "1", "messages: must be a list"),
    ("jsonl", b'{"prompt": "a", "output_tokens": "5"}\n', "1", "output_tokens: must be a whole number"),
    ("jsonl", b'{"prompt": "a", "output_tokens": true}\n', "1", "output_tokens: must be a whole number"),
    ("jsonl", b"\n\n", "", "holds no prompt"),
    ("text", b"fine\nna\xefve\n", "2", "not UTF-8"),
    ("text", b"  \n", "", "holds no prompt"),
    ("sharegpt", b'[{"conversations": [],\n x', "2", "not JSON"),
    ("sharegpt", b'{"conversations": []}', "1", "not a JSON list"),
    ("sharegpt", b'[{"id": 1}]', "", "entry 1 has no list of conversations"),
    ("sharegpt", b'[{"conversations": [{"from": "gpt", "value": "a"}]}]', "", "holds no prompt"),
]


@pytest.mark.parametrize(("kind", "data", "line", "what"), WRONG)
def test_errors_name_the_place(tmp_path: Path, kind: str, data: bytes, line: str, what: str) -> None:
    file = tmp_path / "data.file"
    file.write_bytes(data)
    with pytest.raises(SpecError) as caught:
        read_items(kind, file)
    assert what in str(caught.value)
    assert f"data.file:{line}" in str(caught.value) if line else "data.file" in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="No such file"):
        read_items("text", tmp_path / "nothing")


def test_sharegpt_begins_with_the_first_question(tmp_path: Path) -> None:
    file = tmp_path / "s.json"
    file.write_bytes(
        b'[{"conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "q"},'
        b' {"from": "gpt", "value": "a"}]}, {"conversation": [{"role": "user", "content": "q2"},'
        b' {"role": "assistant", "content": "a2"}]}]'
    )
    assert [(item.text, item.answer) for item in read_items("sharegpt", file)] == [("q", "a"), ("q2", "a2")]


def test_only_the_end_of_a_line_ends_a_prompt(tmp_path: Path) -> None:
    """Unicode has more characters that may break a line: U+2028 stands in texts of the web, form feeds in listings."""
    file = tmp_path / "prompts.txt"
    file.write_bytes("one\u2028and\x0cthe same\r\n\ntwo\u0085".encode())
    assert [(item.text, item.line) for item in read_items("text", file)] == [
        ("one\u2028and\x0cthe same", 1),
        ("two\u0085", 3),
    ]
