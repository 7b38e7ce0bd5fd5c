from __future__ import annotations

import json
from pathlib import Path

import pytest

from redline.errors import EnvironmentFault, TokenizerMissing, Unsupported
from redline.load.paced.pace import Pace
from redline.load.paced.server import PacedServer
from redline.load.record import TokenSource
from redline.load.tokens import FileTokenizer, ServerTokenizer, best_tokenizer
from tests.load.scripted import ScriptedServer

tokenizers = pytest.importorskip("tokenizers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level BPE with a BOS and a chat template, trained on a few lines."""
    from tokenizers import decoders, models, pre_tokenizers, processors, trainers

    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<s>", "<|u|>", "<|a|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    made.train_from_iterator(["the cat sat on the mat and the dog sat on the cat"] * 20, trainer)
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    path = tmp_path_factory.mktemp("model")
    made.save(str(path / "tokenizer.json"))
    template = (
        "{{ bos_token }}{% for m in messages %}<|u|>{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<|a|>{% endif %}"
    )
    config = {"bos_token": {"content": "<s>"}, "chat_template": template}
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    return path


def test_a_tokenizer_file(folder: Path) -> None:
    made = FileTokenizer(folder)
    assert made.counts(["the cat", "the"]) == [3, 2]
    assert made.counts(["the cat"], special=False) == [2]
    ids = made.ids("the cat")
    assert ids is not None
    assert len(ids) == 3
    assert FileTokenizer(folder / "tokenizer.json").counts(["the cat"]) == [3]


def test_a_chat_template_counts_along(folder: Path) -> None:
    made = FileTokenizer(folder)
    assert made.chat_counts([[{"role": "user", "content": "the cat"}]]) == [1 + 1 + 2 + 1]


def test_no_chat_template_no_chat(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    with pytest.raises(Unsupported, match="no chat template"):
        FileTokenizer(tmp_path).chat_counts([[{"role": "user", "content": "a"}]])
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0].content }}")
    assert FileTokenizer(tmp_path).chat_counts([[{"role": "user", "content": "the cat"}]]) == [2]


def test_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(TokenizerMissing):
        FileTokenizer(tmp_path)


def test_the_server_comes_first_and_is_spared_when_both_agree(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with PacedServer(Pace()) as server:
        differs, notes = best_tokenizer(server.endpoint, folder)
        assert isinstance(differs, ServerTokenizer)
        assert any("counts differently" in note for note in notes)
        theirs = ServerTokenizer(server.endpoint)
        monkeypatch.setattr(FileTokenizer, "counts", lambda _, texts, **kw: theirs.counts(texts))
        agrees, notes = best_tokenizer(server.endpoint, folder)
        assert isinstance(agrees, FileTokenizer)
        assert notes == []


def test_whatever_is_there_is_used(folder: Path, tmp_path: Path) -> None:
    with PacedServer(Pace(tokenizer=False)) as silent:
        ours, _ = best_tokenizer(silent.endpoint, folder)
        assert isinstance(ours, FileTokenizer)
        nobody, notes = best_tokenizer(silent.endpoint, tmp_path)
        assert nobody is None
        assert notes


def test_a_tokenize_endpoint_that_fails_is_passed_over(folder: Path) -> None:
    from dataclasses import replace

    with PacedServer(Pace(tokenizer=False)) as server:
        claims = replace(server.endpoint, dialect=replace(server.endpoint.dialect, tokenize=True))
        found, notes = best_tokenizer(claims, folder)
    assert isinstance(found, FileTokenizer)
    assert any("cannot be used" in note for note in notes)


def test_the_server_counts_chats_and_plain_texts() -> None:
    with PacedServer(Pace()) as server:
        made = ServerTokenizer(server.endpoint)
        assert made.source is TokenSource.SERVER_TOKENIZER
        assert made.counts(["a b c"], special=False) == [3]
        assert made.counts(["a b c"] * 20) == [4] * 20
        [chat] = made.chat_counts([[{"role": "user", "content": "a b c"}]])
        assert chat > 4


def test_an_answer_that_is_not_json_is_said_in_words() -> None:
    page = b"<html>welcome</html>"
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(page)
    with (
        ScriptedServer(lambda _: [head + page]) as server,
        pytest.raises(EnvironmentFault, match=r"/tokenize answered 200, but not in JSON: '<html>welcome"),
    ):
        ServerTokenizer(server.endpoint).counts(["a"])
