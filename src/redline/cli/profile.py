"""`redline profile`: where a decode step and a prefill step go, kernel by kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from redline.cli.profile_engines import Asked, engines_of, model_of
from redline.cli.profile_files import write_profile

if TYPE_CHECKING:
    from redline.analyse.profile.record import Profile
    from redline.report.section import Section
    from redline.spec.engine import EngineSpec
    from redline.spec.model import ModelSpec
    from redline.tune.profile.profile import Options, Profiled

Model = Annotated[str | None, typer.Argument(help="folder, hub id, bundled:NAME or shape:NAME")]
Flags = Annotated[
    list[str] | None, typer.Option("--flag", metavar="[ENGINE.]FLAG=VALUE", help="a flag of the engine; repeatable")
]
Also = Annotated[
    list[str] | None,
    typer.Option("--also", metavar="ENGINE:FLAG=VALUE[,…]", help="one more configuration of an engine; repeatable"),
]
Lengths = Annotated[str, typer.Option(help="tokens of context, such as 4096,8192,16384")]


def command(
    model: Model = None,
    engine: Annotated[str | None, typer.Option("--engine", "-e", help="redline, transformers, vllm, …")] = None,
    compare: Annotated[str | None, typer.Option(help="several side by side: transformers,vllm,redline")] = None,
    url: Annotated[str | None, typer.Option(help="a running server that has /start_profile")] = None,
    trace: Annotated[Path | None, typer.Option(help="take a recorded one apart: Chrome or nsys SQLite")] = None,
    batch: Annotated[str, typer.Option(help="sequences that decode together, such as 1,8,64")] = "1",
    context: Lengths = "512",
    prefill_batch: Annotated[str, typer.Option(help="prompts computed together")] = "1",
    phase: Annotated[str, typer.Option(help="decode, prefill or both")] = "decode,prefill",
    steps: Annotated[int, typer.Option(help="decode steps that are recorded")] = 16,
    flag: Flags = None,
    also: Also = None,
    python: Annotated[str | None, typer.Option(help="interpreter or environment that has the engines")] = None,
    engine_python: Annotated[
        list[str] | None, typer.Option(metavar="ENGINE=PATH", help="for one engine; repeatable")
    ] = None,
    engine_env: Annotated[list[str] | None, typer.Option(metavar="ENGINE.NAME=VALUE", help="repeatable")] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, float32, bfloat16 or float16")] = None,
    with_: Annotated[str, typer.Option("--with", help="torch (the engine's own profiler) or nsys")] = "torch",
    trace_dir: Annotated[Path | None, typer.Option(help="with --url: where that server writes its traces")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="folder for notes, charts, traces")] = None,
    drop_traces: Annotated[bool, typer.Option("--drop-traces", help="keep what was found, not the traces")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="what was found, as JSON")] = False,
) -> None:
    if trace is not None:
        _one_trace(trace, output, as_json)
        return
    asked = Asked(engine, compare, url, flag or [], also or [], python, engine_python or [], engine_env or [])
    options = _options(batch, context, prefill_batch, phase, steps, with_, trace_dir, not drop_traces)
    _profile(model, dtype, asked, options, output or _fresh_folder(), as_json)


def _profile(model: str | None, dtype: str | None, asked: Asked, options: Options, folder: Path, as_json: bool) -> None:
    from redline.errors import UsageError

    if model is None:
        raise UsageError("which model?", fix="redline profile bundled:tiny --engine redline, or --trace FILE")
    profiled = _run(model_of(model, dtype), engines_of(asked), folder, options)
    written = write_profile(profiled, folder)
    if as_json:
        from redline.cli.show import print_json
        from redline.tune.profile.profile import without_nan

        print_json(without_nan({**profiled.profile.as_dict(), "files": [str(path) for path in written]}))
    else:
        _show(profiled.profile, written)
    _end(profiled.profile)


def _options(
    batch: str, context: str, prefill: str, phase: str, steps: int, with_: str, trace_dir: Path | None, keep: bool
) -> Options:
    from redline.errors import UsageError
    from redline.tune.profile.profile import Options

    if with_ not in ("torch", "nsys"):
        raise UsageError(f"there is no profiler {with_!r}", fix="--with torch or --with nsys")
    return Options(
        batches=_whole("--batch", batch),
        contexts=_whole("--context", context),
        prefill_batches=_whole("--prefill-batch", prefill),
        phases=tuple(part.strip() for part in phase.split(",") if part.strip()),
        steps=steps,
        nsys=with_ == "nsys",
        trace_dir=trace_dir,
        keep_traces=keep,
    )


def _whole(name: str, text: str) -> tuple[int, ...]:
    from redline.errors import UsageError

    try:
        return tuple(dict.fromkeys(int(part) for part in text.replace("_", "").split(",") if part.strip()))
    except ValueError:
        raise UsageError(f"{name} {text!r} is no list of whole numbers", fix=f"{name} 1,8,64") from None


def _fresh_folder() -> Path:
    import time

    return Path("redline-results") / "profiles" / time.strftime("%Y%m%d-%H%M%S")


def _run(model: ModelSpec, specs: list[EngineSpec], folder: Path, options: Options) -> Profiled:
    from rich.markup import escape

    from redline.cli.show import stderr
    from redline.tune.profile.profile import profile

    console = stderr()

    def say(engine: str, text: str) -> None:
        console.print(f"[bold]{escape(engine)}[/] {escape(text)}")

    return profile(model, specs, folder, options, say)


def _show(profile: Profile, written: list[Path]) -> None:
    from redline.cli.show import stderr
    from redline.report.profile.tables import tables

    for section in tables(profile, brief=True):
        print_section(section)
    for path in written:
        stderr().print(f"wrote {path}", markup=False)


def print_section(section: Section) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    console.print(f"\n[bold]{escape(section.title)}[/]")
    if section.rows:
        table = Table(*map(escape, section.heads), box=None, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
        for row in section.rows:
            table.add_row(*(escape(cell.replace("**", "")) for cell in row))
        console.print(table)
    for note in section.notes:
        console.print(f"[dim]{escape(note)}[/]")


def _one_trace(path: Path, output: Path | None, as_json: bool) -> None:
    """What somebody else recorded."""
    from redline.cli.show import print_json, stderr
    from redline.report.profile.tables import trace_sections
    from redline.report.profile.timeline import timeline_html
    from redline.tune.profile.profile import profile_trace, without_nan

    with _progress(path) as step:
        reading = profile_trace(path, step)
    assert reading.analysed is not None
    if as_json:
        import dataclasses

        phases = [dataclasses.asdict(one) for one in reading.analysed.phases]
        print_json(
            without_nan({"trace": str(path), "read": reading.sentence, "notes": reading.notes, "phases": phases})
        )
    else:
        for section in trace_sections(path.name, reading.analysed.phases, (reading.sentence, *reading.notes)):
            print_section(section)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        page = output / "timeline.html"
        page.write_text(timeline_html(path.name, [(path.name, reading.analysed)]))
        stderr().print(f"wrote {page}", markup=False)


@contextmanager
def _progress(path: Path) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal; elsewhere a line every ten seconds."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    from redline.cli.show import stderr

    console = stderr()
    if not console.is_terminal:
        yield _lines(path.name)
        return
    columns = (TextColumn("reading {task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(path.name)
        yield lambda done, whole: bar.update(task, completed=done, total=whole)


def _lines(name: str) -> Callable[[int, int], None]:
    import time

    from redline.cli.show import stderr

    said = time.monotonic()

    def step(done: int, whole: int) -> None:
        nonlocal said
        if time.monotonic() - said > 10:
            said = time.monotonic()
            stderr().print(f"reading {name}: {done / 1e6:,.0f} of {whole / 1e6:,.0f} MB", markup=False)

    return step


def _end(profile: Profile) -> None:
    """The exit code: an engine that failed counts, one that is not here does not unless it was the only one."""
    from redline.errors import EngineError, Unsupported

    failed = [one for one in profile.engines if one.failed]
    if failed:
        raise EngineError(f"{failed[0].label} failed", why=failed[0].failed)
    if all(one.skipped for one in profile.engines):
        raise Unsupported("no engine could be profiled here", why=profile.engines[0].skipped)
