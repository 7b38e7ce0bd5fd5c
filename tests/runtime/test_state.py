from __future__ import annotations

import numpy as np
import torch

from redline.runtime.graph import buckets_upto
from redline.runtime.kernels.plan import MOST_SPLITS, splits_for
from redline.runtime.request import Request, Sampling
from redline.runtime.state import Mirror, Sender, Tables
from redline.runtime.step import Chunk

CPU = torch.device("cpu")


def request_of(row: int, pages: list[int], **sampling: object) -> Request:
    request = Request(str(row), [11, 12, 13], Sampling(**sampling), lambda _: None)  # type: ignore[arg-type]
    request.row, request.pages = row, pages
    return request


def changed(mirror: Mirror, sender: Sender, tables: Tables) -> int:
    changes = mirror.take()
    sender.apply(changes, tables)
    return 0 if changes is None else changes.shape[1]


def test_only_what_differs_is_sent() -> None:
    tables = Tables(6, 5, 16, CPU)
    mirror, sender = Mirror(tables), Sender(CPU)
    first = request_of(4, [7, 8], temperature=0.5, top_p=0.25, top_k=3, seed=(5 << 32) | 0xFFFFFFFE)
    second = request_of(1, [9])
    mirror.decode([Chunk(first, 2, 1, True), Chunk(second, 2, 1, True)], 4)
    assert changed(mirror, sender, tables) > 0
    assert tables.active.tolist() == [4, 1, 6, 6, 6, 6]
    assert (int(tables.token[4]), int(tables.position[4])) == (13, 2)
    assert tables.pages[4, :3].tolist() == [7, 8, 0]
    assert (float(tables.temperature[4]), float(tables.top_p[4]), int(tables.top_k[4])) == (0.5, 0.25, 3)
    assert (int(tables.seed_high[4]), int(tables.seed_low[4])) == (5, -2)

    # the device advances by itself: nothing to say, though the host knows no token
    mirror.decode([Chunk(first, 3, 1, True), Chunk(second, 3, 1, True)], 4)
    assert changed(mirror, sender, tables) == 0
    # one page more is one number; a row that leaves changes the places behind it
    first.pages.append(10)
    mirror.decode([Chunk(first, 4, 1, True), Chunk(second, 4, 1, True)], 4)
    assert changed(mirror, sender, tables) == 1
    assert tables.pages[4, :3].tolist() == [7, 8, 10]
    mirror.release(first)
    mirror.decode([Chunk(second, 5, 1, True)], 1)
    assert changed(mirror, sender, tables) == 1
    assert tables.active[:1].tolist() == [1]


def test_a_row_taken_over_is_sent_whole() -> None:
    tables = Tables(2, 5, 16, CPU)
    mirror, sender = Mirror(tables), Sender(CPU)
    mirror.decode([Chunk(request_of(0, [3, 4], temperature=0.7), 2, 1, True)], 1)
    changed(mirror, sender, tables)
    later = request_of(0, [5], temperature=0.0)
    mirror.decode([Chunk(later, 2, 1, True)], 1)
    changed(mirror, sender, tables)
    assert int(tables.pages[0, 0]) == 5
    assert float(tables.temperature[0]) == 0.0


def test_what_the_host_chose_replaces_what_the_device_did() -> None:
    tables = Tables(2, 5, 16, CPU)
    mirror, sender = Mirror(tables), Sender(CPU)
    request = request_of(0, [3])
    mirror.decode([Chunk(request, 2, 1, True)], 1)
    mirror.chose(request, 77, 3)
    mirror.decode([Chunk(request, 3, 1, True)], 1)
    changed(mirror, sender, tables)
    assert (int(tables.token[0]), int(tables.position[0])) == (77, 3)
    assert mirror.rows[0].chosen == {3: 77}


def test_numbers_larger_than_a_slot_are_sent_too() -> None:
    sender = Sender(CPU, slots=2, capacity=4)
    for size in (3, 9, 4, 40):
        assert sender.send(np.arange(size, dtype=np.int32)).tolist() == list(range(size))


def test_every_batch_size_has_a_bucket() -> None:
    for most in (1, 3, 16, 100, 256, 1000):
        buckets = buckets_upto(most)
        assert buckets == sorted(set(buckets))
        assert buckets[-1] == most
        for count in range(1, most + 1):
            bucket = next(size for size in buckets if size >= count)
            assert bucket <= max(2 * count - 1, count + 64)


def test_splits_fill_the_device_and_no_more() -> None:
    assert splits_for(2048, 132, 100_000) == 1
    assert splits_for(8, 132, 100) == 1
    assert splits_for(8, 132, 100_000) == MOST_SPLITS
    for programs in (1, 8, 64, 500):
        splits = splits_for(programs, 132, 100_000)
        assert splits & (splits - 1) == 0
        assert splits == 1 or programs * splits <= 4 * 132
