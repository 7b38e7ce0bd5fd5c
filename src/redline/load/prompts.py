"""The prompts of a workload: made or read, counted, verified, and the same again for the same seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redline.engines.endpoint import Endpoint
from redline.errors import EnvironmentFault, SpecError, Unsupported, UsageError
from redline.load.canary import Canaries, canaries_for
from redline.load.counting import CountTexts
from redline.load.datasets import Item, read_items
from redline.load.prompt import Prompt
from redline.load.record import TokenSource
from redline.load.synthetic import Composer, Draft
from redline.load.tokens import Tokenizer, UsageTokenizer, best_tokenizer
from redline.load.vocabulary import Vocabulary, learn
from redline.spec.workload import LengthSpec, WorkloadSpec

_WORDS_TO_TOKENS = 4 / 3
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
    made: int = 0
    off: int = 0

    @property
    def verified(self) -> bool:
        return self.tokenizer is not None and self.tokenizer.source is not TokenSource.USAGE

    @property
    def loads_server(self) -> bool:
        """Verifying asks the server that is being measured, so it must not happen during a measurement."""
        return self.tokenizer is not None and self.tokenizer.source is TokenSource.SERVER_TOKENIZER

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
        shared = self.workload.shared_prefix_tokens if self.workload.kind == "synthetic" else 0
        return {
            "declared": self.workload.cache,
            "warm_share": self.workload.warm_share,
            "common_tokens": shared + self.composer.vocabulary.overhead,
        }

    def prompts(self, key: int, start: int, count: int, *, verify: bool = True) -> list[Prompt]:
        """Prompts `start` to `start + count` of this key. Without `verify` nobody is asked for their length."""
        if self.workload.kind == "synthetic":
            found = self._synthetic(key, start, count, verify)
        else:
            found = self._from_items(key, start, count, verify)
        self.made += len(found)
        self.off += sum(not prompt.exact for prompt in found)
        return found

    # -- synthetic

    def _synthetic(self, key: int, start: int, count: int, verify: bool) -> list[Prompt]:
        spec = self.workload
        lengths = [self._lengths(key, number) for number in range(start, start + count)]
        drafts = [self.composer.draft(key, start + i, tokens) for i, (tokens, _) in enumerate(lengths)]
        if verify and self.verified and self.tokenizer is not None:
            off = self.composer.settle(drafts, self.tokenizer, chat=spec.api == "chat")
            if off > 0.02 * count and spec.api == "completions" and self.endpoint.dialect.token_id_prompts:
                return [self._as_ids(draft, output) for draft, (_, output) in zip(drafts, lengths, strict=True)]
        return [self._prompt_of(draft, output) for draft, (_, output) in zip(drafts, lengths, strict=True)]

    def _prompt_of(self, draft: Draft, output: int) -> Prompt:
        known = draft.tokens or draft.asked
        return self._prompt(draft.text, draft.asked, output, exact=known == draft.asked)

    def _as_ids(self, draft: Draft, output: int) -> Prompt:
        """Text could not be had in this length, token ids can."""
        assert self.tokenizer is not None
        ids = self.tokenizer.ids(draft.text) or []
        if draft.tokens == draft.asked or not ids:
            return self._prompt_of(draft, output)
        ids = (ids * (draft.asked // len(ids) + 1))[: draft.asked]
        return Prompt(token_ids=tuple(ids), tokens=draft.asked, output_tokens=output)

    def _prompt(self, text: str, tokens: int, output: int, *, exact: bool = True) -> Prompt:
        if self.workload.api == "chat":
            messages = ({"role": "user", "content": text},)
            return Prompt(messages=messages, tokens=tokens, output_tokens=output, exact=exact)
        return Prompt(text=text, tokens=tokens, output_tokens=output, exact=exact)

    def _lengths(self, key: int, number: int) -> tuple[int, int]:
        spec = self.workload
        rng = random.Random(f"{key}/{number}/lengths")
        prompt, output = draw(spec.prompt_tokens, rng), draw(spec.output_tokens, rng)
        limit = self.endpoint.max_model_len
        if limit:
            output = min(output, max(1, limit - 1))
            prompt = min(prompt, limit - output)
        return prompt, output

    # -- from a file

    def _from_items(self, key: int, start: int, count: int, verify: bool) -> list[Prompt]:
        numbers = range(start, start + count)
        items = [self.items[number % len(self.items)] for number in numbers]
        chats = [self._salted(item, key, number) for item, number in zip(items, numbers, strict=True)]
        tokens = self._count_items(chats) if verify else [0] * count
        found = []
        for item, chat, size, number in zip(items, chats, tokens, numbers, strict=True):
            output = item.output_tokens or draw(self.workload.output_tokens, random.Random(f"{key}/{number}/lengths"))
            if self.workload.api == "chat":
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

    def _count_items(self, chats: Sequence[tuple[dict[str, Any], ...]]) -> list[int]:
        if self.tokenizer is None or not self.verified:
            return [0] * len(chats)
        if self.workload.api == "chat":
            return self.tokenizer.chat_counts(chats)
        return self.tokenizer.counts([str(chat[0]["content"]) for chat in chats])


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
) -> PromptSource:
    """Everything that prompts need, learnt once per server. `needed` prompts are roughly what one load point takes.

    `salt_key` changes the unique starts and nothing else: give one per run where the server outlives the run and may
    still hold the prompts of the run before in its cache. SpecError for a file that cannot be used, UsageError for
    lengths that the model has no room for.
    """
    notes: list[str] = []
    tokenizer, vocabulary = _learn(endpoint, workload, tokenizer_path, api_key, notes)
    composer = Composer(
        vocabulary,
        seed=seed,
        salt=workload.salted,
        prefix_tokens=workload.shared_prefix_tokens if workload.kind == "synthetic" else 0,
        salt_key=salt_key,
        warm_share=workload.warm_share,
    )
    source = PromptSource(endpoint, workload, tokenizer, composer, notes=notes, canaries=canaries_for(workload))
    if workload.kind == "synthetic":
        _check_lengths(endpoint, workload, vocabulary, notes)
    else:
        source.items = _items(source, seed, needed)
    return source


def _learn(
    endpoint: Endpoint, workload: WorkloadSpec, tokenizer_path: Path | None, api_key: str | None, notes: list[str]
) -> tuple[Tokenizer | None, Vocabulary]:
    """The best tokenizer that can answer, with what it taught; the last resort takes a word for a token."""
    chat = workload.api == "chat"
    tokenizer, remarks = best_tokenizer(endpoint, tokenizer_path, api_key)
    notes += remarks
    if tokenizer is not None:
        try:
            return tokenizer, learn(tokenizer, chat=chat)
        except (EnvironmentFault, Unsupported) as problem:
            notes.append(problem.what)
    if workload.kind == "synthetic":
        usage = UsageTokenizer(endpoint, api_key)
        try:
            vocabulary = learn(usage, chat=chat)
        except (EnvironmentFault, Unsupported) as problem:
            notes.append(f"prompt lengths are a guess, one token per word: {problem.what}")
            return None, Vocabulary(tokens_per_word=1.0)
        notes.append("no tokenizer: prompt lengths were learnt from the usage of a few answers")
        return usage, vocabulary
    return None, Vocabulary()


def _check_lengths(endpoint: Endpoint, workload: WorkloadSpec, vocabulary: Vocabulary, notes: list[str]) -> None:
    prompt, output, limit = workload.prompt_tokens, workload.output_tokens, endpoint.max_model_len
    if limit and prompt.mean + output.mean > limit:
        raise UsageError(
            f"{prompt.mean} prompt tokens and {output.mean} output tokens do not fit into {limit}",
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


def _items(source: PromptSource, seed: int, needed: int) -> list[Item]:
    """Items of the workload's file that fit the model, in file order; ShareGPT shuffled, and no more than needed."""
    workload = source.workload
    items = read_items(workload.kind, Path(workload.path))
    if workload.kind == "sharegpt":
        random.Random(f"{seed}/items").shuffle(items)
        items = _with_answers(source, items[: max(2 * needed, 1000)])
    if workload.api == "completions":
        several = next((item for item in items if len(item.messages) > 1 or item.messages[0]["role"] != "user"), None)
        if several is not None:
            raise SpecError(
                "a conversation cannot go to the completions endpoint",
                file=workload.path,
                line=several.line,
                field="messages",
                fix="api: chat",
            )
    items = _fitting(source, items)
    if needed > len(items):
        same = "with a new start each" if workload.salted else "and a prefix cache may answer them"
        source.notes.append(f"{workload.path} holds {len(items)} prompts; they are used again, {same}")
    return items


def _with_answers(source: PromptSource, items: list[Item]) -> list[Item]:
    """Output lengths from the recorded answers."""
    count = source.count_texts
    if count is not None:
        lengths = count([item.answer for item in items])
    else:
        lengths = [round(len(item.answer.split()) * _WORDS_TO_TOKENS) for item in items]
        source.notes.append("no tokenizer: output lengths of ShareGPT are 4/3 of the words of its answers")
    return [Item(item.messages, length, line=item.line) for item, length in zip(items, lengths, strict=True) if length]


def _fitting(source: PromptSource, items: list[Item]) -> list[Item]:
    limit = source.endpoint.max_model_len
    if not limit or not source.verified:
        return items
    tokens = source._count_items([item.messages for item in items])
    wanted = source.workload.output_tokens.mean
    kept = [
        item
        for item, size in zip(items, tokens, strict=True)
        if size + 8 + (item.output_tokens or wanted) <= limit  # eight for the salt
    ]
    if not kept:
        raise UsageError(f"no prompt of {source.workload.path} fits into the model's {limit} tokens")
    if len(kept) < len(items):
        source.notes.append(f"{len(items) - len(kept)} prompts do not fit into {limit} tokens and are left out")
    return kept
