from __future__ import annotations

import json
import random
import threading
from pathlib import Path
from typing import Any

import pytest

from redline.errors import EnvironmentFault, ModelNotFound
from redline.spec.shape_tokenizer import byte_letters, tokenizer_files
from redline.spec.shapes import materialise_shape, parameter_count, shape_config, shape_names, shape_source

# totals of the published safetensors files
PUBLISHED = {
    "llama-3-8b": 8_030_261_248,
    "llama-3-70b": 70_553_706_496,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "tinyllama-1.1b": 1_100_048_384,
    "mistral-7b": 7_248_023_552,
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-7b": 7_615_616_512,
    "qwen3-4b": 4_022_468_096,
    "qwen3-8b": 8_190_735_360,
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def test_the_names() -> None:
    assert set(shape_names()) == {*PUBLISHED, "tiny-random"}
    with pytest.raises(ModelNotFound, match="did you mean 'mistral-7b'"):
        shape_config("mistal-7b")


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_those_of_the_published_weights(name: str) -> None:
    assert parameter_count(shape_config(name)) == PUBLISHED[name]
    assert "Hugging Face hub" in shape_source(name)


def test_parameters_of_what_is_not_known() -> None:
    assert parameter_count({"model_type": "mamba"}) == 0
    assert parameter_count({"model_type": "llama"}) == 0


@pytest.mark.parametrize("name", shape_names())
def test_parameters_against_transformers(name: str) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    raw = shape_config(name)
    config = transformers.AutoConfig.for_model(**raw | {"num_hidden_layers": 1})
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    assert type(model).__name__ == raw["architectures"][0]
    assert sum(parameter.numel() for parameter in model.parameters()) == parameter_count(raw | {"num_hidden_layers": 1})


@pytest.mark.parametrize("name", ["tiny-random", "llama-3.2-1b", "mistral-7b", "qwen2.5-0.5b", "qwen3-8b"])
def test_the_tokenizer_in_transformers(cache: Path, name: str) -> None:
    transformers = pytest.importorskip("transformers")
    folder = materialise_shape(name, cache)
    config = transformers.AutoConfig.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer) == config.vocab_size == shape_config(name)["vocab_size"]
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        assert getattr(tokenizer, key) == getattr(config, key), key
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (config.bos_token_id, config.eos_token_id)
    some = sorted({*range(min(2000, len(tokenizer))), *random.Random(0).sample(range(len(tokenizer)), 1000)})
    shown = tokenizer.batch_decode([[index] for index in some])
    assert all(shown)
    # transformers rebuilds the tokenizer of qwen2 with a decoder that holds single bytes back
    assert sum("\ufffd" in text for text in shown) <= (128 if config.model_type == "qwen2" else 0)
    text = "Hello, world!  def f(x):\n\treturn x + 1\r\n"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], add_generation_prompt=True, tokenize=False
    )
    assert chat == f"{tokenizer.bos_token}user: hi\nassistant:"
    assert tokenizer.encode(chat)[0] == config.bos_token_id


def test_every_reader_of_the_file_counts_alike(cache: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    text = "It's 2026: naïve 日本 tokens,  123456 of them.\n\nfoo_bar(x)"
    for name in ("tiny-random", "qwen2.5-0.5b", "llama-3-8b"):
        folder = materialise_shape(name, cache)
        plain = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        assert plain.get_vocab_size() == shape_config(name)["vocab_size"]
        assert plain.encode(text).ids == transformers.AutoTokenizer.from_pretrained(folder).encode(text)


def test_whatever_is_generated_streams_at_once_and_counts_the_same(cache: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    plain = tokenizers.Tokenizer.from_file(str(materialise_shape("llama-3-8b", cache) / "tokenizer.json"))
    ids = random.Random(1).sample(range(128_000), 2000)
    stream = tokenizers.decoders.DecodeStream(skip_special_tokens=True)
    pieces = [stream.step(plain, index) for index in ids]
    assert all(pieces), "a token was held back"
    assert "".join(pieces) == plain.decode(ids)
    assert len(plain.encode(plain.decode(ids)).ids) / len(ids) < 1.15


def test_a_tiny_random_model_generates(cache: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder = materialise_shape("tiny-random", cache)
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.from_pretrained(folder)).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer("hello world", return_tensors="pt")
    with torch.no_grad():
        assert model(**prompt).logits.shape == (1, prompt["input_ids"].shape[1], 1024)
        out = model.generate(**prompt, max_new_tokens=8, min_new_tokens=8, do_sample=False)
    new = out[0, prompt["input_ids"].shape[1] :]
    assert len(new) == 8
    assert all(tokenizer.decode([index]) for index in new.tolist())


def test_a_written_folder_is_reused_and_a_damaged_one_replaced(tmp_path: Path) -> None:
    folder = materialise_shape("tiny-random", tmp_path)
    stamp = (folder / "tokenizer.json").stat().st_mtime_ns
    assert materialise_shape("tiny-random", tmp_path) == folder
    assert (folder / "tokenizer.json").stat().st_mtime_ns == stamp
    good = (folder / "config.json").read_bytes()
    (folder / "config.json").write_text("{}")
    assert materialise_shape("tiny-random", tmp_path) == folder
    assert (folder / "config.json").read_bytes() == good
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_many_at_once_write_one_folder(tmp_path: Path) -> None:
    found: list[Path] = []
    threads = [
        threading.Thread(target=lambda: found.append(materialise_shape("tiny-random", tmp_path))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert [path.name for path in (tmp_path / "shapes").iterdir()] == [found[0].name]


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "shapes").write_text("a file")
    with pytest.raises(EnvironmentFault, match="cannot be written"):
        materialise_shape("tiny-random", tmp_path)


def test_the_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert materialise_shape("tiny-random").parent == tmp_path / "redline" / "shapes"


def merged(count: int, **model: Any) -> dict[str, Any]:
    """A byte-level BPE with `count` merges: aa, aaa, ..."""
    letters = list(byte_letters().values())
    tokens = ["a" * length for length in range(2, count + 2)]
    merges = [["a" * (length - 1), "a"] for length in range(2, count + 2)]
    vocab = {token: index for index, token in enumerate([*letters, *tokens])}
    return {"model": {"type": "BPE", "vocab": vocab, "merges": merges} | model}


def test_merges_are_borrowed_where_they_fit() -> None:
    config = shape_config("tiny-random")
    for base, used in (
        (None, 0),
        (merged(5), 5),
        (merged(2000), (1024 - 256 - 3) // 2),
        (merged(5, type="Unigram"), 0),
        (merged(5, byte_fallback=True), 0),
        (merged(5, vocab={"a": 0}), 0),
    ):
        model = tokenizer_files(config, base)["tokenizer.json"]["model"]
        assert len(model["merges"]) == used
        assert sorted(model["vocab"].values()) == list(range(1024))
        assert all("".join(merge.split(" ")) in model["vocab"] for merge in model["merges"])


def test_byte_letters_against_tokenizers() -> None:
    pre_tokenizers = pytest.importorskip("tokenizers").pre_tokenizers
    assert set(byte_letters().values()) == set(pre_tokenizers.ByteLevel.alphabet())
    assert byte_letters()[0x20] == "Ġ"
    assert json.dumps(byte_letters()[0x0A]) == '"\\u010a"'
