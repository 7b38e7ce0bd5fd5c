from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from redline.node.memory import memory_facts
from redline.node.tree import is_skipped
from tests.node.boxes import plant, two_sockets


def test_sizes_and_how_the_kernel_hands_memory_out(tmp_path: Path) -> None:
    memory = memory_facts(two_sockets(tmp_path))
    assert (memory["total_bytes"], memory["usable_bytes"]) == (1_000_000 * 1024, 800_000 * 1024)
    assert memory["limit_bytes"] is None
    assert memory["swap_used_bytes"] == 1500 * 1024
    assert memory["transparent_hugepages"] == {"enabled": "madvise", "defrag": "madvise"}
    assert memory["hugepages"] == {"2048kB": {"nr": 16, "free": 4}}
    assert memory["swappiness"] == 60


def test_a_limit_leaves_less_than_is_free(tmp_path: Path) -> None:
    root = two_sockets(tmp_path)
    plant(
        root,
        {
            "sys/fs/cgroup/user.slice/memory.max": str(300_000_000),
            "sys/fs/cgroup/user.slice/memory.current": str(200_000_000),
            "sys/fs/cgroup/user.slice/memory.stat": "inactive_file 50000000\n",
        },
    )
    memory = memory_facts(root)
    assert memory["limit_bytes"] == 300_000_000
    assert memory["usable_bytes"] == 150_000_000


def test_a_limit_above_the_box_is_none(tmp_path: Path) -> None:
    root = plant(two_sockets(tmp_path), {"sys/fs/cgroup/user.slice/memory.max": str(10**12)})
    assert memory_facts(root)["limit_bytes"] is None


def test_a_kernel_without_huge_pages(tmp_path: Path) -> None:
    assert is_skipped(memory_facts(tmp_path)["transparent_hugepages"])


def test_against_psutil() -> None:
    memory, theirs = memory_facts(), psutil.virtual_memory()
    assert memory["total_bytes"] == theirs.total
    assert memory["available_bytes"] == pytest.approx(theirs.available, rel=0.2)
