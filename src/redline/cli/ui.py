"""`redline ui`: the results file as pages in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from redline.pages.serve import Address


def command(
    db: Annotated[Path | None, typer.Option(help="results file; ./redline-results/redline.db when not given")] = None,
    host: Annotated[str, typer.Option(help="address to listen on; off the loopback a token is needed")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 picks a free port")] = 8765,
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="file that holds the token; a new one when not given")
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="another name that this box goes by; repeatable")
    ] = None,
    open_browser: Annotated[bool, typer.Option("--open", help="open it in this box's browser")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="the address as JSON, once it listens")] = False,
) -> None:
    from redline.pages.serve import ui
    from redline.store.file import default_path

    path = db or default_path()

    def ready(address: Address) -> None:
        _say(address, path, as_json)
        if open_browser:
            import webbrowser

            webbrowser.open(address.url)

    ui(path, host=host, port=port, token=_token(token_file), allow_hosts=allow_host or (), ready=ready)


def _token(path: Path | None) -> str:
    from redline.errors import UsageError

    if path is None:
        return ""
    try:
        text = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"no token can be read from {path}", why=str(error)) from error
    if len(text) < 16 or not text.isascii() or not text.isprintable() or set(text) & set(' ;,"\\'):
        raise UsageError(
            f"{path} holds no token",
            why="a token is 16 characters or more, without spaces, quotes, commas, semicolons",
            fix=f"openssl rand -hex 24 > {path}",
        )
    return text


def _say(address: Address, path: Path, as_json: bool) -> None:
    from redline.cli.show import print_json, stderr

    if as_json:
        about = {"host": address.host, "port": address.port, "token": address.token, "db": str(path)}
        print_json({"url": address.url, **about})
        return
    console = stderr()
    console.print(f"[bold]{address.url}[/]  {path}", soft_wrap=True)
    if not path.exists():
        console.print("there is no such file yet: the pages show it as soon as there is")
    console.print("reads only; Ctrl-C ends it")
