"""The draft model's guesses are what that model would say after the request's own tokens, whatever happened before."""

from __future__ import annotations

import importlib
import importlib.util
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from redline.runtime.batch import Batch
from redline.runtime.draft import DraftModel, DraftProposer
from redline.runtime.kernels import KV
from redline.runtime.request import Request, Sampling
from redline.runtime.sampler import Row, distribution, sample, verify, verify_all
from tests.runtime.chi2 import assert_drawn_from
from tests.runtime.test_sampler import FakeMatcher

V, PAGE, PAGES = 12, 4, 64


def says(tokens: Sequence[int], sharpness: float = 2.0) -> torch.Tensor:
    """Logits [1, V] that depend on every token before."""
    seed = hash(tuple(tokens)) % (1 << 40)
    return torch.randn(1, V, generator=torch.Generator().manual_seed(seed)) * sharpness


class PagedModel:
    """Keeps nothing but token ids in its pages, and reads the context back from there."""

    def __init__(self) -> None:
        self.computed = 0
        self.calls = 0
        self._contexts: list[tuple[int, ...]] = []

    def allocate_kv(
        self, pages: int, page_size: int, device: torch.device | str, dtype: torch.dtype | None = None
    ) -> list[KV]:
        store = torch.full((pages, page_size, 1, 1), -1, dtype=torch.int64)
        return [(store, store)]

    def forward(self, batch: Batch, kv: Sequence[KV]) -> torch.Tensor:
        store = kv[0][0].view(-1)
        wanted = dict(zip(batch.slots.tolist(), batch.ids.tolist(), strict=True))
        assert [wanted[slot] for slot in batch.slots.tolist()] == batch.ids.tolist(), "two tokens in one place"
        assert (batch.slots >= PAGE).all(), "page 0 is nobody's"
        store[batch.slots] = batch.ids
        self.computed += len(batch.ids)
        self.calls += 1
        starts, table = batch.starts.tolist(), batch.page_tables.tolist()
        self._contexts = []
        for at in batch.logits_at.tolist():
            row = next(i for i in range(len(starts) - 1) if starts[i] <= at < starts[i + 1])
            place = int(batch.positions[at])
            assert batch.seq_lens[row] == place + 1
            slots = [table[row][i // PAGE] * PAGE + i % PAGE for i in range(place + 1)]
            self._contexts.append(tuple(store[slots].tolist()))
        return torch.zeros(len(self._contexts), 1)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return torch.cat([says(context) for context in self._contexts])


def proposer(model: PagedModel | None = None, **more: object) -> DraftProposer:
    return DraftProposer(model or PagedModel(), pages=PAGES, page_size=PAGE, **more)  # type: ignore[arg-type]


def request(name: str, tokens: list[int], pages: list[int], sampling: Sampling | None = None) -> Request:
    one = Request(name, tokens, sampling or Sampling(max_tokens=500, temperature=0), lambda _: None)
    one.pages = pages
    return one


def rollout(tokens: list[int], count: int, s: Sampling | None = None, prompt_len: int = 0) -> list[int]:
    tokens, start = list(tokens), len(tokens)
    for _ in range(count):
        logits = says(tokens)
        tokens.append(sample(logits, [Row(s, tokens, prompt_len)])[0].token if s else int(logits.argmax()))
    return tokens[start:]


def test_guesses_are_what_the_model_says_next() -> None:
    one, other = request("a", [1, 2, 3, 4, 5], [1, 2, 3]), request("b", [7], [4, 5, 6])
    proposer().propose([one, other], 4)
    assert one.draft == rollout(one.tokens, 4)
    assert other.draft == rollout(other.tokens, 4)


def test_a_long_life_of_growing_preemption_and_sharing() -> None:
    rnd = random.Random(5)
    model = PagedModel()
    guessing = proposer(model, budget=16)
    free = list(range(1, PAGES))
    living: list[Request] = []
    guessed = 0
    for turn in range(250):
        if len(living) < 4:
            tokens = [rnd.randrange(V) for _ in range(rnd.randint(1, 30))]
            pages: list[int] = []
            if living and rnd.random() < 0.5:
                # A prefix of another one, with its full pages.
                donor = rnd.choice(living)
                shared = rnd.randint(0, (len(donor.tokens) - 1) // PAGE)
                tokens = donor.tokens[: shared * PAGE] + tokens
                pages = donor.pages[:shared]
            living.append(request(f"r{turn}", tokens, pages))
        for one in living:
            while len(one.pages) * PAGE < len(one.tokens) + 3:
                one.pages.append(free.pop(rnd.randrange(len(free))))
        asked = [one for one in living if rnd.random() < 0.8]
        guessing.propose(asked, 3)
        for one in asked:
            guessed += len(one.draft)
            assert one.draft in ([], rollout(one.tokens, 3)), turn
            stands = rnd.randint(0, len(one.draft))
            one.tokens += [*one.draft[:stands], rnd.randrange(V)]
        for one in list(living):
            fate = rnd.random()
            if len(one.tokens) > 60 or fate < 0.05:
                living.remove(one)
            if len(one.tokens) > 60 or fate < 0.1:
                guessing.release(one)
                used = {page for other in living if other is not one for page in other.pages}
                free += [page for page in set(one.pages) - used if page not in free]
                one.pages = []
    assert guessed > 300
    assert living[0].draft_probs is None


def test_a_known_prefix_is_not_computed_again() -> None:
    model = PagedModel()
    guessing = proposer(model)
    prompt = [i % V for i in range(21)]
    first = request("a", list(prompt), [1, 2, 3, 4, 5, 6])
    guessing.propose([first], 1)
    assert model.computed == 21
    guessing.release(first)
    second = request("b", [*prompt[:16], 9, 9], [1, 2, 3, 4, 7, 8])
    guessing.propose([second], 1)
    assert second.draft == rollout(second.tokens, 1)
    assert model.computed == 21 + 2
    # The same pages with other tokens are another matter.
    third = request("c", [5] * 18, [1, 2, 3, 4, 7, 8])
    guessing.propose([third], 1)
    assert third.draft == rollout(third.tokens, 1)
    assert model.computed == 21 + 2 + 18


def test_accepted_guesses_are_not_computed_again() -> None:
    model = PagedModel()
    guessing = proposer(model)
    one = request("a", [1, 2, 3], list(range(1, 9)))
    guessing.propose([one], 4)
    assert (model.computed, model.calls) == (3 + 3, 4)
    one.tokens += [*one.draft[:2], 11]
    guessing.propose([one], 1)
    assert model.computed == 6 + 1
    assert one.draft == rollout(one.tokens, 1)


def test_a_request_far_behind_catches_up_over_several_calls_and_holds_nobody_up() -> None:
    guessing = proposer(budget=8)
    long, short = request("a", [3] * 20, list(range(1, 8))), request("b", [1, 2], [9, 10])
    drafts = []
    for _ in range(4):
        guessing.propose([long, short], 2)
        assert short.draft == rollout(short.tokens, 2)
        drafts.append(list(long.draft))
    assert drafts == [[], [], rollout(long.tokens, 2), rollout(long.tokens, 2)]


def test_guesses_keep_to_pages_room_and_ends() -> None:
    guessing = proposer()
    tight = request("a", [1, 2, 3], [1])
    guessing.propose([tight], 4)
    assert tight.draft == rollout(tight.tokens, 2)
    brief = request("b", [1, 2, 3], [2, 3, 4], Sampling(max_tokens=2, temperature=0))
    guessing.propose([brief], 4)
    assert len(brief.draft) == 1
    says_next = rollout([1, 2, 3], 4)
    ending = request("c", [1, 2, 3], [5, 6, 7], Sampling(temperature=0, stop_ids=frozenset({says_next[1]})))
    guessing.propose([ending], 4)
    assert ending.draft == says_next[: says_next.index(says_next[1]) + 1]


def test_guesses_follow_penalties_and_grammar() -> None:
    s = Sampling(temperature=0, max_tokens=50, repetition_penalty=3.0, presence_penalty=2.0)
    one = request("a", [1, 2, 3], [1, 2, 3], s)
    guessing = proposer()
    guessing.propose([one], 4)
    assert one.draft == rollout(one.tokens, 4, s, 3)
    bound = request("b", [1, 2, 3], [4, 5, 6], Sampling(temperature=0, max_tokens=50))
    bound.matcher = matcher = FakeMatcher({4, 7})
    guessing.propose([bound], 4)
    assert set(bound.draft) <= {4, 7}
    assert len(bound.draft) == 4
    assert matcher.taken == []


def test_drawn_guesses_have_their_distribution_and_leave_the_targets() -> None:
    tokens, draws = [1, 2, 3], 3_000
    s = Sampling(temperature=0.8, top_k=6, max_tokens=50)
    guessing = DraftProposer(PagedModel(), pages=draws + 1, page_size=PAGE, budget=10**6)
    asked = [request(str(i), list(tokens), [i + 1], replace(s, seed=i)) for i in range(draws)]
    guessing.propose(asked, 1)
    guesses = [one.draft[0] for one in asked]
    along = {guess: torch.cat([says([0, *tokens]), says([0, *tokens, guess])]) for guess in range(V)}
    logits = torch.cat([along[guess] for guess in guesses])
    rows = [Row(one.sampling, tokens, 3) for one in asked]
    drawn = verify_all(logits, rows, [one.draft for one in asked], [one.draft_probs for one in asked])
    chosen = [found[0].token for found in drawn]
    assert_drawn_from(guesses, distribution(says(tokens), [Row(s, tokens, 3)])[0].numpy())
    assert_drawn_from(chosen, distribution(says([0, *tokens]), [Row(s, tokens, 3)])[0].numpy())


@pytest.mark.skipif(
    importlib.util.find_spec("redline.runtime.model") is None, reason="needs redline.runtime.model, which is not here"
)
def test_the_bundled_draft_model_guesses_for_the_bundled_model() -> None:
    names = ("architecture", "kernels.torch", "weights")
    architecture, kernels, weights = (importlib.import_module(f"redline.runtime.{name}") for name in names)
    models = Path(architecture.__file__ or "").parents[1] / "recipes/models"

    def load(name: str) -> DraftModel:
        loaded: DraftModel = weights.load_model(
            architecture.read_config(models / name),
            models / name,
            dtype=torch.float32,
            device="cpu",
            quantization="none",
            seed=0,
            kernels=kernels.TorchKernels(),
        )
        return loaded

    target, small = load("redline-tiny"), load("redline-tiny-draft")
    itself = DraftProposer(target, pages=PAGES, page_size=16)
    guessing = DraftProposer(small, pages=PAGES, page_size=16)
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_file(str(models / "redline-tiny/tokenizer.json"))
    tokens = tokenizer.encode("The time to the first token is").ids
    s = Sampling(temperature=0, max_tokens=200)
    plain = request("plain", list(tokens), list(range(1, 9)), s)
    itself.propose([plain], 24)
    wanted = plain.draft
    one, stood, asked = request("one", list(tokens), list(range(1, 9)), s), 0, 0
    while len(one.tokens) < len(tokens) + 20:
        guessing.propose([one], 3)
        asked += len(one.draft)
        # The target's word on each place, from a fresh storage.
        logits = _logits_along(target, one.tokens, one.draft)
        drawn = [found.token for found in verify(logits, Row(s, one.tokens, one.prompt_len), one.draft)]
        stood += len(drawn) - 1
        one.tokens += drawn
    answer = one.tokens[len(tokens) :]
    assert answer[:20] == wanted[:20]
    assert stood > asked / 10


def _logits_along(model: DraftModel, tokens: list[int], draft: list[int]) -> torch.Tensor:
    fresh = DraftProposer(model, pages=16, page_size=16)
    found = []
    for count in range(len(draft) + 1):
        one = request("x", tokens + draft[:count], list(range(1, 16)), Sampling(temperature=0, max_tokens=200))
        fresh._settle(one)
        with torch.inference_mode():
            found.append(fresh._catch_up([one])[1])
        fresh.release(one)
    return torch.cat(found)
