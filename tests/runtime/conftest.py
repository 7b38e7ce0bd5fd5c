from __future__ import annotations

import sys

import pytest


@pytest.fixture(autouse=True, scope="session")
def _one_thread_each() -> None:
    """Threads of several workers on few cores wait for each other, which makes tiny tensors ten times slower."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)
