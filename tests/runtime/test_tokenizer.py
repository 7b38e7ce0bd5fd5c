from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from redline.engines.hf_server.text import Detokenizer
from redline.errors import TokenizerMissing
from redline.runtime.tokenizer import ByteReader, Tokenizer, byte_letters
from redline.spec.model import ModelSpec
from redline.spec.resolve import resolve_model

pytest.importorskip("tokenizers")
TINY = resolve_model(ModelSpec(id="bundled:tiny")).path
assert TINY is not None
TEXTS = [
    "",
    "Hello",
    " leading",
    "def f(x):\n    return x + 1\n",
    "你好, naïve façade 🙂",
    "<|eos|> in the text<|user|>",
    "\x00\t\r\n",
]


@pytest.fixture(scope="module")
def ours() -> Tokenizer:
    assert TINY is not None
    return Tokenizer(TINY)


@pytest.fixture(scope="module")
def reference() -> Any:
    return pytest.importorskip("transformers").AutoTokenizer.from_pretrained(TINY)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("special", [True, False])
def test_against_transformers(ours: Tokenizer, reference: Any, text: str, special: bool) -> None:
    ids = ours.encode(text, special)
    assert ids == reference.encode(text, add_special_tokens=special)
    assert ours.decode(ids) == reference.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def test_special_tokens_against_transformers(ours: Tokenizer, reference: Any) -> None:
    assert ours.special == reference.special_tokens_map | {"bos_token": "<|bos|>"}
    assert ours.id_of("eos_token") == reference.eos_token_id
    assert ours.id_of("unk_token") is None
    assert ours.vocab_size == len(reference)


def test_reading_token_by_token_is_decoding_at_once(ours: Tokenizer) -> None:
    """Random tokens: broken characters, special tokens, everything."""
    chance = random.Random(5)
    for _ in range(300):
        ids = [chance.randrange(ours.vocab_size) for _ in range(chance.randrange(1, 40))]
        reader = ours.reader([])
        assert isinstance(reader, ByteReader)
        assert "".join(map(reader.add, ids)) + reader.rest() == ours.decode(ids)


def test_a_character_comes_when_it_is_whole(ours: Tokenizer) -> None:
    ids = ours.encode("🙂", special=False)
    assert len(ids) > 1
    reader = ours.reader([])
    assert [reader.add(one) for one in ids] == [""] * (len(ids) - 1) + ["🙂"]


def test_rows_beyond_the_vocabulary_say_nothing(ours: Tokenizer) -> None:
    assert ours.reader([]).add(10**6) == ""


def test_each_byte_has_its_letter() -> None:
    letters = byte_letters()
    assert sorted(letters.values()) == list(range(256))
    assert letters["Ġ"] == ord(" ")


def test_other_vocabularies_are_read_in_windows(tmp_path: Path) -> None:
    """A sentencepiece-like one, where a word's space belongs to its first token."""
    import tokenizers

    pieces = {"▁": 0, "▁the": 1, "▁cat": 2, "s": 3, "</s>": 4}
    made: Any = tokenizers.Tokenizer(tokenizers.models.BPE(pieces, [], unk_token="▁"))
    made.decoder = tokenizers.decoders.Metaspace()
    made.add_special_tokens(["</s>"])
    made.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "</s>"}, "bos_token": "<s>"}))
    found = Tokenizer(tmp_path)
    assert isinstance(found.reader([]), Detokenizer)
    assert found.id_of("eos_token") == 4
    assert found.id_of("bos_token") == 5, "known to the configuration alone, so it was added"
    reader = found.reader([1])
    assert "".join(map(reader.add, [2, 3, 1, 4])) == " cats the"


def test_a_folder_without_one(tmp_path: Path) -> None:
    with pytest.raises(TokenizerMissing, match="no tokenizer"):
        Tokenizer(tmp_path)


def test_one_file_is_enough(tmp_path: Path, ours: Tokenizer) -> None:
    assert TINY is not None
    shutil.copy(TINY / "tokenizer.json", tmp_path)
    alone = Tokenizer(tmp_path)
    assert alone.encode("Hello") == ours.encode("Hello")
    assert alone.special == {}
