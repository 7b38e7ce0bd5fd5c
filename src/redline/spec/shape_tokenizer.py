"""A tokenizer of a wanted vocabulary size for a model with random weights.

Random weights generate any id, and each must become text that streams at once. So:

- Most of the vocabulary is filler: distinct invented words with a leading space (` kodavi`), each one token, so that
  text which the model generated counts the same when it is tokenized again.
- The other part is a byte-level BPE (the bundled model's, where it fits), so that prompts cost about as many tokens as
  usual, and any text can be encoded.
- A byte from 0x80 up is no text of its own. A byte-level decoder would hold it back until the character is whole,
  which in random output never happens; the decoder here shows each such byte as one letter instead. ASCII therefore
  survives a round trip exactly, other text is encoded fully and decoded as letters per byte.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

BOS, EOS, PAD = "<|bos|>", "<|eos|>", "<|pad|>"

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)

_CONSONANTS, _VOWELS = "bdfklmprstvz", "aeiou"

# transformers 5 rebuilds the tokenizer of a qwen2 model with these parts, whatever tokenizer.json says; writing the
# same ones keeps every reader of the file in agreement
_QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def tokenizer_files(config: dict[str, Any], base: dict[str, Any] | None) -> dict[str, dict[str, Any]]:
    """tokenizer.json and tokenizer_config.json for a model of this config.json.

    `base` is the tokenizer.json to borrow BPE merges from; bytes alone are used when it is None or no byte-level BPE.
    """
    size = int(config["vocab_size"])
    special = {int(config["bos_token_id"]): BOS, size - 1: PAD} | {int(config["eos_token_id"]): EOS}
    merges = _merges(base)[: max(0, (size - 256 - len(special)) // 2)]
    vocab = _vocabulary(size, special, merges)
    return {
        "tokenizer.json": _tokenizer(vocab, merges, special, str(config["model_type"])),
        "tokenizer_config.json": {
            # not a class of the model's family: those rebuild the tokenizer from its parts
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": special[int(config["bos_token_id"])],
            "eos_token": EOS,
            "pad_token": PAD,
            "unk_token": PAD,
            "model_max_length": int(config["max_position_embeddings"]),
            "clean_up_tokenization_spaces": False,
            "chat_template": CHAT_TEMPLATE,
        },
    }


def byte_letters() -> dict[int, str]:
    """Byte -> the letter that stands for it in byte-level BPE: itself where printable, else one from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = {byte: chr(byte) for byte in printable}
    hidden = (byte for byte in range(256) if byte not in letters)
    return dict(sorted((letters | {byte: chr(0x100 + index) for index, byte in enumerate(hidden)}).items()))


def _merges(base: dict[str, Any] | None) -> list[tuple[str, str]]:
    """The merges of a byte-level BPE, best first; none when it is something else."""
    model = (base or {}).get("model", {})
    if model.get("type") != "BPE" or model.get("byte_fallback"):
        return []
    letters, merges = set(byte_letters().values()), []
    if not letters <= set(model.get("vocab", {})):
        return []
    for merge in model.get("merges", []):
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        merges.append((left, right))
    return merges


def _vocabulary(size: int, special: dict[int, str], merges: list[tuple[str, str]]) -> dict[str, int]:
    """Token -> id: the special tokens at their published ids, around them bytes, merged tokens, filler."""
    known = dict.fromkeys([*byte_letters().values(), *(left + right for left, right in merges)])
    filler = (word for word in _words() if word not in known)
    ordinary = iter(known)
    vocab = {}
    for index in range(size):
        token = special.get(index) or next(ordinary, None) or next(filler)
        vocab[token] = index
    return vocab


def _words() -> Iterator[str]:
    """216,000 invented words of three syllables, each behind the letter that stands for a space."""
    syllables = [consonant + vowel for consonant in _CONSONANTS for vowel in _VOWELS]
    count = len(syllables)
    for index in range(count**3):
        # neighbours in the list begin differently: easier on the eye in generated text
        yield "Ġ" + syllables[index % count] + syllables[index // count % count] + syllables[index // count**2]


def _tokenizer(
    vocab: dict[str, int], merges: list[tuple[str, str]], special: dict[int, str], model_type: str
) -> dict[str, Any]:
    qwen2 = model_type == "qwen2"
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": not qwen2}
    split = {"type": "Split", "pattern": {"Regex": _QWEN2_PATTERN}, "behavior": "Isolated", "invert": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_special(index, token) for index, token in sorted(special.items())],
        "normalizer": {"type": "NFC"} if qwen2 else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]} if qwen2 else byte_level,
        "post_processor": None,
        "decoder": byte_level if qwen2 else _LETTERS_AS_TEXT,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": not qwen2,  # a filler word is found whole; nothing merges into it
            "vocab": vocab,
            "merges": [f"{left} {right}" for left, right in merges],
        },
    }


def _special(index: int, token: str) -> dict[str, Any]:
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": index, "content": token, **plain, "special": True}


_LETTERS_AS_TEXT = {
    "type": "Sequence",
    "decoders": [
        {"type": "Replace", "pattern": {"String": letter}, "content": text}
        for letter, text in {"Ġ": " ", "Ċ": "\n", "ĉ": "\t", "č": "\r"}.items()
    ],
}
