"""Writes the pages of the documentation that are tables of what the code says. `--check` only tells whether they are fresh."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path

from redline import errors
from redline.analyse.peers.tools import PEER_DEFINITIONS
from redline.spec.experiment import Experiment
from redline.spec.overrides import FLAGS
from redline.units import DEFINITIONS

MADE = "<!-- made by scripts/make_docs.py: change the code, not this page -->\n"


def definitions() -> str:
    rows = "\n".join(f"| `{d.id}` | {d.unit} | {d.text} | {d.better} |" for d in DEFINITIONS.values())
    peers = "\n".join(f"| `{d.id}` | {d.unit} | {d.text} | {d.differs} |" for d in PEER_DEFINITIONS.values())
    return f"""# What a number means

Every number that redline shows carries the id of its definition. The digit after `@` is the version: a definition that
changes gets a new one, so two results with the same id may be compared.

| id | unit | definition | better |
|---|---|---|---|
{rows}

Percentiles count failed requests as +∞ in the headline, so a server cannot look fast by failing; the percentiles of the
successful requests alone stand second. Requests that redline itself cut off at the end of a load point are neither: they
are censored, and the verdict says so when there are too many of them. Warm-up requests are kept and left out.

Tokens are counted by the server's own `usage` where it sends one, else by its tokenizer, else by ours; the source is
stored with every request. Several tokens in one chunk arrive together, and the tokens-per-chunk histogram says how many.

Times are taken on arrival by the kernel (`SO_TIMESTAMPNS`); where that cannot be had the stamp is taken in user space and
labelled as such.

## Other tools' numbers

`redline report --as TOOL` recomputes what another tool would have reported, from the same raw log; see
[Other tools](peers.md). The number after `@` is the tool's version whose source says so.

| id | unit | definition | beside redline's own |
|---|---|---|---|
{peers}
"""


def error_page() -> str:
    tree = inspect.getdoc(errors) or ""
    return f"# Errors and exit codes\n\nEvery error says what happened, what it means and what to do.\n\n```text\n{tree}\n```\n"


def experiment() -> str:
    groups: dict[str, list[str]] = {}
    for flag in FLAGS:
        names = f"`{flag.name}`" + (f" / `{flag.negative}`" if flag.negative else "")
        text = flag.help.replace("|", "\\|")
        choices = f" ({', '.join(flag.choices)})" if flag.choices else ""
        groups.setdefault(flag.group, []).append(f"| {names} | `{flag.field}` | {text}{choices} |")
    tables = "\n\n".join(
        f"## {group}\n\n| flag | field | |\n|---|---|---|\n" + "\n".join(rows) for group, rows in groups.items()
    )
    return f"""# The experiment

{inspect.getdoc(Experiment)}

An experiment is a YAML file, flags, or both: flags win over the file. `redline compare … --print-experiment` writes the
file, `-f` reads it back. Unknown fields are errors, with the line and the field that was probably meant.

{tables}
"""


PAGES: dict[str, Callable[[], str]] = {
    "definitions.md": definitions,
    "errors.md": error_page,
    "experiment.md": experiment,
}


def main(check: bool) -> int:
    stale = []
    for name, page in PAGES.items():
        path, text = Path("docs") / name, MADE + page()
        if not path.exists() or path.read_text() != text:
            stale.append(name)
            if not check:
                path.write_text(text)
    if stale:
        print(("stale, run scripts/make_docs.py: " if check else "wrote ") + ", ".join(stale))
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv))
