"""The one-page profiling notes: what was found in sentences, the tables, the charts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from redline.analyse.profile.record import EngineProfile, PhaseProfile, Profile
from redline.report.numbers import number
from redline.report.profile.tables import every, tables, what
from redline.report.section import Section


def notes(profile: Profile, pictures: Sequence[tuple[str, str]] = (), timeline: str = "") -> str:
    """Markdown. `pictures` are (title, path)."""
    parts = [f"# Profile of {profile.model}", "", f"{profile.description}. {_where(profile)}", ""]
    parts += [f"- {line}" for line in findings(profile)]
    parts.append("")
    for title, path in pictures:
        parts += [f"![{title}]({path})", ""]
    if timeline:
        parts += [f"[The timeline of one step of each]({timeline})", ""]
    for section in tables(profile):
        parts += [*table(section), ""]
    return "\n".join(parts)


def _where(profile: Profile) -> str:
    engines = ", ".join(f"{one.label} {one.version}".strip() for one in profile.engines)
    return f"{engines} on {profile.card or 'a box that does not name its card'}, {profile.taken_wall[:10]}"


def findings(profile: Profile) -> Iterator[str]:
    """A sentence for each phase of each engine, then the comparison."""
    for engine, phase in every(profile):
        if phase.breakdown is None:
            continue
        yield f"**{engine.label}**, {what(phase)}: {_sentence(phase)}"
    yield from _compared(profile)
    for engine in profile.engines:
        if text := _attention(engine):
            yield text


def _sentence(phase: PhaseProfile) -> str:
    part = phase.breakdown
    assert part is not None
    largest = sorted(part.by_class.items(), key=lambda pair: -pair[1])[:2]
    classes = " and ".join(f"{name} {us / part.step_us:.0%}" for name, us in largest)
    text = f"{number(phase.step_ms)} ms a step; {classes}, gaps {part.gap_share:.0%} of the recorded step"
    if phase.standing is not None:
        text += f"; {phase.standing.regime}, {phase.standing.why}"
    return text


def _compared(profile: Profile) -> Iterator[str]:
    """The fastest against the others, phase by phase: where the difference lies."""
    groups: dict[tuple[str, int, int], list[tuple[EngineProfile, PhaseProfile]]] = {}
    for engine, phase in every(profile):
        if phase.breakdown is not None:
            groups.setdefault((phase.phase, phase.batch, phase.asked), []).append((engine, phase))
    for pairs in groups.values():
        pairs = sorted(pairs, key=lambda pair: pair[1].step_ms)
        best_engine, best = pairs[0]
        for engine, phase in pairs[1:]:
            more = phase.step_ms - best.step_ms
            yield (
                f"{what(phase)}: {engine.label} takes {number(more)} ms more than {best_engine.label}"
                f" ({phase.step_ms / best.step_ms:.2f}×){_because(phase, best)}"
            )


def _because(phase: PhaseProfile, best: PhaseProfile) -> str:
    """The two classes that differ most, gaps by the step without the profiler where that can be told."""
    part, other = phase.breakdown, best.breakdown
    if part is None or other is None or part.device != other.device:
        return ""
    names = set(part.by_class) | set(other.by_class)
    differ = {name: (part.by_class.get(name, 0) - other.by_class.get(name, 0)) / 1e3 for name in names}
    if phase.host_ms is not None and best.host_ms is not None:
        differ["host"] = phase.host_ms - best.host_ms
    most = [(name, ms) for name, ms in sorted(differ.items(), key=lambda pair: -pair[1]) if ms > 0][:2]
    return ": " + ", ".join(f"{name} +{number(ms)} ms" for name, ms in most) if most else ""


def _attention(engine: EngineProfile) -> str:
    seen = engine.backends()
    if not seen and not engine.backend:
        return ""
    said = engine.backend or "nothing"
    return (
        f"attention of {engine.label}: it names {said}; its kernels are {', '.join(seen) or 'not told by their names'}"
    )


def table(section: Section) -> list[str]:
    """As Markdown."""
    lines = [f"## {section.title}", ""]
    if section.rows:
        lines += ["| " + " | ".join(section.heads) + " |", "|" + "---|" * len(section.heads)]
        lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in section.rows]
    for note in section.notes:
        lines += ["", note]
    return lines
