"""`redline node apply`: carry out the plan, with a journal that can undo it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from redline.cli.node_options import Json, NoPersist, Only, ProfileOption, Root, Skip, StateDir

if TYPE_CHECKING:
    from redline.node.path_watch import PathWatch
    from redline.node.plan import Plan
    from redline.node.sys import Sys
    from redline.node.transaction import Transaction

ASK_FROM_RISK = 2
CONFIRM_FROM_RISK = 3
CONFIRM_S = 120.0
ConfirmWithin = Annotated[
    float | None,
    typer.Option(
        min=0, metavar="SECONDS", help="undo everything unless confirmed in time; 0: never. 120 at risk 3, else 0"
    ),
]
Probe = Annotated[
    list[str] | None,
    typer.Option(
        metavar="HOST",
        help="must still be reached by full packets after a change of frame size, or that is undone; also asked: "
        "routers and neighbours of the card",
    ),
]


def register(app: typer.Typer) -> None:
    app.command("apply")(command)


def command(
    profile: ProfileOption = "latency",
    only: Only = None,
    skip: Skip = None,
    no_persist: NoPersist = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="the plan alone, as `redline node plan`")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask, whatever the risk")] = False,
    confirm_within: ConfirmWithin = None,
    probe: Probe = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on with the transaction that was cut short")] = False,
    root: Root = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Make the changes of the plan: all of them hold afterwards, or none."""
    from redline.cli.node_options import box, journals, planned, show_plan
    from redline.node import apply as applying

    sys, where = box(root), journals(root, state_dir)
    if resume:
        _show(applying.resume(sys, where), as_json)
        return
    made = planned(sys, profile, only, skip, no_persist)
    if not as_json:
        show_plan(made)
    if dry_run or not made.changes:
        if as_json:
            from redline.cli.show import print_json

            print_json(made.to_json())
        if not dry_run:
            applying.refuse_cut_short(where)  # also where its boot already gave the box what is asked for
        return
    _ask(made, yes)
    _show(_apply(sys, made, where, confirm_within, probe or ()), as_json)


def _apply(sys: Sys, made: Plan, where: Path, confirm_within: float | None, hosts: Sequence[str]) -> Transaction:
    from redline.cli.show import working
    from redline.node.apply import apply
    from redline.node.boot_guard import guard
    from redline.node.commit_confirm import arm
    from redline.node.path_watch import path_watch

    by_default = CONFIRM_S if made.risk >= CONFIRM_FROM_RISK else 0.0
    seconds = by_default if confirm_within is None else confirm_within
    with working("changing the box"):
        check = path_watch(sys, made.changes, hosts)
        done = apply(sys, made.changes, where, confirm_s=seconds, arm=arm, guard=guard, check=check)
    if check is not None:
        _show_paths(check)
    return done


def _show_paths(check: PathWatch) -> None:
    from redline.cli.show import stderr

    asked = [path.host for path in check.found if path.way]
    if asked:
        text = f"full packets reach {', '.join(asked)}, which answered before"
    else:
        text = "no host behind the card answered before, so the path is not proved: name one with --probe"
    stderr().print(text, markup=False, soft_wrap=True)


def _ask(made: Plan, yes: bool) -> None:
    """UsageError when there is nobody to ask."""
    import sys

    from redline.errors import UsageError

    if yes or made.risk < ASK_FROM_RISK:
        return
    if not sys.stdin.isatty():
        raise UsageError(
            f"the plan has risk {made.risk} of 3, and there is nobody to ask", fix="--yes, or --skip what is risky"
        )
    typer.confirm(f"risk {made.risk} of 3: go on?", abort=True, err=True)


def _show(done: Transaction, as_json: bool) -> None:
    if as_json:
        from redline.cli.show import print_json

        changes = [step.change.label for step in done.steps]
        ids = sorted({id_ for step in done.steps for id_ in step.change.tunable_ids})
        print_json(
            {
                "txn": done.txn,
                "status": done.status,
                "ids": ids,
                "changes": changes,
                "confirm_by": done.confirm_by or None,
            }
        )
        return
    own = int(done.guard.get("files", 0))
    typer.echo(f"{len(done.steps) - own} changes made and read back: transaction {done.txn}")
    if done.status == "unconfirmed":
        _show_deadlines(done)
    else:
        typer.echo(f"back to before: redline node revert {done.txn}")


def _show_deadlines(done: Transaction) -> None:
    say = f"redline node confirm {done.txn}"
    if done.confirm_by:
        typer.echo(f"undone by itself unless you say in time: {say}")
    if done.guard.get("mode") == "after boot":
        seconds = done.guard["seconds"]
        typer.echo(f"after the next boot it is undone unless you say within {seconds:.0f} s (again): {say}")
    elif done.guard:
        typer.echo("a reboot before that undoes it, too")
    else:
        typer.echo("a reboot ends that watch: systemd does not start this box, so nothing would undo it then")
