"""Secrets never reach the results file: keys, tokens and passwords are cut out of everything that is stored.

Three nets: a value whose name says that it is a secret; text that looks like one (Bearer, `hf_…`, a password in a URL);
and known values (credentials in our environment, and what the first net caught in the experiment and the command
line), wherever they turn up again, an engine's log included.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

CUT = "***"

_ANYWHERE = {"apikey", "authorization", "bearer", "cookie", "credential", "credentials", "passphrase", "passwd"}
_ANYWHERE |= {"password", "pwd", "secret", "secrets", "token"}
_LAST_ONLY = {"key", "auth"}  # OPENAI_KEY is one, KeyError and SSH_AUTH_SOCK are none
_TOO_SHORT_FOR_PROSE = {"token", "secret", "secrets", "cookie", "bearer", "credential", "credentials", "auth", "key"}
_EVEN_A_NUMBER = re.compile(r"api ?key|passw|passphrase|secret|pwd")
_TEXT_TOKEN = re.compile(  # tokens of text: eos_token, image_token_id, ms_per_output_token
    r"\b(?:bos|eos|pad|unk|mask|sep|cls|image|audio|video|special|stop|per|last|first|next|new|max|min|output|input"
    r"|prompt|answer|cached) token\b"
    r"|\btoken (?:ids?|types?|counts?|limit|budget|length|source|index|indices|rate|latency|ms|ns|s)\b"
)
_EMPTY = {"", "none", "null", "true", "false", "[]", "{}", CUT}

_ASSIGNED = re.compile(
    r"(?i)(?P<name>[\w.-]*(?:token|key|passw|passphrase|pwd|secret|credential|auth|cookie|bearer)[\w.-]*)"
    r"(?P<is>[\"']?\s*[=:]\s*\[?)(?P<value>\"[^\"]*\"|'[^']*'|[^\s,;&\"'\[\])}]+)"
)
_FLAG = re.compile(
    r"(?i)(?P<name>--?[\w.-]*(?:token|key|passw|secret|credential)[\w.-]*)(?P<is>\s+)(?P<value>[^\s-]\S*)"
)
_HEADER = re.compile(r"(?i)\b((?:proxy-)?authorization|x-api-key|(?:set-)?cookie)([\"']?\s*:\s*[\"']?)[^\r\n\"',}]+")
_SHAPES = [
    re.compile(r"(?<=://)[^\s/@:]*(?::[^\s/@]*)?(?=@)"),  # the user and the password of a URL
    re.compile(r"(?i)(?<=bearer )[\w.~+/=-]{6,}"),
    re.compile(r"\b(?:hf_[A-Za-z0-9]{16,}|sk-[\w-]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|nvapi-[\w-]{16,}|AKIA[A-Z0-9]{16})"),
    re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,}"),  # a JSON web token
]


def _words(name: str) -> str:
    """`OpenAIApiKey`, `openai-api-key` → `open ai api key`."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    return re.sub(r"[^A-Za-z0-9]+", " ", apart).strip().lower()


def secret_name(name: str, *, prose: bool = False) -> bool:
    """True when a value of this name is a secret: HF_TOKEN, api-key, dbPassword; but not max_tokens or eos_token.

    In prose (logs, error messages) a lone `token:` or `key:` introduces no secret.
    """
    words = _words(name)
    if words.endswith((" env", " file", " path", " error")):  # where the secret lies, not what it is
        return False
    if words == "key" or (prose and words in _TOO_SHORT_FOR_PROSE):
        return False
    parts = _TEXT_TOKEN.sub(" ", words).split()
    return bool(parts) and (not _ANYWHERE.isdisjoint(parts) or parts[-1] in _LAST_ONLY)


class Scrubber:
    """Remembers the secrets that it has met, and cuts them wherever they turn up later."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._known: set[str] = set()
        for name, value in (os.environ if environment is None else environment).items():
            # a password such as "default" would cut harmless words out of every log
            if secret_name(name) and len(value) >= 8 and (not value.isalpha() or len(value) >= 16):
                self._known.add(value)

    def value(self, value: Any, name: str = "") -> Any:
        """A copy of JSON-like `value` without its secrets."""
        if isinstance(value, Mapping):
            return {key: self.value(item, str(key)) for key, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.value(item, name) for item in value]
        if value is None or isinstance(value, bool) or not name or not secret_name(name):
            return self.text(value) if isinstance(value, str) else value
        if isinstance(value, int | float):
            return CUT if _EVEN_A_NUMBER.search(_words(name)) else value
        return self._cut(str(value))

    def argv(self, argv: Sequence[str]) -> list[str]:
        """A command line without its secrets: `--api-key X`, `--api-key=X`, `--env HF_TOKEN=X`."""
        clean: list[str] = []
        hide = False
        for word in argv:
            flag = word.startswith("-")
            name, equals, value = word.lstrip("-").rpartition("=")
            if hide and not flag:
                clean.append(self._cut(word))
            elif equals and secret_name(name.rpartition("=")[2]):
                clean.append(word.removesuffix(value) + self._cut(value))
            else:
                clean.append(self.text(word))
            hide = flag and not equals and secret_name(word)
        return clean

    def text(self, text: str) -> str:
        """`text` without what looks like a secret or is known to be one."""
        if not text:
            return text
        text = _HEADER.sub(rf"\1\2{CUT}", text)
        for pattern in (_ASSIGNED, _FLAG):
            text = pattern.sub(_cut_assigned, text)
        for shape in _SHAPES:
            text = shape.sub(CUT, text)
        for secret in self._longest_first():
            text = text.replace(secret, CUT)
        return text

    def file(self, path: Path) -> bool:
        """Cuts known secrets out of a file, in place; True when there were any."""
        body = path.read_bytes()
        clean = body
        for secret in self._longest_first():
            clean = clean.replace(secret.encode("utf-8", "surrogateescape"), CUT.encode())
        if clean != body:
            path.write_bytes(clean)
        return clean != body

    def _cut(self, value: str) -> str:
        if value.strip().lower() in _EMPTY:
            return value
        if len(value) >= 6:
            self._known.add(value)
        return CUT

    def _longest_first(self) -> list[str]:
        return sorted(self._known, key=len, reverse=True)


def _cut_assigned(match: re.Match[str]) -> str:
    harmless = match["value"].strip("\"'").lower() in _EMPTY or not secret_name(match["name"], prose=True)
    return match[0] if harmless else match["name"] + match["is"] + CUT
