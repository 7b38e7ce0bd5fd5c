"""Builds the corpus: Python's documentation and standard library, split by topic, as text and as tokens.

    python -m dev.train_models.corpus --out .corpus

Writes train.jsonl, val.jsonl, heldout.jsonl (one document a line), heldout.txt (what ships), tokenizer.json
and train.npy, val.npy (uint16 token ids).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import re
import sysconfig
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from dev.train_models import bpe, chat, rst

DOCS = Path("/usr/share/doc/python3.11/html/_sources")  # Debian: python3.11-doc
SKIPPED = re.compile(
    r"site-packages|/lib2to3/tests/data|pydoc_data|/idlelib/|/config-|lib-dynload|__pycache__|/encodings/(?!__init__|idna|"
    r"utf_8|punycode|aliases)|/test/(?:test_lib2to3|cjkencodings|leakers|crashers|dtracedata|decimaltestdata|encoded_modules)"
    r"|/test/(?:bad|test_tools|badsyntax)|_sysconfigdata|/this\.py|test_grammar|/test/re_tests|/distutils/command/bdist_msi|"
    r"/lib2to3/tests|/test/test_importlib/data|/test/test_email/data|/test/mp_|/ctypes/macholib"
)
ALIASES = {
    "posixpath": "os", "ntpath": "os", "genericpath": "os", "nturl2path": "os", "pyio": "io", "pydecimal": "decimal",
    "datetimetester": "datetime", "pickletester": "pickle", "pickletools": "pickle", "string_tests": "str",
    "strptime": "datetime", "zoneinfo": "datetime", "sre_compile": "re", "sre_parse": "re", "sre_constants": "re",
    "mock": "unittest", "multiprocessing": "concurrent",
}  # fmt: skip
TEST_BYTES = 60_000  # of one test file: tests repeat themselves
SHINGLE = 13  # words
HELDOUT_BYTES = {"docs": 90_000, "code": 70_000, "chat": 30_000}


@dataclass(frozen=True)
class Document:
    """One text of the corpus."""

    topic: str
    kind: str  # docs, code, tests, chat
    name: str
    text: str


def topic_of(path: Path, root: Path, docs: bool) -> str:
    """What a file is about: the module for library files, their documentation and tests; else the page."""
    parts = path.relative_to(root).parts
    if docs and parts[0] != "library":
        return "/".join(parts).removesuffix(".rst.txt")
    if docs:
        parts = (parts[1].removesuffix(".rst.txt"),)
    names = [part.removesuffix(".py") for part in parts]
    if names[0] == "test" and len(names) > 1:
        names = names[1:]
    name = re.sub(r"^_*(test_)?_*", "", names[0].split(".")[0].split("-")[0].lower())
    return ALIASES.get(name, name)


def split_of(topic: str) -> str:
    """The split of a topic, by a hash: the same on every machine."""
    bucket = int(hashlib.sha256(f"redline-tiny:{topic}".encode()).hexdigest(), 16) % 100
    return "heldout" if bucket < 3 else "val" if bucket < 5 else "train"


def read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        return ""


def documents(docs: Path, lib: Path) -> Iterator[Document]:
    """Pages, source files, tests (cut) and the conversations made from the first two."""
    for path in sorted(docs.rglob("*.rst.txt")):
        if path.name.startswith("changelog") or not (source := read(path)):
            continue
        topic, name = topic_of(path, docs, docs=True), "docs/" + str(path.relative_to(docs))
        if len(text := rst.clean(source)) > 200:
            yield Document(topic, "docs", name, text)
        yield from _chats(topic, name, list(chat.from_page(source, random.Random(name))))
    for path in sorted(lib.rglob("*.py")):
        if SKIPPED.search(str(path)) or not (source := read(path)) or len(source) < 200:
            continue
        topic, name = topic_of(path, lib, docs=False), "lib/" + str(path.relative_to(lib))
        if "test" in path.relative_to(lib).parts or "tests" in path.parts:
            yield Document(topic, "tests", name, _cut(source, TEST_BYTES))
            continue
        yield Document(topic, "code", name, source)
        module = ".".join(path.relative_to(lib).with_suffix("").parts).removesuffix(".__init__")
        yield from _chats(topic, name, list(chat.from_module(source, module, random.Random(name))))
    greetings = [turn for turn in chat.GREETINGS for _ in range(12)]
    random.Random(7).shuffle(greetings)
    for text in chat.conversations(greetings, random.Random(8)):
        yield Document("greetings", "chat", "greetings", text)


def _chats(topic: str, name: str, turns: list[chat.Turn]) -> Iterator[Document]:
    pick = random.Random(name + "/chat")
    for text in chat.conversations(turns, pick):
        yield Document(topic, "chat", name, text)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: text.rfind("\n", 0, limit) + 1]


def shingles(text: str) -> set[int]:
    words = re.findall(r"\w+|[^\w\s]", text)
    return {hash(tuple(words[i : i + SHINGLE])) for i in range(max(0, len(words) - SHINGLE + 1))}


def split(found: list[Document]) -> dict[str, list[Document]]:
    """The splits, exact duplicates gone, training text that repeats held-out text gone."""
    parts: dict[str, list[Document]] = {"train": [], "val": [], "heldout": []}
    seen: set[str] = set()
    for doc in found:
        digest = hashlib.sha256(re.sub(r"\s+", " ", doc.text).encode()).hexdigest()
        if digest in seen and doc.topic != "greetings":
            continue
        seen.add(digest)
        parts["train" if doc.topic == "greetings" else split_of(doc.topic)].append(doc)
    guarded: set[int] = set()
    for doc in parts["heldout"] + parts["val"]:
        guarded |= shingles(doc.text)
    kept, dropped = [], 0
    for doc in parts["train"]:
        own = shingles(doc.text)
        if own and len(own & guarded) / len(own) > 0.10:
            dropped += len(doc.text)
            continue
        kept.append(doc)
    print(f"dropped {dropped:,} characters of training text that repeat val or held-out text")
    parts["train"] = kept
    return parts


def excerpt(heldout: list[Document], train: list[Document]) -> tuple[list[Document], float]:
    """What ships: excerpts of the held-out documents, and the share of their shingles that training text has."""
    known: set[int] = set()
    for doc in train:
        known |= shingles(doc.text)
    chosen: list[Document] = []
    repeated = total = 0
    for kind, budget in HELDOUT_BYTES.items():
        pool = [doc for doc in heldout if doc.kind == kind]
        pool.sort(key=lambda doc: hashlib.sha256(doc.text.encode()).digest())
        used = 0
        for doc in pool:
            text = doc.text if kind == "chat" else _cut(doc.text, 20_000)
            own = shingles(text)
            if used + len(text) > budget or not own or len(own & known) / len(own) > 0.10:
                continue
            used, total, repeated = used + len(text), total + len(own), repeated + len(own & known)
            chosen.append(Document(doc.topic, kind, doc.name, text))
    return chosen, repeated / max(1, total)


def main() -> None:
    args = argparse.ArgumentParser()
    args.add_argument("--out", type=Path, default=Path(".corpus"))
    args.add_argument("--docs", type=Path, default=DOCS)
    args.add_argument("--lib", type=Path, default=Path(sysconfig.get_paths()["stdlib"]))
    opts = args.parse_args()
    opts.out.mkdir(parents=True, exist_ok=True)
    parts = split(list(documents(opts.docs, opts.lib)))
    for name, docs in parts.items():
        sizes = {kind: sum(len(d.text) for d in docs if d.kind == kind) for kind in ("docs", "code", "tests", "chat")}
        print(name, len(docs), "documents", sizes, "topics", len({d.topic for d in docs}))
        with (opts.out / f"{name}.jsonl").open("w") as file:
            file.writelines(json.dumps(asdict(doc)) + "\n" for doc in docs)
    chosen, overlap = excerpt(parts["heldout"], parts["train"])
    (opts.out / "heldout.jsonl").write_text("".join(json.dumps(asdict(doc)) + "\n" for doc in chosen))
    log = Path(__file__).parent / "logs" / "corpus.json"
    log.write_text(json.dumps({"heldout_overlap": round(overlap, 4)}) + "\n")
    print(f"shipped held-out text: {sum(len(d.text.encode()) for d in chosen):,} bytes, {len(chosen)} documents,"
          f" {overlap:.2%} of its {SHINGLE}-word shingles occur in the training text")  # fmt: skip
    print("held-out topics:", sorted({d.topic for d in parts["heldout"]}))
    (opts.out / "heldout.txt").write_text(
        "".join(doc.text if doc.kind == "chat" else f"{chat.BOS}{doc.text}{chat.EOS}" for doc in chosen)
    )
    tokenizer = bpe.train([doc.text for doc in parts["train"]])
    tokenizer.save(str(opts.out / "tokenizer.json"), pretty=False)
    for name in ("train", "val"):
        ids = bpe.encode_documents(tokenizer, parts[name])
        np.save(opts.out / f"{name}.npy", ids)
        size = sum(len(doc.text.encode()) for doc in parts[name])
        print(name, f"{len(ids):,} tokens, {size / len(ids):.2f} bytes per token")


if __name__ == "__main__":
    main()
