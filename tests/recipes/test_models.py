"""The bundled models: complete, small, and as good as their card says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import redline

MODELS = Path(redline.__file__).parent / "recipes" / "models"
TARGET, DRAFT = MODELS / "redline-tiny", MODELS / "redline-tiny-draft"
MEASURED = json.loads((MODELS / "heldout" / "measured.json").read_text())
FILES = {
    "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "chat_template.jinja", "README.md",
}  # fmt: skip
SPECIALS = ["<|bos|>", "<|eos|>", "<|pad|>", "<|user|>", "<|assistant|>", "<|system|>"]
BOTH = pytest.mark.parametrize("folder", [TARGET, DRAFT], ids=lambda folder: folder.name)


@pytest.fixture(scope="module")
def raw() -> Any:
    """The tokenizer without transformers, as the base install's extra has it."""
    return pytest.importorskip("tokenizers").Tokenizer.from_file(str(TARGET / "tokenizer.json"))


@pytest.fixture(scope="module")
def models() -> tuple[Any, Any]:
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    loaded = [transformers.AutoModelForCausalLM.from_pretrained(at, dtype="float32").eval() for at in (TARGET, DRAFT)]
    return loaded[0], loaded[1]


@pytest.fixture(scope="module")
def fast() -> Any:
    return pytest.importorskip("transformers").AutoTokenizer.from_pretrained(TARGET)


def heldout() -> str:
    return (MODELS / "heldout" / "heldout.txt").read_text()


def weights_header(folder: Path) -> dict[str, Any]:
    data = (folder / "model.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    header.pop("__metadata__", None)
    return dict(header)


@BOTH
def test_a_folder_has_every_file_a_server_looks_for(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == FILES


def test_the_pair_is_small_enough_to_ship() -> None:
    assert sum(path.stat().st_size for path in MODELS.rglob("*") if path.is_file()) < 18_000_000


def test_one_draft_is_a_tenth_of_its_target() -> None:
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (TARGET, DRAFT)]
    assert 8 < sizes[0] / sizes[1] < 12


def test_the_pair_shares_one_tokenizer() -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (TARGET / name).read_bytes() == (DRAFT / name).read_bytes()


@BOTH
def test_weights_are_bf16_and_have_the_shapes_of_the_config(folder: Path) -> None:
    config, header = json.loads((folder / "config.json").read_text()), weights_header(folder)
    kv = config["num_key_value_heads"] * config["head_dim"]
    assert {entry["dtype"] for entry in header.values()} == {"BF16"}
    assert header["model.embed_tokens.weight"]["shape"] == [config["vocab_size"], config["hidden_size"]]
    assert header["model.layers.0.self_attn.k_proj.weight"]["shape"] == [kv, config["hidden_size"]]
    assert "lm_head.weight" not in header
    assert config["tie_word_embeddings"] is True
    assert len({name.split(".")[2] for name in header if ".layers." in name}) == config["num_hidden_layers"]


def test_special_tokens_have_the_ids_that_the_config_names(raw: Any) -> None:
    config = json.loads((TARGET / "config.json").read_text())
    assert [raw.token_to_id(text) for text in SPECIALS] == list(range(6))
    assert (config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]) == (0, 1, 2)
    assert raw.get_vocab_size() == config["vocab_size"] == 4096


@given(text=st.text(max_size=200))
def test_text_survives_the_tokenizer(text: str) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = _cached(tokenizers)
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    if not any(special in text for special in SPECIALS):
        assert tokenizer.decode(ids, skip_special_tokens=False) == text
        assert not set(ids) & set(range(6))


_CACHE: dict[str, Any] = {}


def _cached(tokenizers: Any) -> Any:
    """One tokenizer for every example: hypothesis forbids function-scoped fixtures."""
    if "raw" not in _CACHE:
        _CACHE["raw"] = tokenizers.Tokenizer.from_file(str(TARGET / "tokenizer.json"))
    return _CACHE["raw"]


def test_the_tokenizer_compresses_what_it_was_trained_for(raw: Any) -> None:
    text = re.sub(r"<\|\w+\|>", "", heldout())
    assert len(text.encode()) / len(raw.encode(text, add_special_tokens=False).ids) > 3.0


def test_against_transformers_the_tokenizer_gives_the_same_ids(raw: Any, fast: Any) -> None:
    text = heldout()[:5000]
    assert fast(text, add_special_tokens=False).input_ids == raw.encode(text, add_special_tokens=False).ids
    assert fast("def f():").input_ids[0] == 0


def test_the_chat_template_renders_the_form_that_was_trained(fast: Any) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "What is `os`?"},
    ]
    text = fast.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<|bos|><|system|>Be brief.<|eos|><|user|>Hi<|eos|><|assistant|>Hello!<|eos|>"
        "<|user|>What is `os`?<|eos|><|assistant|>"
    )
    parts = [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
    assert fast.apply_chat_template(parts, tokenize=False) == "<|bos|><|user|>Hi<|eos|>"


def test_the_chat_template_refuses_a_role_it_was_not_trained_on(fast: Any) -> None:
    with pytest.raises(Exception, match="not tool"):
        fast.apply_chat_template([{"role": "tool", "content": "x"}], tokenize=False)


def test_heldout_loss_is_what_the_card_says(raw: Any, models: tuple[Any, Any]) -> None:
    """Recomputed over the first tokens, by the card's protocol, from the files that ship."""
    import torch

    count, window = MEASURED["start"]["tokens"], MEASURED["heldout"]["window"]
    ids = torch.tensor(raw.encode(heldout(), add_special_tokens=False).ids[:count])
    same = 0
    total = dict.fromkeys((TARGET.name, DRAFT.name), 0.0)
    for start in range(0, count - window + 1, MEASURED["heldout"]["stride"]):
        first = 1 if start == 0 else window - MEASURED["heldout"]["stride"]
        chunk = ids[start : start + window]
        with torch.no_grad():
            logits = [model(chunk[None]).logits[0, first - 1 : -1] for model in models]
        for name, rows in zip(total, logits, strict=True):
            total[name] += torch.nn.functional.cross_entropy(rows, chunk[first:], reduction="sum").item()
        same += int((logits[0].argmax(-1) == logits[1].argmax(-1)).sum())
    for name, value in total.items():
        assert value / (count - 1) == pytest.approx(MEASURED["start"]["loss"][name], abs=0.01)
        assert value / (count - 1) < MEASURED["loss"]["unigram"] - 3
    assert same / (count - 1) == pytest.approx(MEASURED["start"]["greedy_agreement"], abs=0.01)
    assert same / (count - 1) > 0.45


def test_the_card_quotes_what_was_measured() -> None:
    for folder in (TARGET, DRAFT):
        card = (folder / "README.md").read_text()
        for name, value in MEASURED["perplexity"].items():
            assert f"{value:.2f}" in card, name
    loss = MEASURED["loss"]
    assert loss["redline-tiny"] < loss["redline-tiny-draft"] < loss["unigram"] - 3


def test_a_greeting_is_answered_and_ends(fast: Any, models: tuple[Any, Any]) -> None:
    ids = fast.apply_chat_template(
        [{"role": "user", "content": "Hello"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )["input_ids"]
    for model in models:
        out = model.generate(ids, max_new_tokens=40, do_sample=False)[0, ids.shape[1] :].tolist()
        assert out[-1] == 1
        assert fast.decode(out, skip_special_tokens=True).startswith("Hello!")


def test_greedy_code_is_not_degenerate(fast: Any, models: tuple[Any, Any]) -> None:
    prompt = "import os\n\n\ndef read(path):\n"
    ids = fast(prompt, return_tensors="pt")["input_ids"]
    out = models[0].generate(ids, max_new_tokens=48, do_sample=False)[0, ids.shape[1] :].tolist()
    assert len(set(out)) > 12
    assert re.search(r"\b(return|with|self|open|path|if)\b", fast.decode(out))
