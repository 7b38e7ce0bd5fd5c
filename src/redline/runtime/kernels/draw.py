"""What stands around the model in a decode step, with plain torch: inputs from the tables, the token that was chosen.

Nothing here waits for the device, so it can be captured. It is what `kernels=torch` runs, and the oracle of the Triton
kernels. The rules of a draw are those of `runtime/sampler.py`.
"""

from __future__ import annotations

from typing import Protocol

import torch

from redline.runtime.batch import Batch
from redline.runtime.draws import Purpose, uniforms
from redline.runtime.state import Tables


class Draw(Protocol):
    """`rows` [B] int32 are rows of the tables; the last row of the tables is padding and is never written."""

    def prepare(self, tables: Tables, rows: torch.Tensor, batch: Batch) -> None:
        """Fills a decode batch of B sequences: ids, positions, slots, lengths, page tables."""
        ...

    def draw(
        self, logits: torch.Tensor, tables: Tables, rows: torch.Tensor, at: torch.Tensor, out: torch.Tensor
    ) -> None:
        """Chooses a token for each row from `logits` [B, V], taken as float32. `at` [B] int32: the token's position.

        `out` [B] int32 gets the tokens, -1 where a logit is not a number; the tables get token and position.
        """
        ...


class TorchDraw:
    def prepare(self, tables: Tables, rows: torch.Tensor, batch: Batch) -> None:
        index = rows.long()
        position = tables.position[index]
        batch.ids.copy_(tables.token[index])
        batch.positions.copy_(position)
        batch.seq_lens.copy_(position + 1)
        batch.page_tables.copy_(tables.pages[index])
        page = batch.page_tables.gather(1, (position // tables.page_size).long()[:, None]).squeeze(1)
        batch.slots.copy_(page.long() * tables.page_size + position % tables.page_size)

    def draw(
        self, logits: torch.Tensor, tables: Tables, rows: torch.Tensor, at: torch.Tensor, out: torch.Tensor
    ) -> None:
        index, logits = rows.long(), logits.float()
        heat = tables.temperature[index]
        useless = ~logits.amax(-1).isfinite() | logits.isnan().any(-1)
        greedy = logits.argmax(-1)
        seeds = (tables.seed_high[index].long() << 32) | (tables.seed_low[index].long() & 0xFFFFFFFF)
        number = uniforms(seeds, at.long(), Purpose.TOKEN)
        scaled = logits / torch.where(heat > 0, heat, 1.0)[:, None]
        token = torch.where(_narrowed(tables, index), _narrow(scaled, tables, index, number), _plain(scaled, number))
        token = torch.where(heat > 0, token, greedy).to(torch.int32)
        out.copy_(torch.where(useless, -1, token))
        # padding writes what is there already, so that nothing depends on a mask's size
        real = rows < tables.padding_row
        tables.token[index] = torch.where(real, torch.where(useless, 0, token), tables.token[index])
        tables.position[index] = torch.where(real, at, tables.position[index])


def _narrowed(tables: Tables, index: torch.Tensor) -> torch.Tensor:
    return (tables.top_k[index] > 0) | (tables.top_p[index] < 1) | (tables.min_p[index] > 0)


def _plain(x: torch.Tensor, number: torch.Tensor) -> torch.Tensor:
    sums = torch.softmax(x, -1).cumsum(-1, dtype=torch.float64)
    return torch.searchsorted(sums, (number * sums[:, -1])[:, None], right=True).squeeze(-1).clamp(max=x.shape[-1] - 1)


def _narrow(x: torch.Tensor, tables: Tables, index: torch.Tensor, number: torch.Tensor) -> torch.Tensor:
    values, ids = torch.sort(x, dim=-1, descending=True, stable=True)
    weights = (values - values[:, :1]).double().exp()
    top_k, top_p = tables.top_k[index], tables.top_p[index].double()
    limit = torch.where(top_k > 0, top_k, x.shape[-1])
    keep = torch.arange(x.shape[-1], device=x.device) < limit[:, None]
    keep &= weights >= tables.min_p[index].double()[:, None]
    inside = weights * keep
    sums = inside.cumsum(-1)
    keep &= (sums - inside < (top_p * sums[:, -1])[:, None]) | (top_p >= 1)[:, None]
    sums = (weights * keep).cumsum(-1)
    place = torch.searchsorted(sums, (number * sums[:, -1])[:, None], right=True).clamp(max=x.shape[-1] - 1)
    return ids.gather(-1, place).squeeze(-1)
