from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from redline.engines.hf_server.load import library
from tests.engines.hf_server.live import Live

PROMPTS = ["The quick brown fox", "def build(", "x", "The lazy dog sleeps on and on and on " * 8]


@pytest.fixture(scope="module")
def varlen(tiny: Path) -> Live:
    if hasattr(library("transformers.generation.configuration_utils").ContinuousBatchingConfig, "auto_switch_to_flash"):
        pytest.skip("this transformers takes no attention of others")
    return Live(tiny, "--batching", "continuous", "--attn-implementation", "torch_varlen", "--max-batch-tokens", "32")


def test_against_plain(varlen: Live, servers: dict[str, Live]) -> None:
    """The same greedy text, with prompts that are read in pieces beside others."""
    expected = [servers["plain"].ask(prompt=prompt, max_tokens=16, ignore_eos=True).text for prompt in PROMPTS]
    with varlen as server:
        assert server.service.worker is not None
        assert server.service.worker.resolved()["attn-implementation"] == "paged|torch_varlen"
        with ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(server.ask, prompt=prompt, max_tokens=16, ignore_eos=True) for prompt in PROMPTS * 2]
        assert [future.result().text for future in asked] == expected * 2
