"""What bench/node_settings.py kept, as the section "On a GPU host" of docs/results/node.md.

    python bench/node_table.py DIR|DIR.tar.gz [--title "On a GPU host"]

Every setting is in it, those without an effect and those that could not be tested, too. A change is that of the tried
value against the present one, with its 95 % interval.
"""

from __future__ import annotations

import argparse
import json
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redline.report.numbers import number

PARTS = {
    "live": ("changed while the engine runs", ("ttft_ms.p50", "itl_ms.p50", "itl_ms.p99", "output_tokens_per_s")),
    "start": ("the engine started for every round", ("ttft_ms.p50", "itl_ms.p50", "output_tokens_per_s")),
    "http": ("bursts of new connections", ("e2e_ms.p50", "e2e_ms.p99", "failed_share")),
    "load": ("start of the engine", ("load_s", "weights_s")),
}
NAMES = {
    "ttft_ms.p50": "TTFT p50", "itl_ms.p50": "ITL p50", "itl_ms.p99": "ITL p99", "output_tokens_per_s": "tokens/s",
    "e2e_ms.p50": "connection p50", "e2e_ms.p99": "connection p99", "failed_share": "failed", "load_s": "start",
    "weights_s": "weights",
}  # fmt: skip
UNITS = {"load_s": "s", "weights_s": "s", "failed_share": ""}
MARKS = {"helps": "▲ helps", "hurts": "▼ hurts", "helps and hurts": "▲▼ both", "no measurable effect": "="}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=Path)
    parser.add_argument("--title", default="On a GPU host")
    asked = parser.parse_args()
    with folder(asked.result) as found:
        print("\n".join(section(found, asked.title)))
    return 0


@contextmanager
def folder(result: Path) -> Iterator[Path]:
    if result.is_dir():
        yield result
        return
    with tempfile.TemporaryDirectory() as place, tarfile.open(result) as packed:
        packed.extractall(place, filter="data")
        (only,) = Path(place).iterdir()
        yield only


def section(found: Path, title: str) -> Iterator[str]:
    yield f"## {title}\n"
    yield f"{box(read(found / 'facts.json'))}\n"
    if told := audited(read(found / "audit.json")):
        yield f"{told}\n"
    for part, (how, metrics) in PARTS.items():
        proven = read(found / f"prove-{part}.json")
        settings = proven.get("settings", [])
        if not settings:
            yield f"Part `{part}` was not run, or was cut short before it could say anything.\n"
            continue
        yield f"### {part}: {how}\n"
        yield from table(settings, metrics)
        yield ""
        yield f"{remarks(proven, settings)}\n"
    yield from how_it_ran(found)


def table(settings: list[dict[str, Any]], metrics: tuple[str, ...]) -> Iterator[str]:
    shown = [name for name in metrics if any(one["metric"] == name for proof in settings for one in proof["effects"])]
    if not shown:
        shown = list(metrics[:1])
    yield "| setting | now → tried | " + " | ".join(NAMES[name] for name in shown) + " | verdict | own signal |"
    yield "|---|---|" + "---|" * (len(shown) + 2)
    for proof in settings:
        effects = {one["metric"]: one for one in proof["effects"]}
        cells = [cell(effects.get(name), name) for name in shown]
        verdict = MARKS.get(proof["verdict"], proof["verdict"])
        if proof["verdict"] == "not testable here":
            verdict = f"not testable: {proof['why']}"
        place = f" ({proof['where']})" if proof["where"] else ""
        head = f"| `{proof['id']}`{place} | {proof['present']} → {proof['wanted']} | "
        yield head + " | ".join(cells) + f" | {verdict} | {signal(proof)} |"


def cell(one: Mapping[str, Any] | None, name: str) -> str:
    """`4.91 ms, +0.4 % [−0.9 … +1.7]`; bold where it is more than chance."""
    if one is None:
        return "–"
    ratio, interval = one["ratio"], one["interval"]
    if ratio is None or interval is None:
        difference, between = one["difference"], one["difference_interval"]
        if difference is None or between is None:
            return "–"
        text = f"{100 * difference:+.2g} points [{100 * between['low']:+.2g} … {100 * between['high']:+.2g}]"
    elif 0.5 <= ratio <= 2:
        low, high = (100 * (interval[end] - 1) for end in ("low", "high"))
        text = f"{100 * (ratio - 1):+.1f} % [{low:+.1f} … {high:+.1f}]"
    else:
        text = f"{ratio:.3g}× [{interval['low']:.3g} … {interval['high']:.3g}]"
    text = f"**{text}**" if one["verdict"] in ("helps", "hurts") else text
    before = "" if one["a"] is None or name == "failed_share" else f"{number(one['a'])} {UNITS.get(name, unit(name))}, "
    return before + text


def unit(name: str) -> str:
    return "ms" if "_ms" in name else "/s"


def signal(proof: Mapping[str, Any]) -> str:
    own = [one for one in proof["shifts"] if one["name"] == proof["signal"]]
    moved = [one for one in proof["shifts"] if one["moved"] and one not in own]
    told = [f"{one['name']} {number(one['present'])} → {number(one['wanted'])}" for one in (own + moved)[:2]]
    return "; ".join(told) or ("–" if not proof["signal"] else f"{proof['signal']} is not told here")


def remarks(proven: Mapping[str, Any], settings: list[dict[str, Any]]) -> str:
    rounds = sorted({proof["rounds"] for proof in settings if proof["effects"]})
    tested = sum(len(proof["effects"]) for proof in settings)
    finds = [
        one["detectable"] for proof in settings for one in proof["effects"]
        if one["metric"] in ("itl_ms.p50", "load_s") and one["detectable"] is not None
    ]  # fmt: skip
    least = ""
    if finds:
        low, high = (f"{100 * share:.2g}" for share in (min(finds), max(finds)))
        least = f" A change of ITL or start of {low} to {high} % would have been found four times in five."
    left = "" if not proven.get("left") else f" **Left changed: {', '.join(proven['left'])}.**"
    many = " or ".join(map(str, rounds)) or "no"
    return (
        f"{many} pairs of rounds each; {tested} effects were judged together, so that the whole table holds a false "
        f"alarm at most one time in twenty (Holm).{least} Run `{proven['run']}`, {proven['status']}.{left}"
    )


def box(facts: Mapping[str, Any]) -> str:
    """One sentence about what it was measured on."""
    cpu, gpu, memory = (facts.get(name) or {} for name in ("cpu", "gpu", "memory"))
    cards = gpu.get("devices", []) if "skipped" not in gpu else []
    names = f"{len(cards)} × {cards[0].get('name', '?')}, driver {gpu.get('driver', '?')}" if cards else "no GPU"
    size = memory.get("total_bytes")
    amount = f", {size / (1 << 30):.0f} GiB" if isinstance(size, int | float) else ""
    where = (facts.get("virtualisation") or {}).get("hypervisor") or ""
    words = [
        names, f"{cpu.get('model', '?')}, {cpu.get('threads', '?')} CPUs{amount}",
        f"kernel {(facts.get('kernel') or {}).get('release', '?')}", where if isinstance(where, str) else "",
    ]  # fmt: skip
    return f"{'; '.join(filter(None, words))}. Taken {str(facts.get('taken_wall', ''))[:10]}."


def audited(told: Mapping[str, Any]) -> str:
    counts = told.get("counts") or {}
    if not counts:
        return ""
    return "Audit (latency profile): " + ", ".join(f"{number} {state}" for state, number in counts.items()) + "."


def how_it_ran(found: Path) -> Iterator[str]:
    for path in sorted(found.glob("about-*.json")):
        about = read(path)
        asked = about.get("arguments", {})
        parts = ", ".join(f"{name} {seconds} s" for name, seconds in about.get("parts", {}).items())
        yield (
            f"`bench/node_settings.py`: {asked.get('model')}, {asked.get('clients')} clients, {asked.get('seconds')} s "
            f"a round, 128 tokens in, {asked.get('output_tokens')} out; {parts}.\n"
        )


def read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


if __name__ == "__main__":
    sys.exit(main())
