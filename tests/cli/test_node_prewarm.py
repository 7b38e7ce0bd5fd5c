from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from redline.errors import EnvironmentFault
from tests.cli.node_verbs import node


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "model.safetensors").write_bytes(os.urandom(100_000))
    return tmp_path


def test_what_was_read_and_what_is_there(model: Path) -> None:
    assert "1 files, 0.00 GB" in node("prewarm", str(model)).stdout
    done = json.loads(node("prewarm", str(model), "--json").stdout)
    assert (done["bytes"], done["resident"], done["share"], done["interrupted"]) == (100_000, 100_000, 1.0, False)


def test_no_model(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="no weights"):
        node("prewarm", str(tmp_path))
