"""`redline node audit`: every setting against what a profile wants. It reads, and changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from redline.node.audit_lines import Line
    from redline.node.judge import Judged

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
    root: Annotated[Path | None, typer.Option(help="a copy of a box: a folder, or a file of node snapshot")] = None,
) -> None:
    from redline.node.audit import audit
    from redline.node.audit_lines import as_data, is_bad
    from redline.node.snapshot import replayed, unasked

    with replayed(root) as sys:
        judged = audit(sys, profile, [name.strip() for name in only.split(",") if name.strip()])
        is_root, late = sys.user_is_root(), unasked(sys)
    if late:
        from redline.cli.show import stderr

        stderr().print(f"made before redline had {', '.join(late)}: these look absent", markup=False, soft_wrap=True)
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
    """What is not ok; without weight only where it is unknown or overridden, since a surprise is worth a line."""
    state, severity = line.judged.state, line.judged.tunable.severity
    return state in ("drift", "blocked", "overridden", "unknown") and severity != "info"


def _print_line(console: Console, line: Line) -> None:
    from rich.padding import Padding
    from rich.text import Text

    judged, tunable = line.judged, line.judged.tunable
    head = Text.assemble(
        "  ",
        (f"{judged.state if judged.state != 'not applicable' else 'n/a':<11}", _COLOURS[judged.state]),
        (f"{tunable.severity:<7}", "bold" if tunable.severity == "high" else "dim"),
        (tunable.id, "bold"),
        f"  {line.change}",
        (f"  {line.where}" if line.where else "", "dim"),
    )
    console.print(head)
    indent = (0, 0, 0, 20)
    if judged.state not in ("ok", "not applicable", "inert"):
        console.print(Padding(Text(f"{tunable.title}. {tunable.effect}", style="dim"), indent))
    told = judged.why or (tunable.advice if judged.state == "drift" else "")
    if told:
        console.print(Padding(Text(told), indent))


def _print_rest(console: Console, found: Sequence[Line]) -> None:
    """Differences without weight, and values that cannot matter here, one line each."""
    from rich.padding import Padding
    from rich.text import Text

    light = [line for line in found if line.judged.tunable.severity == "info" and line.judged.state in _LIGHT]
    if light:
        console.print("\n[bold]differ, of little weight[/]")
        for line in light:
            mark = "" if line.judged.state == "drift" else f" ({line.judged.state})"
            console.print(Text.assemble(f"  {line.judged.tunable.id}  {line.change}{mark}", (f"  {line.where}", "dim")))
    inert = [line for line in found if line.judged.state == "inert"]
    if inert:
        console.print("\n[bold]without effect here, whatever the value[/]")
        for line in inert:
            where = f" ({line.where})" if line.where else ""
            head = f"  {line.judged.tunable.id} = {line.judged.value}{where}"
            console.print(Text(head))
            console.print(Padding(Text(line.judged.why, style="dim"), (0, 0, 0, 20)))


_LIGHT = ("drift", "blocked", "overridden", "unknown")


def _print_end(console: Console, judged: Sequence[Judged], profile: str, show_all: bool, is_root: bool) -> None:
    rows: dict[str, set[str]] = {}
    for each in judged:
        rows.setdefault(each.state, set()).add(each.tunable.id)
    counted = " · ".join(f"{len(ids)} {state}" for state, ids in rows.items())
    console.print(f"\nprofile {profile}: {counted}" + ("" if show_all else "   (--all shows every one)"))
    if not is_root:
        console.print("[yellow]not root:[/] some values could not be read")
