"""Text to tokens and back, from `tokenizer.json` and what lies beside it; the `tokenizers` package alone.

Special tokens are put in front as the file's post-processor says, as transformers does since 5.0.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from redline.engines.hf_server.text import Detokenizer
from redline.errors import TokenizerMissing
from redline.runtime.chat import ChatTemplate

SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class Tokenizer:
    """`folder` holds tokenizer.json; `special` maps `bos_token` and its like to their text."""

    def __init__(self, folder: Path) -> None:
        import tokenizers

        file = folder / "tokenizer.json"
        if not file.is_file():
            raise TokenizerMissing(
                f"{folder} has no tokenizer.json",
                why="Only this format is read here; older ones need a conversion by transformers.",
                fix="AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR), or name another folder: --tokenizer",
            )
        self.rust: Any = tokenizers.Tokenizer.from_file(str(file))
        self.rust.no_truncation()
        self.rust.no_padding()
        self.config = read_json(folder / "tokenizer_config.json")
        self.special = _special(self.config, read_json(folder / "special_tokens_map.json"))
        self._add_missing()
        self.vocab_size: int = self.rust.get_vocab_size(with_added_tokens=True)
        self.template = ChatTemplate.find(folder, self.config, self.special)
        self._bytes = byte_table(self.rust)

    def _add_missing(self) -> None:
        """Special tokens that only the configuration knows."""
        missing = [text for text in self.special.values() if self.rust.token_to_id(text) is None]
        if missing:
            self.rust.add_special_tokens(missing)

    def encode(self, text: str, special: bool = True) -> list[int]:
        return list(self.rust.encode(text, add_special_tokens=special).ids)

    def decode(self, ids: Sequence[int], special: bool = False) -> str:
        """Special tokens are left out unless `special`."""
        return str(self.rust.decode(ids, skip_special_tokens=not special))

    def id_of(self, name: str) -> int | None:
        """The id of `eos_token` and its like."""
        text = self.special.get(name)
        found = None if text is None else self.rust.token_to_id(text)
        return None if found is None else int(found)

    def reader(self, prompt: Sequence[int]) -> ByteReader | Detokenizer:
        """Reads an answer to `prompt`, token by token."""
        return Detokenizer(self.decode, prompt) if self._bytes is None else ByteReader(self._bytes)


class ByteReader:
    """Byte-level vocabularies: a token is bytes whatever stands around it, so a table and a UTF-8 decoder do it.

    Twenty times cheaper than decoding a window of tokens.
    """

    def __init__(self, table: Sequence[bytes]) -> None:
        self._table = table
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def add(self, token: int) -> str:
        try:
            return self._decode(self._table[token])
        except IndexError:  # rows of the embedding beyond the vocabulary
            return ""

    def rest(self) -> str:
        return self._decode(b"", True)


def byte_table(rust: Any) -> list[bytes] | None:
    """Bytes of every token, empty for special ones; None where the decoder does more than join bytes."""
    decoder = json.loads(rust.to_str()).get("decoder") or {}
    if decoder.get("type") != "ByteLevel":
        return None
    table: list[bytes] = [b""] * rust.get_vocab_size(with_added_tokens=True)
    letters = byte_letters()
    for text, number in rust.get_vocab(with_added_tokens=True).items():
        if number >= len(table):
            table.extend([b""] * (number + 1 - len(table)))
        known = [letters.get(letter) for letter in text]
        table[number] = text.encode() if None in known else bytes(one for one in known if one is not None)
    for number, token in rust.get_added_tokens_decoder().items():
        if token.special:
            table[number] = b""
    return table


def byte_letters() -> dict[str, int]:
    """The letter that stands for each byte in byte-level vocabularies (GPT-2): printable ones for themselves."""
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in own]
    return {**{chr(byte): byte for byte in own}, **{chr(256 + at): byte for at, byte in enumerate(others)}}


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file; {} where there is none."""
    if not path.is_file():
        return {}
    found = json.loads(path.read_text("utf-8"))
    return found if isinstance(found, dict) else {}


def _special(config: dict[str, Any], listed: dict[str, Any]) -> dict[str, str]:
    found = {}
    for name in SPECIAL:
        value = config.get(name) or listed.get(name)
        text = value.get("content") if isinstance(value, dict) else value
        if isinstance(text, str) and text:
            found[name] = text
    return found
