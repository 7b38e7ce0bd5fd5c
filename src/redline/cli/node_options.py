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
Copy = Annotated[Path | None, typer.Option(help="a copy of a box: a folder, or a file of node snapshot")]
"""For verbs that only read."""
StateDir = Annotated[
    Path | None, typer.Option(help="folder of the journals; /var/lib/redline/node when not given", metavar="DIR")
]
ProfileOption = Annotated[
    Literal["latency", "throughput", "shared", "vm"], typer.Option("--profile", help="what the box is for")
]
Only = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="ID", help="these settings alone: ids, beginnings of ids, groups; @FILE holds such"),
]
Skip = Annotated[list[str] | None, typer.Option("--skip", metavar="ID", help="without this setting")]
NoPersist = Annotated[bool, typer.Option("--no-persist", help="live values only, nothing that outlives a reboot")]
Json = Annotated[bool, typer.Option("--json", help="the result as JSON on stdout")]


def box(root: Path | None) -> Sys:
    """The box that is changed. UsageError for a snapshot's file, which is only read, and for what holds no box."""
    from redline.errors import UsageError
    from redline.node.box import opened
    from redline.node.live import LiveSys

    if root is not None and root.is_file():
        raise UsageError(
            f"{root} is a file of a box, not a box: it can be planned for, and nothing is changed in it",
            fix=f"to rehearse: mkdir box && tar xf {root} -C box, then --root box",
        )
    return LiveSys() if root is None else opened(root)


def tell_unasked(sys: Sys) -> None:
    """On stderr, what a copy cannot tell because it was made by an older redline."""
    from redline.cli.show import stderr
    from redline.node.snapshot import unasked

    if late := unasked(sys):
        stderr().print(f"made before redline had {', '.join(late)}: these look absent", markup=False, soft_wrap=True)


def journals(root: Path | None, state_dir: Path | None) -> Path:
    """A rehearsal keeps its journals in the box that it rehearses on."""
    from redline.node.apply import STATE_DIR

    if state_dir is not None:
        return state_dir
    return STATE_DIR if root is None else root / str(STATE_DIR).lstrip("/")


def names(given: list[str] | None) -> list[str]:
    """Ids, with commas or one by one. `@FILE` stands for those in a file, one a line, with remarks after #. UsageError
    without that file, and when it names none: no id at all would mean every setting."""
    from redline.errors import UsageError

    ids: list[str] = []
    for name in (name.strip() for entry in given or () for name in entry.split(",")):
        if not name.startswith("@"):
            ids += [name] if name else []
            continue
        try:
            lines = Path(name[1:]).read_text().splitlines()
        except OSError as error:
            raise UsageError(f"{name[1:]} cannot be read: {error.strerror}") from error
        found = [word for line in lines if (word := line.partition("#")[0].strip())]
        if not found:
            raise UsageError(f"{name[1:]} names no setting", why="nothing was found to be worth keeping")
        ids += found
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
            return plan(sys, audit(sys, profile, names(only)), persist=not no_persist, skip=names(skip))
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
