from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from redline.engines import vllm_install
from redline.engines.vllm import VllmEngine
from redline.engines.vllm_install import find, flag_table, missing_for_spans
from redline.errors import EnvironmentFault, Unsupported, UsageError
from redline.spec.model import ModelSpec
from tests.engines.fake_vllm import fake, spec

__all__ = ["fake"]


def test_flags_come_from_the_installed_parser_and_are_kept(fake: Path, tmp_path: Path) -> None:
    engine = VllmEngine()
    assert engine.known_flags(spec(fake)) == frozenset({"max-num-seqs", "enforce-eager", "dtype"})
    with pytest.raises(UsageError, match=r"no flag --max-num-sequences\n.*\nDid you mean --max-num-seqs"):
        engine.check(spec(fake, flags={"max-num-sequences": 3}), ModelSpec(id="bundled:tiny"))
    engine.check(spec(fake, flags={"max_num_seqs": 3}), ModelSpec(id="bundled:tiny"))
    assert (tmp_path / "count").read_text() == "x", "the parser was asked once"
    vllm_install._look.cache_clear()
    os.utime(tmp_path / "site" / "vllm" / "__init__.py", ns=(1, 1))  # another installation
    engine.known_flags(spec(fake))
    assert (tmp_path / "count").read_text() == "xx"


def test_a_damaged_cache_is_asked_anew(fake: Path, tmp_path: Path) -> None:
    VllmEngine().known_flags(spec(fake))
    for file in (tmp_path / "cache").rglob("vllm-*.json"):
        file.write_text("{")
    assert "dtype" in (VllmEngine().known_flags(spec(fake)) or ())


def test_a_broken_installation_is_told(fake: Path, tmp_path: Path) -> None:
    (tmp_path / "site/vllm/entrypoints/openai/cli_args.py").write_text("raise ImportError('libfoo.so is missing')")
    with pytest.raises(EnvironmentFault, match=r"does not tell its flags\n.*libfoo\.so is missing"):
        VllmEngine().check(spec(fake), ModelSpec(id="bundled:tiny"))
    assert VllmEngine().known_flags(spec(fake)) is None


def test_flag_table_reads_what_was_kept(fake: Path) -> None:
    install = find(spec(fake))
    assert install is not None
    assert flag_table(install, spec(fake)).names() == flag_table(install, spec(fake)).names()


def test_finds_the_cpu_build_by_its_own_name(fake: Path) -> None:
    engine = VllmEngine()
    for python in (fake, fake.parent.parent):  # the interpreter, or the folder of its environment
        assert engine.available(spec(python)) is None
        assert engine.version(spec(python)) == "9.8.7+cpu"
    install = find(spec(fake))
    assert install is not None
    assert (install.build, install.module) == ("cpu", "vllm.entrypoints.openai.api_server")


def test_not_installed_is_skipped_with_a_way_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)  # no .venv-vllm here
    vllm_install._look.cache_clear()
    skipped = VllmEngine().available(spec())
    if skipped is None:
        pytest.skip("this environment has vLLM")
    assert "not installed" in skipped.reason
    assert "make vllm" in skipped.how_to_get_it
    with pytest.raises(Unsupported):
        VllmEngine().version(spec())
    with pytest.raises(EnvironmentFault, match="no Python interpreter at /no/such"):
        VllmEngine().available(spec("/no/such"))


def test_spans_need_both_exporters_since_vllm_imports_both(tmp_path: Path) -> None:
    for name in ("sdk", "exporter/otlp/proto/http", "semconv_ai"):
        folder = tmp_path / "opentelemetry" / name
        folder.mkdir(parents=True)
        (folder / "__init__.py").touch()
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{tmp_path}" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    assert missing_for_spans(str(python)) == "opentelemetry.exporter.otlp.proto.grpc"
    (tmp_path / "opentelemetry/exporter/otlp/proto/grpc").mkdir()
    assert missing_for_spans(str(python)) == ""
