"""`redline node pin`: a command on the CPUs and the memory of a GPU's node."""

from __future__ import annotations

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    app.command("pin", context_settings={"allow_interspersed_args": False})(command)


def command(
    argv: Annotated[list[str], typer.Argument(metavar="-- COMMAND…", help="what to start")],
    gpu: Annotated[str | None, typer.Option(help="GPU, or a list of them (0-3), as NVML numbers them")] = None,
    node: Annotated[str | None, typer.Option(help="NUMA node, or a list of them")] = None,
    cpus: Annotated[str | None, typer.Option(help="CPUs, as 0-7,64-71")] = None,
    cpus_only: Annotated[bool, typer.Option("--cpus-only", help="leave the memory's place to the kernel")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="say on stderr what was bound as one line of JSON")] = False,
) -> None:
    """Bind, then become COMMAND. Its exit code is this one's."""
    import orjson

    from redline.cli.show import stderr
    from redline.node.gpu import gpu_addresses
    from redline.node.live import LiveSys
    from redline.node.pin import Binding, binding, pin

    to = binding(
        LiveSys(),
        gpus=_list("--gpu", gpu),
        nodes=_list("--node", node),
        cpus=_list("--cpus", cpus),
        cpus_only=cpus_only,
        addresses=gpu_addresses() if gpu else (),
    )

    def said(done: Binding) -> None:
        # stdout belongs to the command
        console = stderr()
        if as_json:
            console.out(orjson.dumps(done.as_dict() | {"command": argv}).decode(), highlight=False)
        else:
            console.print(f"pinned to {done}", markup=False, soft_wrap=True)

    pin(argv, to, said)


def _list(flag: str, value: str | None) -> list[int]:
    from redline.errors import UsageError
    from redline.node.tree import cpu_list

    found = cpu_list(value)
    if value is not None and not found:
        raise UsageError(f"{flag} {value!r} is no list of numbers", fix=f"{flag} 0 or {flag} 0-3,8")
    return found
