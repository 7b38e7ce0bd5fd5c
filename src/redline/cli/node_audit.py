"""`redline node audit`: every setting against what a profile wants. It reads, and changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from redline.cli.node_options import Copy

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from redline.node.audit_lines import Line
    from redline.node.judge import Judged

_LIGHT = ("drift", "blocked", "overridden", "unknown")
_COLOURS = {
    "drift": "yellow",
    "overridden": "magenta",
    "blocked": "red",
    "unknown": "cyan",
    "ok": "green",
    "inert": "blue",
    "not applicable": "dim",
}


def register(app: typer.Typer) -> None:
    app.command("audit", help="Every setting of this box, against what a profile wants. Reads only.")(command)


def command(
    profile: Annotated[
        Literal["latency", "throughput", "shared", "vm"], typer.Option(help="what the box is for")
    ] = "latency",
    only: Annotated[str, typer.Option(help="ids, beginnings of ids or groups, with commas: vm,net.core,gpu")] = "",
    show_all: Annotated[bool, typer.Option("--all", help="also what is ok and what does not apply")] = False,
    fail_on: Annotated[
        Literal["info", "low", "medium", "high"], typer.Option(help="least weight that ends with code 5")
    ] = "low",
    as_json: Annotated[bool, typer.Option("--json", help="as JSON on stdout")] = False,
    root: Copy = None,
) -> None:
    from redline.cli.node_options import tell_unasked
    from redline.node.audit import audit
    from redline.node.audit_lines import as_data, is_bad
    from redline.node.snapshot import replayed

    with replayed(root) as sys:
        judged = audit(sys, profile, [name.strip() for name in only.split(",") if name.strip()])
        is_root = sys.user_is_root()
        tell_unasked(sys)
    bad = any(is_bad(each, fail_on) for each in judged)
    if as_json:
        from redline.cli.show import print_json

        counts = Counter(each.state for each in judged)
        print_json(
            {"profile": profile, "root": is_root, "ok": not bad, "counts": counts}
            | {"settings": [as_data(each) for each in judged]}
        )
    else:
        _print(judged, profile, show_all or bool(only), is_root)
    if bad:
        raise typer.Exit(5)


def _print(judged: Sequence[Judged], profile: str, show_all: bool, is_root: bool) -> None:
    from rich.console import Console

    from redline.node.audit_lines import SEVERITIES, lines

    console = Console(highlight=False)
    found = lines(judged)
    groups = list(dict.fromkeys(line.judged.tunable.group for line in found))
    shown = [line for line in found if show_all or _in_full(line)]
    shown.sort(
        key=lambda line: (groups.index(line.judged.tunable.group), -SEVERITIES.index(line.judged.tunable.severity))
    )
    group = ""
    for line in shown:
        if line.judged.tunable.group != group:
            group = line.judged.tunable.group
            console.print(f"\n[bold]{group}[/]")
        _print_line(console, line)
    if not show_all:
        _print_rest(console, found)
    _print_end(console, judged, profile, show_all, is_root)


def _in_full(line: Line) -> bool:
    """What a person can do something about, and what is not known; blocked ones are listed by their reason."""
    return line.judged.state in ("drift", "overridden", "unknown") and line.judged.tunable.severity != "info"


def _print_line(console: Console, line: Line) -> None:
    from rich.text import Text

    judged, tunable = line.judged, line.judged.tunable
    body = _head(line)
    if judged.state not in ("ok", "not applicable", "inert"):
        body.append(f"\n{tunable.title[0].upper()}{tunable.title[1:]}. {tunable.effect}", style="dim")
    told = judged.why or (tunable.advice if judged.state == "drift" else "")
    if told:
        body.append(f"\n{told}")
    state = "n/a" if judged.state == "not applicable" else judged.state
    severity = Text(tunable.severity, style="bold" if tunable.severity == "high" else "dim")
    _row(console, (10, 6), Text(state, style=_COLOURS[judged.state]), severity, body)


def _head(line: Line) -> Text:
    from rich.text import Text

    return Text.assemble((line.judged.tunable.id, "bold"), f"  {line.change}", (f"  {line.where}", "dim"))


def _row(console: Console, widths: Sequence[int], *cells: Text) -> None:
    """Cells of fixed widths, and a last one that wraps below itself."""
    from rich.padding import Padding
    from rich.table import Table

    grid = Table.grid(padding=(0, 1, 0, 0))
    for width in widths:
        grid.add_column(width=width)
    grid.add_column()
    grid.add_row(*cells)
    console.print(Padding(grid, (0, 0, 0, 2)))


def _print_rest(console: Console, found: Sequence[Line]) -> None:
    """What is blocked, by reason; differences without weight; values that cannot matter here. One line each."""
    from rich.text import Text

    from redline.node.audit_lines import SEVERITIES

    reasons: dict[str, list[Line]] = {}
    for line in found:
        if line.judged.state == "blocked" and line.judged.tunable.severity != "info":
            reasons.setdefault(line.judged.why, []).append(line)
    for why, those in reasons.items():
        console.print(f"\n[bold red]blocked:[/] {why}")
        for line in sorted(those, key=lambda line: -SEVERITIES.index(line.judged.tunable.severity)):
            _row(console, (6,), Text(line.judged.tunable.severity, style="dim"), _head(line))
    light = [line for line in found if line.judged.tunable.severity == "info" and line.judged.state in _LIGHT]
    if light:
        console.print("\n[bold]differ, of little weight[/]")
        for line in light:
            mark = "" if line.judged.state == "drift" else f"  ({line.judged.state})"
            _row(console, (), Text.assemble(_head(line), mark))
    inert = [line for line in found if line.judged.state == "inert"]
    if inert:
        console.print("\n[bold]without effect here, whatever the value[/]")
        for line in inert:
            value = Text(f"{line.judged.tunable.id} = {line.judged.value}")
            _row(console, (42,), value, Text(f"{line.where}: " * bool(line.where) + line.judged.why, style="dim"))


def _print_end(console: Console, judged: Sequence[Judged], profile: str, show_all: bool, is_root: bool) -> None:
    from redline.node.audit_lines import is_bad

    rows: dict[str, set[str]] = {}
    for each in judged:
        rows.setdefault(each.state, set()).add(each.tunable.id)
    counted = " · ".join(f"{len(rows[state])} {state}" for state in _COLOURS if state in rows)
    console.print(f"\nprofile {profile}: {counted}" + ("" if show_all else "   (--all shows every one)"))
    first = dict.fromkeys(each.tunable.id for each in judged if is_bad(each, "high"))
    if first:
        console.print(f"look first at: {', '.join(first)}")
    if not is_root:
        console.print("[yellow]not root:[/] some values could not be read")
