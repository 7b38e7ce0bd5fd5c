"""`redline node path`: the largest packet that reaches a host whole."""

from __future__ import annotations

from typing import Annotated

import typer

from redline.cli.node_options import Json

SWALLOWED = 5


def register(app: typer.Typer) -> None:
    app.command("path")(command)


def command(
    hosts: Annotated[list[str], typer.Argument(metavar="HOST", help="who to ask", show_default=False)],
    size: Annotated[
        int, typer.Option(min=68, max=65535, help="largest packet to try, in bytes with the IP header")
    ] = 9000,
    as_json: Json = False,
) -> None:
    """Find the largest packet that reaches each host unfragmented. Exit code 5 when some vanish or nobody answers."""
    from redline.cli.show import print_json, working
    from redline.node.path_probe import path_mtu

    with working("asking"):
        found = [path_mtu(host, size) for host in hosts]
    if as_json:
        print_json([path.to_json() for path in found])
    else:
        for path in found:
            typer.echo(_sentence(path.host, path.way, path.mtu, path.told, size))
    if any(not path.way or (path.mtu < size and not path.told) for path in found):
        raise typer.Exit(SWALLOWED)


def _sentence(host: str, way: str, mtu: int, told: int, size: int) -> str:
    if not way:
        return f"{host}: answers neither ICMP echo nor UDP to a closed port"
    if mtu >= size:
        return f"{host}: packets of {size} bytes get through (by {way})"
    who = f"and a router or the card says {told}" if told else "and larger ones vanish: nobody tells who sends them"
    return f"{host}: packets of up to {mtu} bytes get through (by {way}), {who}"
