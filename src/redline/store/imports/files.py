"""Which tool wrote a file, found by what is in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import yaml

from redline.errors import UsageError
from redline.store.imports import aiperf, guidellm, inference_perf, sglang, vllm
from redline.store.imports.found import Fields, Imported

_FORMATS = (
    "vllm bench serve --save-result, guidellm's benchmarks.json or .yaml, aiperf's profile_export files, "
    "sglang.bench_serving's JSONL, inference-perf's lifecycle_metrics files"
)


def read_file(path: Path) -> list[Imported]:
    """The load points in `path`, a file or the folder that the tool wrote. UsageError when no known tool wrote it."""
    path = _inside(path) if path.is_dir() else path
    documents = _parse(path)
    first = documents[0]
    if vllm.matches(first):
        return vllm.read(Fields(first, path))
    if sglang.matches(first):
        return [one for i, line in enumerate(documents) for one in sglang.read(_line(path, i, line))]
    if guidellm.matches(first):
        return guidellm.read(Fields(first, path))
    if aiperf.matches(first) or aiperf.matches_line(first):
        return _aiperf(path, documents)
    if inference_perf.matches(first) or inference_perf.matches_requests(first):
        return _inference_perf(path, first)
    raise UsageError(
        f"{path}: no tool that redline knows writes such a file", why=f"it reads {_FORMATS}", fix="see docs/peers.md"
    )


def _line(path: Path, i: int, value: Any) -> Fields:
    return Fields(value, path, f"line {i + 1}")


def _inside(folder: Path) -> Path:
    for name in (aiperf.SUMMARY, inference_perf.SUMMARY, "benchmarks.json", "benchmarks.yaml"):
        if (folder / name).exists():
            return folder / name
    raise UsageError(f"{folder}: no result file of a known tool in it", why=f"redline reads {_FORMATS}")


def _aiperf(path: Path, documents: list[Any]) -> list[Imported]:
    other = aiperf.beside(path)
    if aiperf.matches_line(documents[0]):
        lines = [_line(path, i, line) for i, line in enumerate(documents)]
        if other is None:
            raise UsageError(f"{path}: {aiperf.SUMMARY} is not beside it", fix="import the folder that AIPerf wrote")
        return aiperf.read(Fields(_parse(other)[0], other), lines)
    lines = [_line(other, i, line) for i, line in enumerate(_parse(other))] if other is not None else []
    return aiperf.read(Fields(documents[0], path), lines)


def _inference_perf(path: Path, document: Any) -> list[Imported]:
    other = inference_perf.beside(path)
    found = Fields(_parse(other)[0], other) if other is not None else None
    if inference_perf.matches(document):
        return inference_perf.read(Fields(document, path), found)
    if found is None:
        raise UsageError(
            f"{path}: {inference_perf.SUMMARY} is not beside it", fix="import the folder that inference-perf wrote"
        )
    return inference_perf.read(found, Fields(document, path))


def _parse(path: Path) -> list[Any]:
    """The JSON or YAML document, or one document per line."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}", why=error.strerror or str(error)) from error
    if not data.strip():
        raise UsageError(f"{path} is empty")
    if path.suffix in (".yaml", ".yml"):
        return [_yaml(path, data)]
    try:
        return [orjson.loads(data)]
    except orjson.JSONDecodeError as error:
        return _lines(path, data, error)


def _yaml(path: Path, data: bytes) -> Any:
    try:
        return yaml.safe_load(data)
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is no YAML", why=str(error)) from error


def _lines(path: Path, data: bytes, whole: orjson.JSONDecodeError) -> list[Any]:
    documents = []
    for i, line in enumerate(data.splitlines()):
        try:
            if line.strip():
                documents.append(orjson.loads(line))
        except orjson.JSONDecodeError as error:
            if not documents:
                raise UsageError(f"{path}:{whole.lineno} is no JSON", why=str(whole)) from whole
            raise UsageError(
                f"{path}:{i + 1} is no JSON", why=f"{error}; was the tool killed while writing?"
            ) from error
    return documents
