"""The prompts of a workload: made or read, counted, verified, and the same again for the same seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from redline.engines.endpoint import Endpoint
from redline.errors import EnvironmentFault, Unsupported, UsageError
from redline.load.canary import Canaries, canaries_for
from redline.load.counting import CountTexts
from redline.load.datasets import Item
from redline.load.images import Pictures
from redline.load.items import items_of
from redline.load.mixed import Deal, Part, mixed_prompts, priority_note
from redline.load.overhead import corrected
from redline.load.prompt import Prompt
from redline.load.record import TokenSource
from redline.load.synthetic import Composer, Draft
from redline.load.tokens import Tokenizer, UsageTokenizer, best_tokenizer
from redline.load.trace import Recorded, Trace, fitted, read_trace
from redline.load.vocabulary import Vocabulary, learn
from redline.spec.workload import LengthSpec, WorkloadSpec

_SALT_TRIES = 3


@dataclass
class PromptSource:
    """Hands out prompts. `key` (the load point's seed) and number decide a prompt: every engine gets the same ones.

    `off` counts prompts known to miss their length, out of `made`; `verified` says whether each was counted by
    `tokenizer` before it was handed out.
    """

    endpoint: Endpoint
    workload: WorkloadSpec
    tokenizer: Tokenizer | None
    composer: Composer
    items: list[Item] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    canaries: Canaries | None = None
    warmed: bool = False
    """A load point has warmed this server up already."""
    busy_until_ns: int = 0
    """When the last load point on this server was over; 0 before the first."""
    made: int = 0
    off: int = 0
    trace: Trace | None = None
    pictures: Pictures | None = None
    parts: tuple[Part, ...] = ()
    """The classes of a mixed workload."""
    deal: Deal | None = None

    @property
    def verified(self) -> bool:
        if self.parts:
            return all(part.source.verified for part in self.parts)
        return self.tokenizer is not None and self.tokenizer.source is not TokenSource.USAGE

    @property
    def loads_server(self) -> bool:
        """Verifying asks the server that is being measured, so it must not happen during a measurement."""
        if self.parts:
            return any(part.source.loads_server for part in self.parts)
        return self.tokenizer is not None and self.tokenizer.source is TokenSource.SERVER_TOKENIZER

    def verifies(self, *, under_load: bool) -> bool:
        """May lengths be verified now?"""
        return not (under_load and self.loads_server)

    @property
    def overhead(self) -> dict[str, int]:
        """By class: tokens of template and special tokens in every prompt. Nothing where that was not learnt."""
        if self.parts:
            return {part.name: found for part in self.parts for found in part.source.overhead.values()}
        vocabulary = self.composer.vocabulary
        return {"": vocabulary.overhead} if vocabulary.questions else {}

    @property
    def token_source(self) -> TokenSource:
        """Who counts the tokens of answers that come without usage."""
        return self.tokenizer.source if self.tokenizer is not None and self.verified else TokenSource.CHUNKS

    @property
    def count_texts(self) -> CountTexts | None:
        """Counts answer texts without special tokens; None when nobody can."""
        tokenizer = self.tokenizer
        if tokenizer is None or not self.verified:
            return None
        return lambda texts: tokenizer.counts(texts, special=False)

    @property
    def cache_declared(self) -> dict[str, Any]:
        """What a prefix cache may hold of these prompts, for the outcome of a load point."""
        shared = self.workload.shared_prefix_tokens
        return {
            "declared": self.workload.cache,
            "warm_share": self.workload.warm_share,
            "common_tokens": shared + self.composer.vocabulary.overhead,
        }

    def prompts(self, key: int, start: int, count: int, *, verify: bool = True) -> list[Prompt]:
        """Prompts `start` to `start + count` of this key. Without `verify` nobody is asked for their length."""
        if self.deal is not None:
            found = mixed_prompts(self.parts, self.deal, key, start, count, verify=verify)
        else:
            found = self._own(key, start, count, verify)
        self.made += len(found)
        self.off += sum(not prompt.exact for prompt in found)
        return found

    def _own(self, key: int, start: int, count: int, verify: bool) -> list[Prompt]:
        """Prompts of a workload without classes."""
        batch = self.workload.embedding_batch
        make = self._synthetic if self.workload.kind in ("synthetic", "trace") else self._from_items
        found = make(key, start * batch, count * batch, verify)
        if self.workload.api == "embeddings":
            found = [_together(found[at : at + batch]) for at in range(0, len(found), batch)]
        if self.pictures is not None:
            found = [self.pictures.put(prompt, key, start + i) for i, prompt in enumerate(found)]
        return found

    # -- synthetic

    def _synthetic(self, key: int, start: int, count: int, verify: bool) -> list[Prompt]:
        lengths = [self._lengths(key, number) for number in range(start, start + count)]
        drafts = [self.composer.draft(key, start + i, tokens) for i, (tokens, _) in enumerate(lengths)]
        return self.of_drafts(drafts, [output for _, output in lengths], verify)

    def of_drafts(self, drafts: list[Draft], outputs: Sequence[int], verify: bool) -> list[Prompt]:
        """Prompts of drafts, each with its answer length; `verify` brings them to their lengths first."""
        spec = self.workload
        if verify and self.verified and self.tokenizer is not None:
            off = self.composer.settle(drafts, self.tokenizer, chat=spec.chat)
            if off > 0.02 * len(drafts) and spec.api == "completions" and self.endpoint.dialect.token_id_prompts:
                return [self._as_ids(draft, output) for draft, output in zip(drafts, outputs, strict=True)]
        return [self._prompt_of(draft, output) for draft, output in zip(drafts, outputs, strict=True)]

    def _prompt_of(self, draft: Draft, output: int) -> Prompt:
        known = draft.tokens or draft.asked
        made = self._prompt(draft.text, draft.asked, output, exact=known == draft.asked)
        return replace(made, prefix=draft.prefix) if draft.prefix >= 0 else made

    def _as_ids(self, draft: Draft, output: int) -> Prompt:
        """Text could not be had in this length, token ids can."""
        assert self.tokenizer is not None
        ids = self.tokenizer.ids(draft.text) or []
        if draft.tokens == draft.asked or not ids:
            return self._prompt_of(draft, output)
        ids = (ids * (draft.asked // len(ids) + 1))[: draft.asked]
        return Prompt(token_ids=tuple(ids), tokens=draft.asked, output_tokens=output, prefix=draft.prefix)

    def _prompt(self, text: str, tokens: int, output: int, *, exact: bool = True) -> Prompt:
        if self.workload.chat:
            messages = ({"role": "user", "content": text},)
            return Prompt(messages=messages, tokens=tokens, output_tokens=output, exact=exact)
        return Prompt(text=text, tokens=tokens, output_tokens=output, exact=exact)

    def _lengths(self, key: int, number: int) -> tuple[int, int]:
        spec = self.workload
        rng = random.Random(f"{key}/{number}/lengths")
        prompt, output = draw(spec.prompt_tokens, rng), draw(spec.output_tokens, rng)
        limit = self.endpoint.max_model_len
        if self.trace is not None:
            row = self.trace.rows[number % len(self.trace.rows)]
            return row.prompt_tokens, row.output_tokens
        if spec.api == "embeddings":
            return min(prompt, limit) if limit else prompt, 0
        if limit:
            output = min(output, max(1, limit - 1))
            prompt = min(prompt, limit - output)
        return prompt, output

    # -- from a file

    def _from_items(self, key: int, start: int, count: int, verify: bool) -> list[Prompt]:
        numbers = range(start, start + count)
        items = [self.items[number % len(self.items)] for number in numbers]
        chats = [self._salted(item, key, number) for item, number in zip(items, numbers, strict=True)]
        tokens = self.count_items(chats) if verify else [0] * count
        found = []
        for item, chat, size, number in zip(items, chats, tokens, numbers, strict=True):
            output = item.output_tokens or draw(self.workload.output_tokens, random.Random(f"{key}/{number}/lengths"))
            if self.workload.chat:
                found.append(Prompt(messages=chat, tokens=size, output_tokens=output))
            else:
                found.append(Prompt(text=str(chat[0]["content"]), tokens=size, output_tokens=output))
        return found

    def _salted(self, item: Item, key: int, number: int) -> tuple[dict[str, Any], ...]:
        first, *rest = item.messages
        if not self.workload.salted or not isinstance(first["content"], str):
            return item.messages
        salt = " ".join(self.composer.salt(key, number))
        return ({**first, "content": f"{salt} {first['content']}"}, *rest)

    def count_items(self, chats: Sequence[tuple[dict[str, Any], ...]]) -> list[int]:
        if self.tokenizer is None or not self.verified:
            return [0] * len(chats)
        if self.workload.chat:
            return self.tokenizer.chat_counts(chats)
        return self.tokenizer.counts([str(chat[0]["content"]) for chat in chats])


def _together(prompts: Sequence[Prompt]) -> Prompt:
    """One embeddings request of several inputs."""
    known = all(prompt.tokens for prompt in prompts)
    tokens = sum(prompt.tokens for prompt in prompts) if known else 0
    exact = all(prompt.exact for prompt in prompts)
    return Prompt(inputs=tuple(prompt.text for prompt in prompts), tokens=tokens, exact=exact)


def draw(spec: LengthSpec, rng: random.Random) -> int:
    """One length: the mean, or a normal draw clipped to [min, max]."""
    if spec.stddev == 0:
        return spec.mean
    return max(spec.min, min(spec.max, round(rng.gauss(spec.mean, spec.stddev))))


def prompt_source(
    endpoint: Endpoint,
    workload: WorkloadSpec,
    *,
    seed: int,
    tokenizer_path: Path | None,
    needed: int,
    api_key: str | None = None,
    salt_key: str = "",
    recorded: Recorded | None = None,
) -> PromptSource:
    """Everything that prompts need, learnt once per server. `needed` prompts are roughly what one load point takes.

    `salt_key` changes the unique starts and nothing else: give one per run where the server outlives the run and may
    still hold the prompts of the run before in its cache. `recorded` reads redline's own runs as traces.
    SpecError for a file that cannot be used, UsageError for lengths that the model has no room for.
    """
    if workload.classes:
        return _mixed(endpoint, workload, seed, tokenizer_path, needed, api_key, salt_key)
    notes: list[str] = []
    tokenizer, vocabulary = _learn(endpoint, workload, tokenizer_path, api_key, notes)
    composer = Composer(
        vocabulary,
        seed=seed,
        salt=workload.salted,
        prefix_tokens=workload.shared_prefix_tokens,
        prefixes=workload.prefixes,
        prefix_skew=workload.prefix_skew,
        salt_key=salt_key,
        warm_share=workload.warm_share,
    )
    source = PromptSource(endpoint, workload, tokenizer, composer, notes=notes, canaries=canaries_for(workload))
    if workload.images_per_request:
        source.pictures = Pictures(workload, seed)
        source.pictures.learn(UsageTokenizer(endpoint, api_key, api=workload.api), notes)
    if workload.kind == "synthetic":
        _check_lengths(endpoint, workload, vocabulary, notes)
    elif workload.kind == "trace":
        source.trace = _trace(source, vocabulary, recorded)
    else:
        source.items = items_of(source, seed, needed)
    return source


def _mixed(
    endpoint: Endpoint,
    workload: WorkloadSpec,
    seed: int,
    tokenizer_path: Path | None,
    needed: int,
    api_key: str | None,
    salt_key: str,
) -> PromptSource:
    """A source of several, each with a seed of its own, so that no class answers another's prompts from the cache."""
    parts = []
    for one, work in zip(workload.classes, workload.parts.values(), strict=True):
        source = prompt_source(
            endpoint,
            work,
            seed=random.Random(f"{seed}/{one.name}/class").getrandbits(48),
            tokenizer_path=tokenizer_path,
            needed=needed,
            api_key=api_key,
            salt_key=salt_key,
        )
        parts.append(Part(one.name, one.weight, one.priority, source))
    notes = list(dict.fromkeys(f"{part.name}: {note}" for part in parts for note in part.source.notes))
    if any(part.priority for part in parts) and (note := priority_note(endpoint)):
        notes.append(note)
    first = parts[0].source
    deal = Deal([part.weight for part in parts])
    return PromptSource(
        endpoint, workload, first.tokenizer, first.composer, notes=notes, parts=tuple(parts), deal=deal,
        canaries=canaries_for(workload),
    )  # fmt: skip


def _learn(
    endpoint: Endpoint, workload: WorkloadSpec, tokenizer_path: Path | None, api_key: str | None, notes: list[str]
) -> tuple[Tokenizer | None, Vocabulary]:
    """The best tokenizer that can answer, with what it taught; the last resort takes a word for a token."""
    chat = workload.chat
    usage = UsageTokenizer(endpoint, api_key, api=workload.api)
    tokenizer, remarks = best_tokenizer(endpoint, tokenizer_path, api_key)
    notes += remarks
    if tokenizer is not None:
        try:
            if workload.api == "responses":
                tokenizer = corrected(tokenizer, usage, notes)
            return tokenizer, learn(tokenizer, chat=chat)
        except (EnvironmentFault, Unsupported) as problem:
            notes.append(problem.what)
    if workload.kind in ("synthetic", "trace"):
        try:
            vocabulary = learn(usage, chat=chat)
        except (EnvironmentFault, Unsupported) as problem:
            notes.append(f"prompt lengths are a guess, one token per word: {problem.what}")
            return None, Vocabulary(tokens_per_word=1.0)
        notes.append("no tokenizer: prompt lengths were learnt from the usage of a few answers")
        return usage, vocabulary
    return None, Vocabulary()


def _trace(source: PromptSource, vocabulary: Vocabulary, recorded: Recorded | None) -> Trace:
    """The workload's trace with lengths that the model takes."""
    workload, limit = source.workload, source.endpoint.max_model_len or 0
    trace = read_trace(workload.path, workload.trace_format, recorded)
    rows, cut = fitted(trace.rows, limit=limit, least=vocabulary.overhead + 1)
    source.notes += trace.notes
    if cut:
        room = f"{limit} tokens" if limit else "the shortest prompt that can be made"
        what = f"{cut} of {len(rows)} requests of the trace do not fit into {room}"
        source.notes.append(f"{what}, and are changed to fit")
    return replace(trace, rows=tuple(rows))


def _check_lengths(endpoint: Endpoint, workload: WorkloadSpec, vocabulary: Vocabulary, notes: list[str]) -> None:
    prompt, output, limit = workload.prompt_tokens, workload.output_tokens, endpoint.max_model_len
    answer = 0 if workload.api == "embeddings" else output.mean
    if limit and prompt.mean + answer > limit:
        asked = f"{prompt.mean} prompt tokens" + (f" and {answer} output tokens" if answer else "")
        raise UsageError(
            f"{asked} do not fit into {limit}",
            why=f"{endpoint.model} takes {limit} tokens, prompt and answer together",
            fix="lower prompt_tokens or output_tokens, or serve the model with a longer context",
        )
    if limit and prompt.stddev + output.stddev > 0:
        notes.append(f"lengths are cut where prompt and answer together would pass {limit} tokens")
    least = vocabulary.overhead + workload.shared_prefix_tokens + 1
    if prompt.mean < least:
        raise UsageError(
            f"a prompt of {prompt.mean} tokens cannot be made: {least - 1} are taken already",
            why=f"template and special tokens take {vocabulary.overhead}, "
            f"the shared prefix {workload.shared_prefix_tokens}",
            fix=f"prompt_tokens of {least} or more",
        )
    if workload.salted and prompt.mean < least + _SALT_TRIES - 1:
        notes.append("prompts are too short for a unique start each")
