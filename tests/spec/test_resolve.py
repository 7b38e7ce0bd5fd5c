from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

import redline
from redline.errors import ModelNotFound, TokenizerMissing
from redline.spec.model import ModelSpec
from redline.spec.resolve import BUNDLED, ensure_available, model_hashes, resolve_model

CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}


def make_model(folder: Path, *, weights: bytes = b"w" * 10, tokenizer: bool = True) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    if tokenizer:
        (folder / "tokenizer.json").write_text("{}")
    if weights:
        (folder / "model.safetensors").write_bytes(weights)
    return folder


def safetensors(header: dict[str, object], payload: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + payload


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, and no hub."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path / "hub"


def test_a_folder(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m")
    found = resolve_model(ModelSpec(id=str(folder)))
    assert (found.path, found.hub_id, found.tokenizer_path, found.random_weights) == (folder, None, folder, False)
    assert found.config == CONFIG
    assert found.location == str(folder)
    assert "LlamaForCausalLM" in found.description


@pytest.mark.parametrize("written", ["./nope", "/nope/nope", "a/b/c", "~/nope", "../x", "nope/"])
def test_what_looks_like_a_path_is_never_a_hub_id(written: str) -> None:
    with pytest.raises(ModelNotFound, match="does not exist"):
        resolve_model(ModelSpec(id=written))


def test_a_misspelt_folder_names_its_neighbour(tmp_path: Path) -> None:
    make_model(tmp_path / "llama-8b")
    with pytest.raises(ModelNotFound, match="did you mean 'llama-8b'"):
        resolve_model(ModelSpec(id=str(tmp_path / "lama-8b")))


def test_what_a_folder_lacks(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    make_model(tmp_path / "outer" / "inner")
    make_model(tmp_path / "bare", weights=b"")
    make_model(tmp_path / "mute", tokenizer=False)
    make_model(tmp_path / "odd")
    (tmp_path / "odd" / "config.json").write_text("{")
    shards = make_model(tmp_path / "shards", weights=b"")
    (shards / "model-00001-of-00002.safetensors").write_bytes(b"")
    weight_map = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (shards / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    for name, kind, said in (
        ("empty", ModelNotFound, "config.json is missing\nit holds nothing"),
        ("outer", ModelNotFound, "did you mean .*inner"),
        ("bare", ModelNotFound, "no weights: no .*safetensors"),
        ("mute", TokenizerMissing, "has no tokenizer: none of tokenizer.json, tokenizer.model"),
        ("odd", ModelNotFound, "not valid JSON"),
        ("shards", ModelNotFound, "1 of 2 shards are missing, such as model-00002-of-00002.safetensors"),
    ):
        with pytest.raises(kind, match=said) as caught:
            resolve_model(ModelSpec(id=str(tmp_path / name)))
        assert caught.value.exit_code == 3


def test_random_weights_need_no_weights(tmp_path: Path) -> None:
    bare = make_model(tmp_path / "bare", weights=b"")
    assert resolve_model(ModelSpec(id=str(bare), random_weights=True)).random_weights


def test_another_tokenizer(tmp_path: Path) -> None:
    mute = make_model(tmp_path / "mute", tokenizer=False)
    other = make_model(tmp_path / "other", weights=b"")
    assert resolve_model(ModelSpec(id=str(mute), tokenizer=str(other))).tokenizer_path == other
    assert resolve_model(ModelSpec(id=str(mute), tokenizer="org/tok")).tokenizer_hub_id == "org/tok"
    with pytest.raises(TokenizerMissing, match="given as tokenizer"):
        resolve_model(ModelSpec(id=str(other), tokenizer=str(mute), random_weights=True))
    with pytest.raises(TokenizerMissing, match="does not exist"):
        resolve_model(ModelSpec(id=str(mute), tokenizer="./nope"))


def test_the_hubs_cache(tmp_path: Path, hub: Path) -> None:
    home = hub / "models--org--name"
    snapshot = make_model(home / "snapshots" / "abc123")
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("abc123\n")
    assert resolve_model(ModelSpec(id="org/name")).path == snapshot
    assert resolve_model(ModelSpec(id="org/name", revision="abc123")).path == snapshot
    elsewhere = resolve_model(ModelSpec(id="org/name", revision="v2"))
    assert (elsewhere.path, elsewhere.hub_id, elsewhere.tokenizer_hub_id) == (None, "org/name", "org/name")
    assert elsewhere.config == {}


def test_half_a_download_is_no_model(hub: Path) -> None:
    home = hub / "models--org--name"
    make_model(home / "snapshots" / "abc", weights=b"")
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("abc")
    assert resolve_model(ModelSpec(id="org/name")).hub_id == "org/name"
    assert resolve_model(ModelSpec(id="org/name", random_weights=True)).path is not None


def test_a_hub_id_with_no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelNotFound, match="HF_HUB_OFFLINE=1 forbids the download") as caught:
        ensure_available(ModelSpec(id="org/name"))
    assert "unset HF_HUB_OFFLINE" in caught.value.fix
    make_model(tmp_path / "mymodel")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelNotFound) as caught:
        ensure_available(ModelSpec(id="mymodl"))
    assert "did you mean 'mymodel'? as a folder" in caught.value.fix


def test_bundled_and_shape_names() -> None:
    with pytest.raises(ModelNotFound, match="did you mean 'tiny'"):
        resolve_model(ModelSpec(id="bundled:tny"))
    with pytest.raises(ModelNotFound, match="did you mean 'llama-3-8b'"):
        resolve_model(ModelSpec(id="shape:lama-3-8b"))
    with pytest.raises(ModelNotFound, match="did you mean 'bundled:tiny'"):
        resolve_model(ModelSpec(id="bundle:tiny"))


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_models_are_whole_or_said_to_be_missing(name: str) -> None:
    folder = Path(redline.__file__).parent / "recipes" / "models" / BUNDLED[name]
    if (folder / "config.json").is_file():
        assert resolve_model(ModelSpec(id=f"bundled:{name}")).path == folder
        return
    with pytest.raises(ModelNotFound, match="not part of this installation"):
        resolve_model(ModelSpec(id=f"bundled:{name}"))


def test_a_shape_is_written_to_the_cache(tmp_path: Path) -> None:
    found = resolve_model(ModelSpec(id="shape:tiny-random"), tmp_path)
    assert found.random_weights
    assert found.path is not None
    assert found.path.is_relative_to(tmp_path)
    assert found.tokenizer_path == found.path
    assert "0.205 M parameters" in found.description


def test_hashes_of_small_weights_are_whole(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m", weights=safetensors({"a": 1}, b"12345"))
    hashes = model_hashes(folder)
    assert set(hashes) == {"config.json", "tokenizer.json", "model.safetensors"}
    content = (folder / "model.safetensors").read_bytes()
    assert hashes["model.safetensors"] == f"sha256:{hashlib.sha256(content).hexdigest()}"
    (folder / "model.safetensors").write_bytes(safetensors({"a": 1}, b"12346"))
    assert model_hashes(folder)["model.safetensors"] != hashes["model.safetensors"]
    assert model_hashes(tmp_path / "nothing") == {}


def test_hashes_of_large_weights_are_headers_and_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("redline.spec.resolve._FULL_HASH_BELOW", 10)
    folder = make_model(tmp_path / "m", weights=safetensors({"a": 1}, b"12345"))
    (folder / "broken.safetensors").write_bytes(b"\xff" * 12)
    hashes = model_hashes(folder)
    header = hashlib.sha256(json.dumps({"a": 1}).encode()).hexdigest()
    assert hashes["model.safetensors"] == f"header:{header}:{8 + 8 + 5}"
    assert hashes["broken.safetensors"].startswith("start:")
    (folder / "model.safetensors").write_bytes(safetensors({"a": 2}, b"12345"))
    assert model_hashes(folder)["model.safetensors"] != hashes["model.safetensors"]
