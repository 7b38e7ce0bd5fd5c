"""The page of results: what the last `make test-vm` saw, between two marks in docs/results/node.md."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.vm.broken import SETTINGS

BEGIN, END = "<!-- make test-vm writes from here -->", "<!-- to here -->"
PAGE = Path("docs/results/node.md")


def write(root: Path, facts: dict[str, Any], outcomes: dict[str, tuple[str, float]]) -> None:
    """`outcomes`: test → (passed, failed or skipped; seconds)."""
    page = root / PAGE
    old = page.read_text()
    block = f"{BEGIN}\n\n{render(facts, outcomes)}\n{END}"
    page.write_text(re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: block, old, flags=re.DOTALL))


def render(facts: dict[str, Any], outcomes: dict[str, tuple[str, float]]) -> str:
    took = sum(seconds for _, seconds in outcomes.values())
    boots = facts.get("boots", [])
    lines = [
        f"Run of {datetime.now(UTC):%Y-%m-%d}, {took / 60:.0f} minutes in all, {len(boots)} boots of"
        f" {min(boots, default=0):.0f} to {max(boots, default=0):.0f} s.",
        "",
        f"- {facts.get('redline')}, built from commit {facts.get('commit')}",
        f"- {facts.get('system')}; Linux {facts.get('kernel')}; TuneD {facts.get('tuned')};"
        f" AppArmor enabled: {facts.get('apparmor')}",
        f"- {facts.get('qemu')}; accelerator {facts.get('accelerator')}",
        "",
        "### Settings: broken, and after `apply` and a reboot",
        "",
        "| setting | broken by | broken | `audit` | after | `verify` after the reboot |",
        "|---|---|---|---|---|---|",
        *(_row(facts, one) for one in SETTINGS),
        "",
        "### State, before against after",
        "",
        f"Hash of the broken state (sha256 over {facts.get('paths', '?')} values and files): `{facts.get('hash')}`.",
        "",
        "| after | state |",
        "|---|---|",
        *(f"| {name.removeprefix('after ')} | {_said(value)} |" for name, value in facts.items() if _is_state(name)),
        "",
        "### Cuts of power",
        "",
        "| where | the journal's last lines at the next boot | taken back then (live values went with the power) |",
        "|---|---|---|",
        *(_cut(name, value) for name, value in facts.items() if name.startswith("cut ")),
        "",
        "### Tests",
        "",
        "| test | outcome | s |",
        "|---|---|---|",
        *(
            f"| {name.removeprefix('test_').replace('_', ' ')} | {how} | {s:.0f} |"
            for name, (how, s) in outcomes.items()
        ),
    ]
    return "\n".join(lines) + "\n"


def _row(facts: dict[str, Any], one: Any) -> str:
    audit = ", ".join(facts.get("audit", {}).get(one.id, []))
    held = facts.get("verify", {}).get(one.path) or facts.get("verify", {}).get("update-grub", "")
    after = facts.get("after", {}).get(one.id, "")
    return f"| {one.id} | `{one.by}` | {one.broken} | {audit} | {after} | {held} |"


def _cut(name: str, found: dict[str, Any]) -> str:
    return f"| {name.removeprefix('cut ')} | `{found['journal']}` | {found.get('undone', 'the rest')} |"


def _is_state(name: str) -> bool:
    return name.startswith(("after ", "export "))


def _said(value: Any) -> str:
    if isinstance(value, str):
        return value
    return f"{len(value)} differ: " + "; ".join(f"`{line}`" for line in value[:5])


def load(folder: Path) -> dict[str, Any]:
    """What the machine's last run noted; {} when it noted nothing."""
    path = folder / "facts.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}
