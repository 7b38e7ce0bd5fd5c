"""The runner for a GPU: CUDA graphs for decode steps, the model run eagerly for steps that have more than that.

Tokens of a step in flight are known to the device before they are known here, so a step can be launched before its
predecessor is collected. Rows whose choice needs the host (penalties, a grammar, log-probabilities) take part in a
graph too: their logits are read after it and what the device chose for them is overwritten.

On a CPU the same code runs without graphs, which is how its bookkeeping is tested; `CpuRunner` is the one to use there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from redline.runtime import late
from redline.runtime.choose_tokens import take
from redline.runtime.chunk_graphs import ChunkGraphs, ChunkStep
from redline.runtime.config import EngineConfig
from redline.runtime.gpu_setup import Setup
from redline.runtime.graph import Decoder, Graphs, buckets_upto
from redline.runtime.kernels.tiers import without
from redline.runtime.layout import Layout, batch_of, layout_of
from redline.runtime.rehearsal import rehearse
from redline.runtime.request import Request
from redline.runtime.sampler import Drawn, Row, prompt_logprobs, sample, verify_all
from redline.runtime.state import Mirror, Sender
from redline.runtime.step import Chunk, Launched, Limits, RunnerBroken, RunnerOutOfMemory, Sampled, Step

LOGIT_ROWS = 512
"""Prompt log-probabilities are computed for so many tokens at a time: logits are the largest thing in a step."""


@dataclass
class Flight:
    """A step on its way. `tokens`: where the device's choices arrive, in the order of `plain`; -1 is a fault."""

    step: Step
    plain: Sequence[Chunk]
    tokens: torch.Tensor
    arrived: torch.cuda.Event | None
    chosen: dict[Request, list[Drawn]] = field(default_factory=dict)
    """By the host."""
    prompts: dict[Request, Sampled] = field(default_factory=dict)


class GpuRunner:
    """See `Runner`. Raises at construction what a wrong configuration or too little memory is."""

    run_ahead = 1

    def __init__(self, config: EngineConfig, progress: Callable[[str], None] = lambda _: None) -> None:
        late.starting()
        setup = Setup(config, progress)
        self.setup, self.model, self.kernels = setup, setup.model, setup.kernels
        self.device, self.tables, self._limits = setup.device, setup.tables, setup.limits
        self.mirror, self.sender = Mirror(setup.tables), Sender(setup.device)
        self.decoder = Decoder(setup.model, setup.draw, setup.tables, setup.kv, setup.limits.max_model_len, setup.step)
        self.graphs = Graphs(self.decoder)
        self.chunks = ChunkGraphs(self.decoder, setup.limits.max_batched_tokens, setup.limits.max_seqs)
        self._buckets = buckets_upto(setup.limits.max_seqs)
        self._free = [self._landing() for _ in range(self.run_ahead + 1)]
        self._broken = ""
        self._resolved: dict[str, str] = {}
        self._left_out = ""
        if setup.graphs:
            self.capture()
        if self.device.type == "cuda":
            with setup.phase("rehearse"):
                self._left_out = rehearse(self)

    def capture(self) -> None:
        """Decode steps and steps with prompts, as graphs."""
        with self.setup.phase("capture"):
            self.graphs.capture(self._buckets, self.setup.progress)
            if not without("chunks"):
                self.chunks.capture(self.setup.progress)

    @property
    def limits(self) -> Limits:
        return self._limits

    def resolved(self) -> dict[str, str]:
        if self._resolved:
            return self._resolved
        none = self.setup.why_no_graphs
        graphs = {"cuda_graphs": none or self.graphs.note, "cuda_graphs_of_prompts": none or self.chunks.note}
        return self.setup.notes() | graphs | ({"rehearsal": self._left_out} if self._left_out else {})

    def close(self) -> None:
        """Gives the memory back: graphs, KV, and the weights where nobody else holds them."""
        if self._resolved:
            return
        self._resolved = self.resolved()
        self._broken = self._broken or "the runner was closed"
        self.graphs.clear()
        self.chunks.clear()
        self.setup.kv.clear()
        for name in ("setup", "model", "kernels", "tables", "decoder", "graphs", "chunks", "mirror", "sender"):
            delattr(self, name)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def release(self, request: Request) -> None:
        if not self._resolved:
            self.mirror.release(request)

    def launch(self, step: Step) -> Flight:
        with self._faults(), torch.inference_mode():
            if all(chunk.length == 1 and chunk.samples for chunk in step.chunks):
                return self._decode(step)
            return self._mixed(step)

    def collect(self, launched: Launched) -> list[Sampled]:
        assert isinstance(launched, Flight)
        with self._faults():
            if launched.arrived is not None:
                launched.arrived.synchronize()
        tokens = launched.tokens[: len(launched.plain)].tolist()
        self._free.append(launched.tokens)
        by_device = {chunk.request: token for chunk, token in zip(launched.plain, tokens, strict=True)}
        sampled = []
        for chunk in launched.step.chunks:
            request = chunk.request
            told = launched.prompts.get(request) or Sampled(request, [])
            if request in launched.chosen:
                take(told, launched.chosen[request])
            elif chunk.samples:
                take(told, [Drawn(by_device[request], None, "nan" if by_device[request] < 0 else "")])
            elif request not in launched.prompts:
                continue
            sampled.append(told)
        return sampled

    def _decode(self, step: Step) -> Flight:
        """A step of single tokens: a graph, where one fits."""
        chunks, count = step.chunks, len(step.chunks)
        captured = self.graphs.fits(count)
        bucket = captured or next(size for size in self._buckets if size >= count)
        self.mirror.decode(chunks, bucket)
        self.sender.apply(self.mirror.take(), self.tables)
        if captured:
            self.graphs.replay(bucket)
        else:
            self.decoder.run(bucket)
        flight = self._flight(step, chunks, self.decoder.tokens)
        self._choose(flight, self.decoder.logits(bucket))
        return flight

    def _mixed(self, step: Step) -> Flight:
        """Prompts, drafts, and the decodes beside them."""
        layout = layout_of(step.chunks)
        for chunk in step.chunks:
            self.mirror.occupy(chunk.request)
        self.sender.apply(self.mirror.take(), self.tables)
        captured = self.chunks.fits(step.chunks, layout)
        if captured is not None:
            return self._prepared(step, layout, captured)
        batch, rows, at = batch_of(step.chunks, layout, self.tables, self.sender)
        hidden = layout.in_order(self.model.forward(batch, self.setup.kv))
        count = len(layout.plain)
        tokens = torch.empty(count, dtype=torch.int32, device=self.device)
        chosen = count + layout.drafted
        logits = self.kernels.linear(hidden[:chosen], self.model.head) if chosen else hidden
        if count:
            self.setup.draw.draw(logits[:count], self.tables, rows, at, tokens)
        flight = self._chosen(step, layout, tokens, logits)
        self._tell_prompts(flight, layout, hidden[chosen:])
        return flight

    def _prepared(self, step: Step, layout: Layout, captured: ChunkStep) -> Flight:
        self.chunks.run(captured, step.chunks, layout, self.sender)
        return self._chosen(step, layout, captured.tokens, captured.logits)

    def _chosen(self, step: Step, layout: Layout, tokens: torch.Tensor, logits: torch.Tensor) -> Flight:
        """The device has chosen for `layout.plain`; the host does for whom it must, and looks at guesses."""
        count = len(layout.plain)
        for chunk in layout.plain:
            self.mirror.rows[chunk.request.row].position = chunk.start + chunk.length
        flight = self._flight(step, layout.plain, tokens)
        self._choose(flight, logits)
        self._verify(flight, layout, logits[count : count + layout.drafted])
        return flight

    def _flight(self, step: Step, plain: Sequence[Chunk], tokens: torch.Tensor) -> Flight:
        """Sends the device's choices on their way to the host."""
        here = self._free.pop() if self._free else self._landing()
        here[: len(plain)].copy_(tokens[: len(plain)], non_blocking=True)
        arrived = None
        if self.device.type == "cuda":
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrived.record()
        return Flight(step, plain, here, arrived)

    def _landing(self) -> torch.Tensor:
        """Where the device's choices arrive."""
        return torch.empty(self._limits.max_seqs, dtype=torch.int32, pin_memory=self.device.type == "cuda")

    def _choose(self, flight: Flight, logits: torch.Tensor) -> None:
        """Rows that the host must choose for; waits for the device when there are any."""
        at = [i for i, chunk in enumerate(flight.plain) if needs_host(chunk)]
        if not at:
            return
        rows = [self._row(flight.plain[i]) for i in at]
        for i, drawn in zip(at, sample(logits[torch.tensor(at, device=logits.device)].float(), rows), strict=True):
            request = flight.plain[i].request
            flight.chosen[request] = [drawn]
            self.mirror.chose(request, max(drawn.token, 0), flight.plain[i].start + flight.plain[i].length)

    def _verify(self, flight: Flight, layout: Layout, logits: torch.Tensor) -> None:
        if layout.drafts:
            rows = [self._row(chunk) for chunk in layout.drafts]
            probs = [chunk.request.draft_probs for chunk in layout.drafts]
            drawn = verify_all(logits.float(), rows, [chunk.draft for chunk in layout.drafts], probs)
            for chunk, tokens in zip(layout.drafts, drawn, strict=True):
                flight.chosen[chunk.request] = tokens
                # where the row stands is for the host to say: how many guesses stood is known to it alone
                self.mirror.rows[chunk.request.row].position = -1

    def _tell_prompts(self, flight: Flight, layout: Layout, hidden: torch.Tensor) -> None:
        first = 0
        for chunk, count in layout.prompts:
            told = Sampled(chunk.request, [])
            for low in range(0, count, LOGIT_ROWS):
                high = min(low + LOGIT_ROWS, count)
                targets = chunk.request.tokens[chunk.start + low + 1 : chunk.start + high + 1]
                logits = self.model.logits(hidden[first + low : first + high])
                told.prompt_logprobs += prompt_logprobs(logits, targets, chunk.request.sampling.prompt_logprobs or 0)
            flight.prompts[chunk.request] = told
            first += count

    def _row(self, chunk: Chunk) -> Row:
        """The sampler's view of a request, kept while it has its row. Tokens in flight that the host chose count."""
        request = chunk.request
        known = self.mirror.rows[request.row]
        if known.sampler is None:
            known.sampler = Row(request.sampling, request.tokens, request.prompt_len, request.matcher)
        end = chunk.start + chunk.length - len(chunk.draft)
        known.sampler.draft = tuple(known.chosen[at] for at in range(len(request.tokens), end))
        return known.sampler

    @contextmanager
    def _faults(self) -> Iterator[None]:
        if self._broken:
            raise RunnerBroken(self._broken)
        try:
            yield
        except torch.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            raise RunnerOutOfMemory(str(error).splitlines()[0]) from error
        except RuntimeError as error:
            if not is_device_fault(error):
                raise
            self._broken = str(error).splitlines()[0]
            raise RunnerBroken(self._broken) from error


def needs_host(chunk: Chunk) -> bool:
    """Whether the device's own choice is not the answer."""
    request, s = chunk.request, chunk.request.sampling
    changed = s.repetition_penalty != 1 or s.presence_penalty != 0 or s.frequency_penalty != 0 or bool(s.logit_bias)
    held = bool(s.hold_ids) and chunk.start + chunk.length - request.prompt_len < s.min_tokens
    return request.matcher is not None or changed or held or s.logprobs is not None


def is_device_fault(error: RuntimeError) -> bool:
    kinds = tuple(kind for kind in (getattr(torch, "AcceleratorError", None),) if kind is not None)
    return isinstance(error, kinds) or any(
        word in str(error) for word in ("CUDA error", "CUBLAS_STATUS", "CUDNN_STATUS")
    )
