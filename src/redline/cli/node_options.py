"""What the verbs that change a box have in common: which box, where its journals are, what to change."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from redline.node.plan import Plan
    from redline.node.sys import Sys

Root = Annotated[
    Path | None,
    typer.Option(help="a folder that holds a box, to rehearse on; this machine when not given", metavar="DIR"),
]
StateDir = Annotated[
    Path | None, typer.Option(help="folder of the journals; /var/lib/redline/node when not given", metavar="DIR")
]
ProfileOption = Annotated[
    Literal["latency", "throughput", "shared", "vm"], typer.Option("--profile", help="what the box is for")
]
Only = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="ID", help="these settings alone; repeatable; @FILE holds one a line"),
]
Skip = Annotated[list[str] | None, typer.Option("--skip", metavar="ID", help="without this setting; repeatable")]
NoPersist = Annotated[bool, typer.Option("--no-persist", help="live values only, nothing that outlives a reboot")]
Json = Annotated[bool, typer.Option("--json", help="the result as JSON on stdout")]


def box(root: Path | None) -> Sys:
    from redline.node.fake import FakeSys
    from redline.node.live import LiveSys

    return LiveSys() if root is None else FakeSys(root)


def journals(root: Path | None, state_dir: Path | None) -> Path:
    """A rehearsal keeps its journals in the box that it rehearses on."""
    from redline.node.apply import STATE_DIR

    if state_dir is not None:
        return state_dir
    return STATE_DIR if root is None else root / str(STATE_DIR).lstrip("/")


def named(given: list[str] | tuple[str, ...]) -> list[str]:
    """Ids as given; `@FILE` stands for those in a file, one a line, with remarks after #. UsageError without it, and
    when it names none: no id at all would mean every setting."""
    from redline.errors import UsageError

    ids: list[str] = []
    for name in given:
        if not name.startswith("@"):
            ids.append(name)
            continue
        try:
            lines = Path(name[1:]).read_text().splitlines()
        except OSError as error:
            raise UsageError(f"{name[1:]} cannot be read: {error.strerror}") from error
        ids += [found for line in lines if (found := line.partition("#")[0].strip())]
    if given and not ids:
        raise UsageError(f"{', '.join(given)} names no setting", why="nothing was found to be worth keeping")
    return ids


def planned(sys: Sys, profile: Any, only: list[str] | None, skip: list[str] | None, no_persist: bool) -> Plan:
    from redline.cli.show import working
    from redline.errors import NodeFault
    from redline.node.apply import explain
    from redline.node.audit import audit
    from redline.node.plan import plan
    from redline.node.sys import SysFault

    try:
        with working("reading the box"):
            return plan(sys, audit(sys, profile, named(only or ())), persist=not no_persist, skip=skip or ())
    except SysFault as fault:
        raise NodeFault(f"the box cannot be read: {explain(fault)}", fix="sudo, if a file is for root alone") from fault


def show_plan(made: Plan) -> None:
    """The diff as one can pipe it into a pager; the rest below it."""
    from rich.console import Console
    from rich.syntax import Syntax

    console = Console(highlight=False, soft_wrap=True)
    if not made.changes:
        console.print("nothing to change")
    elif console.is_terminal:
        console.print(Syntax(made.diff(), "diff", background_color="default", word_wrap=True))
    else:
        typer.echo(made.diff(), nl=False)
    risks = ("none", "costs power or memory", "may slow something else", "may cut off the network or the boot")
    if made.changes:
        typer.echo(f"\n{len(made.changes)} changes, risk {made.risk} of 3 ({risks[made.risk]})")
    if made.reboot:
        typer.echo(f"takes effect at the next boot: {', '.join(made.reboot)}")
    for text in made.blast:
        typer.echo(f"also hit: {text}")
    for text in made.warnings:
        typer.echo(f"note: {text}")
    for id_, do in made.manual:
        typer.echo(f"by hand: {id_}: {do}")
