"""A profile as tables: the same for the terminal and the notes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from redline.analyse.profile.breakdown import Breakdown
from redline.analyse.profile.classes import CLASSES
from redline.analyse.profile.record import EngineProfile, PhaseProfile, Profile
from redline.report.numbers import NONE, data_size, number
from redline.report.section import Section

GAP = "gaps"
TOP = 8


def tables(profile: Profile, *, brief: bool = False) -> list[Section]:
    """Where a step goes, what holds it, attention by context, KV memory, the kernels that take longest. `brief` leaves
    the last one out."""
    made = where_sections(profile)
    others = (regime_section(profile), attention_section(profile), memory_section(profile))
    made += [section for section in others if section is not None]
    if not brief:
        made += [kernels_section(engine, phase) for engine, phase in every(profile) if phase.breakdown]
    return made


def every(profile: Profile) -> Iterator[tuple[EngineProfile, PhaseProfile]]:
    """By phase, batch and context, so that engines stand under each other."""
    pairs = [(engine, phase) for engine in profile.engines for phase in engine.phases]
    order = {engine.label: place for place, engine in enumerate(profile.engines)}
    yield from sorted(pairs, key=lambda pair: (*_key(pair[1]), order[pair[0].label]))


def _key(phase: PhaseProfile) -> tuple[str, int, int]:
    return phase.phase, phase.asked, phase.batch


def what(phase: PhaseProfile) -> str:
    """`decode, batch 8, context 4,096`."""
    return f"{phase.phase}, batch {phase.batch}, context {phase.asked:,}"


def short(phase: PhaseProfile) -> str:
    """`decode 8×4096`."""
    return f"{phase.phase} {phase.batch}×{phase.asked}"


def where_sections(profile: Profile) -> list[Section]:
    """For each phase, batch and context: the engines side by side."""
    groups: dict[tuple[str, int, int], list[tuple[EngineProfile, PhaseProfile]]] = {}
    for engine, phase in every(profile):
        groups.setdefault(_key(phase), []).append((engine, phase))
    made = []
    for pairs in groups.values():
        columns = [_column(phase) for _, phase in pairs]
        present = [name for name in CLASSES if any(name in column for column in columns)]
        names = (*_BEFORE, *present, *_AFTER)
        rows = tuple((name, *(column.get(name, NONE) for column in columns)) for name in names)
        heads = ("ms", *(engine.label for engine, _ in pairs))
        made.append(Section("where", f"Where a step goes: {what(pairs[0][1])}", heads, rows, (), True))
    if made:
        made[-1] = replace(made[-1], notes=(*_where_notes(profile), *_engine_notes(profile)))
    else:
        made.append(Section("where", "Nothing was recorded", (), (), tuple(_engine_notes(profile)), True))
    return made


_BEFORE = ("step", "step, recorded")
_AFTER = (GAP, "kernels", "launches", "µs per token")


def _column(phase: PhaseProfile) -> dict[str, str]:
    part = phase.breakdown
    column = {"step": number(phase.step_ms), "µs per token": number(phase.per_token_ms * 1e3)}
    if part is None:
        return column
    column["step, recorded"] = number(part.step_us / 1e3)
    column |= {name: _share(us, part.step_us) for name, us in part.by_class.items()}
    column[GAP] = _share(part.gap_us, part.step_us)
    return column | {"kernels": f"{part.kernels:,.0f}", "launches": f"{part.launches:,.0f}"}


def _where_notes(profile: Profile) -> Iterator[str]:
    on_device = [part.device for _, one in every(profile) if (part := one.breakdown) is not None]
    yield (
        "step: without the profiler, by the client; the rest is of the recorded step. Where several kernels run at once"
        " the time is counted once. kernels and launches are per step: a CUDA graph is one launch."
    )
    if any(on_device):
        yield (
            "Gaps are time in which nothing ran on the device. The profiler slows the host, so a recorded step has"
            " larger ones; `host ms` below is without it."
        )
    if not all(on_device):
        yield (
            "On a CPU, kernels are torch's operators on the engine's thread, launches those that no other contains, and"
            " gaps what lies between them: Python, the engine, the profiler, which slows a small model a great deal."
        )


def _engine_notes(profile: Profile) -> Iterator[str]:
    for engine in profile.engines:
        yield from sorted({f"{engine.label}: {note}" for one in engine.phases for note in one.notes})
        yield from (f"{engine.label}: {text}" for text in (engine.skipped, engine.failed) if text)
        if unread := [one.readout for one in engine.phases if one.breakdown is None]:
            yield f"{engine.label}: {unread[0]}"


def regime_section(profile: Profile) -> Section | None:
    rows, whys = [], []
    for engine, phase in every(profile):
        stand = phase.standing
        host = number(phase.host_ms) if phase.host_ms is not None else NONE
        head = (short(phase), engine.label, number(phase.step_ms))
        if stand is None:
            rows.append((*head, NONE, NONE, host, "not measured"))
            continue
        ceiling = NONE if math.isnan(stand.share) else f"{stand.share:.0%}"
        rows.append((*head, number(stand.floor_s * 1e3), ceiling, host, stand.regime))
        whys.append(f"{short(phase)} {engine.label}: {stand.why}")
    heads = ("batch × context", "engine", "step ms", "floor", "of it", "host", "what holds it")
    notes = [
        "floor: ms that weights, KV cache and FLOPs of the model's config take at the ceilings measured on this card."
        " host: ms of the step without the profiler in which no kernel runs (CPU: its share of gaps).",
        *whys,
        *profile.notes,
    ]
    return Section("regime", "What holds it", heads, tuple(rows), tuple(notes), True) if rows else None


def attention_section(profile: Profile) -> Section | None:
    """Kernel time of attention by context and engine."""
    rows = []
    for engine, phase in every(profile):
        part = phase.breakdown
        us = part.by_class.get("attention", 0.0) if part else 0.0
        if part is None or not us:
            continue
        share = f"{us / part.busy_us:.0%}" if part.busy_us else NONE
        seen = next(iter(part.attention), NONE)
        rows.append((short(phase), engine.label, number(us / 1e3), share, number(us / max(1.0, part.tokens)), seen))
    heads = ("batch × context", "engine", "ms", "of kernels", "µs/token", "backend, by kernel names")
    notes = [f"{one.label} names its backend: {one.backend}" for one in profile.engines if one.backend]
    return Section("attention", "Attention", heads, tuple(rows), tuple(notes), True) if rows else None


def memory_section(profile: Profile) -> Section | None:
    rows: list[tuple[str, ...]] = []
    sources: dict[str, None] = {}
    for engine in profile.engines:
        for one in engine.memory:
            measured = one.measured_bytes
            ratio = measured / one.blocks_bytes if measured is not None and one.blocks_bytes > 0 else math.nan
            known = _size(measured) if measured is not None else NONE
            shown = NONE if math.isnan(ratio) else f"{ratio:.2f}×"
            size = f"{one.sequences} × {one.tokens:,.0f}"
            rows.append((engine.label, size, _size(one.formula_bytes), _size(one.blocks_bytes), known, shown))
            sources[f"{engine.label}: {one.source.partition(',')[0]}"] = None
    heads = ("engine", "sequences × tokens", "formula", "in whole blocks", "measured", "ratio")
    note = (
        "formula: 2 · layers · KV heads · head size · bytes per element, for every token (MLA: the latent). The ratio"
        " is of what was measured to the formula in whole blocks."
    )
    return Section("memory", "KV cache", heads, tuple(rows), (note, *sources), True) if rows else None


def _size(value: float) -> str:
    return f"{number(value / 1e6)} MB" if value < 1e9 else data_size(value)


def kernels_section(engine: EngineProfile, phase: PhaseProfile) -> Section:
    assert phase.breakdown is not None
    title = f"{engine.label}: {what(phase)}"
    return replace(_kernels(phase.breakdown), key=f"kernels-{engine.label}", title=title)


def _kernels(part: Breakdown) -> Section:
    rows = [
        (
            one.name,
            one.kind,
            number(one.us),
            f"{one.us / part.step_us:.1%}",
            number(one.calls),
            number(_each(one.us, one.calls)),
        )
        for one in part.top[:TOP]
    ]
    unit = "kernel" if part.device else "operator"
    heads = (unit, "class", "µs/step", "of the step", "calls/step", "µs/call")
    return Section("kernels", "", heads, tuple(rows), tuple(_gap_note(part)))


def _each(us: float, calls: float) -> float:
    return us / calls if calls else math.nan


def _gap_note(part: Breakdown) -> Iterator[str]:
    yield (
        f"{part.steps} steps of {number(part.step_us)} µs (median {number(part.step_us_p50)}); gap between"
        f" {'kernels' if part.device else 'operators'}: median {number(part.gap_us_p50)} µs, largest"
        f" {number(part.gap_us_max)} µs"
        + (f"; {number(part.hidden_us)} µs ran under other kernels" if part.hidden_us > 0.5 else "")
    )


def trace_sections(name: str, phases: Sequence[Breakdown], remarks: Sequence[str]) -> list[Section]:
    """A single trace: phases, then the kernels of each."""
    present = [kind for kind in CLASSES if any(kind in part.by_class for part in phases)]
    lines: list[tuple[str, Callable[[Breakdown], str]]] = [
        ("steps", lambda part: f"{part.steps:,}"),
        ("ms of a step", lambda part: number(part.step_us / 1e3)),
        *((kind, lambda part, kind=kind: _share(part.by_class.get(kind, 0.0), part.step_us)) for kind in present),
        (GAP, lambda part: _share(part.gap_us, part.step_us)),
        ("kernels", lambda part: f"{part.kernels:,.0f}"),
        ("launches", lambda part: f"{part.launches:,.0f}"),
        ("requests", lambda part: number(part.requests)),
        ("tokens", lambda part: number(part.tokens)),
    ]
    rows = tuple((head, *(cell(part) for part in phases)) for head, cell in lines)
    heads = ("per step", *(part.phase for part in phases))
    made = [Section("where", name, heads, rows, tuple(remarks), True)]
    for part in phases:
        made.append(replace(_kernels(part), title=f"{part.phase}: what takes longest"))
    return made


def _share(us: float, whole: float) -> str:
    return f"{number(us / 1e3)} ({us / whole:.0%})" if us else NONE
