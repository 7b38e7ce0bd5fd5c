"""The engines that `redline profile` is asked for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from redline import hooks
from redline.errors import UsageError
from redline.spec.engine import EngineSpec
from redline.spec.faults import did_you_mean
from redline.spec.model import ModelSpec
from redline.spec.shorthand import ENGINE_ALIASES
from redline.spec.tree import read_scalar

_Spec = TypeVar("_Spec", bound=BaseModel)


@dataclass(frozen=True)
class Asked:
    """Flags of the command line that say which engines, and how."""

    engine: str | None = None
    compare: str | None = None
    url: str | None = None
    flags: list[str] = field(default_factory=list)
    also: list[str] = field(default_factory=list)
    python: str | None = None
    engine_python: list[str] = field(default_factory=list)
    engine_env: list[str] = field(default_factory=list)


def model_of(name: str, dtype: str | None) -> ModelSpec:
    return _made(ModelSpec, {"id": name, **({"dtype": dtype} if dtype else {})}, "--dtype")


def engines_of(asked: Asked) -> list[EngineSpec]:
    """One for each word, then those of --also. `transformers` is one engine here: plain or static, as the batch is."""
    ways = {"--engine": asked.engine, "--compare": asked.compare, "--url": asked.url}
    given = [name for name, value in ways.items() if value]
    if len(given) != 1:
        raise UsageError(
            "which engine?" if not given else f"{' and '.join(given)} exclude each other",
            fix="--engine redline, --compare transformers,vllm,redline, or --url http://127.0.0.1:8000/v1",
        )
    if asked.url:
        return [_made(EngineSpec, {"kind": "url", "url": asked.url}, "--url")]
    words = [word.strip() for word in (asked.engine or asked.compare or "").split(",") if word.strip()]
    pairs: list[tuple[str, str, dict[str, Any]]] = [(word, word, {}) for word in words]
    for text in asked.also:
        word, _, flags = text.partition(":")
        pairs.append((word.strip(), f"{word.strip()} {flags}", dict(_pairs(flags.split(","), "--also"))))
    return [_spec(word, name, flags, asked, words) for word, name, flags in pairs]


def _spec(word: str, name: str, flags: dict[str, Any], asked: Asked, words: list[str]) -> EngineSpec:
    known = [*hooks.engine_kinds(), *ENGINE_ALIASES]
    if word not in known:
        raise UsageError(
            f"there is no engine {word!r}", why=f"known: {', '.join(known)}", fix=did_you_mean(word, known)
        )
    kind, own = ENGINE_ALIASES.get(word, (word, {}))
    pythons = dict(_pairs(asked.engine_python, "--engine-python"))
    record = {
        "kind": kind,
        "name": name,
        "python": str(pythons.get(word, asked.python or "")),
        "flags": {**own, **_for(word, asked.flags, words), **flags},
        "env": {key: str(value) for key, value in _for(word, asked.engine_env, words).items()},
    }
    return _made(EngineSpec, record, f"engine {word}")


def _for(word: str, texts: Iterable[str], words: list[str]) -> dict[str, Any]:
    """`FLAG=VALUE` of all engines and `ENGINE.FLAG=VALUE` of this one."""
    found = {}
    for name, value in _pairs(texts, "--flag"):
        head, dot, rest = name.partition(".")
        if dot and head in words:
            if head == word:
                found[rest] = value
        else:
            found[name] = value
    return found


def _pairs(texts: Iterable[str], flag: str) -> list[tuple[str, Any]]:
    made = []
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or not name.strip():
            raise UsageError(f"{flag} {text!r} is no NAME=VALUE", fix=f"{flag} max-num-seqs=8")
        made.append((name.strip(), read_scalar(value, flag)))
    return made


def _made(kind: type[_Spec], record: dict[str, Any], what: str) -> _Spec:
    try:
        return kind.model_validate(record)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UsageError(f"{what}: {where + ': ' if where else ''}{first['msg']}") from None
