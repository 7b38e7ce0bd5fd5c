"""The tokenizer: byte-level BPE with 4,096 ids, six of them special."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from dev.train_models import chat

if TYPE_CHECKING:
    from dev.train_models.corpus import Document

VOCABULARY = 4096
# Words with their space, up to three digits, punctuation with its newlines, indentation as one piece.
PIECES = (
    r"'(?:[sdmt]|ll|ve|re)| ?[A-Za-z]+| ?[\p{L}\p{M}]+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def train(texts: list[str]) -> Tokenizer:
    """A tokenizer of exactly VOCABULARY ids; it puts the beginning-of-text id first."""
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(PIECES), behavior="isolated")
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, as_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=chat.SPECIALS, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), max_token_length=24,
    )  # fmt: skip
    tokenizer.train_from_iterator((_plain(text) for text in texts), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{chat.BOS} $A", pair=f"{chat.BOS} $A $B", special_tokens=[(chat.BOS, 0)]
    )
    if tokenizer.get_vocab_size() != VOCABULARY or tokenizer.token_to_id(chat.BOS) != 0:
        raise RuntimeError(f"the tokenizer came out with {tokenizer.get_vocab_size()} ids")
    return tokenizer


def _plain(text: str) -> str:
    for special in chat.SPECIALS:
        text = text.replace(special, "\n")
    return text


def encode_documents(tokenizer: Tokenizer, docs: list[Document]) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """All documents in one shuffled stream of ids: BOS, text, EOS; conversations carry their own."""
    order = list(docs)
    random.Random(11).shuffle(order)
    bos, eos = tokenizer.token_to_id(chat.BOS), tokenizer.token_to_id(chat.EOS)
    encoded = tokenizer.encode_batch([doc.text for doc in order], add_special_tokens=False)
    stream: list[np.ndarray[Any, np.dtype[np.uint16]]] = []
    for doc, item in zip(order, encoded, strict=True):
        ids = item.ids if doc.kind == "chat" else [bos, *item.ids, eos]
        stream.append(np.array(ids, dtype=np.uint16))
    return np.concatenate(stream)
