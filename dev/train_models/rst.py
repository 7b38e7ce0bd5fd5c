"""Turns the reStructuredText of Python's documentation into plain, Markdown-like text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

DROPPED = {
    "index", "highlight", "sectionauthor", "moduleauthor", "toctree", "audit-event", "include", "literalinclude",
    "image", "figure", "only", "contents", "module", "currentmodule", "testsetup", "testcleanup", "audit-event-table",
    "raw", "opcode", "limited-api-list", "coroutinefunction-index", "program", "miscnews", "default-role", "role",
}  # fmt: skip
ADMONITIONS = {
    "note": "Note:", "warning": "Warning:", "seealso": "See also:", "tip": "Tip:", "important": "Important:",
    "caution": "Caution:", "impl-detail": "CPython implementation detail:", "todo": "To do:", "hint": "Hint:",
}  # fmt: skip
VERSIONS = {
    "versionadded": "New in version",
    "versionchanged": "Changed in version",
    "deprecated": "Deprecated since version",
    "deprecated-removed": "Deprecated since version",
}
CALLABLES = ("function", "method", "coroutinefunction", "coroutinemethod", "classmethod", "staticmethod",
             "decorator", "abstractmethod", "awaitablefunction", "awaitablemethod", "class", "exception", "data",
             "attribute", "c:function", "c:macro", "c:type", "c:member", "c:var", "describe", "cmdoption", "option",
             "envvar", "decoratormethod")  # fmt: skip
CODE_ROLES = {"func", "meth", "class", "mod", "data", "const", "attr", "exc", "keyword", "option", "envvar", "file",
              "program", "command", "c:func", "c:type", "c:macro", "c:member", "c:data", "c:expr", "samp", "token",
              "opcode", "source", "regexp", "kbd", "makevar", "cfunc", "ctype"}  # fmt: skip

_DIRECTIVE = re.compile(r"^(\s*)\.\. ([\w:-]+)::(?:\s+(.*))?$")
_ROLE = re.compile(r":([\w:+-]+):`([^`]+)`")
_UNDERLINE = re.compile(r"^([=\-~^\"'*#+.:`])\1{2,}\s*$")


@dataclass(frozen=True)
class Entry:
    """A documented name: what is asked about, and the text that answers."""

    name: str
    signature: str
    body: str


def indent_of(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def inline(text: str) -> str:
    """Roles, references and literals of one line of text."""

    def role(match: re.Match[str]) -> str:
        kind, value = match.group(1), match.group(2)
        if found := re.match(r"^(.*?)\s*<[^<>]+>$", value, re.S):
            value = found.group(1)
        value = value.removeprefix("!")
        if value.startswith("~"):
            value = value[1:].rsplit(".", 1)[-1]
        if kind in ("pep", "rfc"):
            return value if value.upper().startswith(kind.upper()) else f"{kind.upper()} {value}"
        if kind in ("issue", "bpo"):
            return f"bpo-{value}"
        if kind in ("func", "meth", "c:func") and not value.endswith(")"):
            value += "()"
        return f"`{value}`" if kind in CODE_ROLES else value

    text = _ROLE.sub(role, text)
    text = re.sub(r"``(.+?)``", r"`\1`", text)
    return re.sub(r"\|(\w+)\|", r"\1", text)


def block_end(lines: list[str], start: int, indent: int) -> int:
    """First line after `start` that is not blank and not deeper than `indent`."""
    i = start + 1
    while i < len(lines) and (not lines[i].strip() or indent_of(lines[i]) > indent):
        i += 1
    return i


def _directive(match: re.Match[str]) -> str | None:
    """What a directive's own line becomes; None when its block goes too."""
    pad, name, argument = match.group(1), match.group(2), (match.group(3) or "").strip()
    if name in DROPPED:
        return None
    if name in ADMONITIONS:
        return f"{pad}{ADMONITIONS[name]} {inline(argument)}".rstrip()
    if name in VERSIONS:
        return f"{pad}{VERSIONS[name]} {inline(argument)}".rstrip() + ":"
    if name in CALLABLES:
        return f"{pad}{argument}"
    if name == "availability":
        return f"{pad}Availability: {inline(argument)}"
    if name == "rubric":
        return f"{pad}**{inline(argument)}**"
    return ""


def clean(source: str) -> str:
    """The page as plain text: headings by #, directives as words, roles as `code`."""
    source = re.sub(r"`([^`<]+?)\s*<https?://[^>]+>`_{1,2}", r"\1", source)
    lines = source.expandtabs().replace("\r", "").split("\n")
    out: list[str] = []
    levels: list[str] = []
    i = 0
    while i < len(lines):
        line = lines[i]
        if match := _DIRECTIVE.match(line):
            replaced = _directive(match)
            if replaced is None:
                i = block_end(lines, i, len(match.group(1)))
                continue
            out.append(replaced)
            i += 1
            while i < len(lines) and re.match(r"^\s+:[\w-]+:", lines[i]):
                i += 1
            continue
        if re.match(r"^\s*\.\.(\s|$)", line):  # comments and labels
            i = block_end(lines, i, indent_of(line))
            continue
        if _heading_overline(lines, i):
            i += 1
            continue
        if i + 1 < len(lines) and line.strip() and (mark := _underline(line, lines[i + 1])):
            if mark not in levels:
                levels.append(mark)
            out.append("#" * (levels.index(mark) + 1) + " " + inline(line.strip()))
            i += 2
            continue
        out.append(_literal_mark(inline(line.rstrip())))
        i += 1
    return re.sub(r"\n{3,}", "\n\n", "\n".join(out)).strip() + "\n"


def _underline(title: str, below: str) -> str:
    match = _UNDERLINE.match(below)
    return match.group(1) if match and len(below.strip()) >= len(title.strip()) and not title.startswith(" ") else ""


def _heading_overline(lines: list[str], i: int) -> bool:
    return bool(_UNDERLINE.match(lines[i]) and i + 2 < len(lines) and lines[i].strip() == lines[i + 2].strip())


def _literal_mark(line: str) -> str:
    if line.strip() == "::":
        return ""
    return line[:-1] if line.endswith("::") else line


def entries(source: str) -> Iterator[Entry]:
    """Every documented name of a page, qualified by its module and class."""
    lines = source.expandtabs().split("\n")
    module, owners = "", [(-1, "")]
    for i, line in enumerate(lines):
        match = _DIRECTIVE.match(line)
        if not match:
            continue
        pad, kind, argument = len(match.group(1)), match.group(2), (match.group(3) or "").strip()
        if kind in ("module", "currentmodule"):
            module = argument
        if kind not in CALLABLES or kind.startswith("c:") or kind in ("describe", "cmdoption", "option", "envvar"):
            continue
        while owners[-1][0] >= pad:
            owners.pop()
        bare = re.split(r"[(\s]", argument, maxsplit=1)[0].lstrip("@")
        scope = owners[-1][1] or module
        name = bare if not scope or bare.startswith((scope + ".", module + ".")) else f"{scope}.{bare}"
        if kind == "class":
            owners.append((pad, name))
        body = _own_text(lines[i + 1 : block_end(lines, i, pad)], pad)
        if bare and body:
            yield Entry(name, argument.rstrip("\\ "), body)


def _own_text(block: list[str], pad: int) -> str:
    """A directive's own description: its block up to the first nested name, dedented and cleaned."""
    while block and block[0].strip():  # more signatures, or the rest of a wrapped one
        block = block[1:]
    kept: list[str] = []
    for line in block:
        nested = _DIRECTIVE.match(line)
        if nested and nested.group(2) in CALLABLES:
            if any(text.strip() for text in kept):
                break
            continue
        kept.append(line)
    text = clean("\n".join(line[pad + 3 :] if line[:pad].strip() == "" else line.strip() for line in kept))
    return text.strip()


def sections(cleaned: str) -> Iterator[tuple[str, str]]:
    """(heading, first paragraphs) of a cleaned page."""
    parts = re.split(r"^(#{1,5}) (.+)$", cleaned, flags=re.M)
    for title, body in zip(parts[2::3], parts[3::3], strict=True):
        if text := body.strip():
            yield title.strip(), text


def first_paragraphs(text: str, limit: int) -> str:
    """Whole paragraphs from the start, at most `limit` characters; empty when the first is longer."""
    kept = ""
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        if len(kept) + len(paragraph) > limit:
            break
        kept = f"{kept}\n\n{paragraph}" if kept else paragraph
    if kept.rstrip().endswith(":"):
        kept = "\n\n".join(kept.rstrip().split("\n\n")[:-1])
    return kept.strip()
