"""Writes the pages of the documentation that are tables of what the code says. `--check` only tells whether they are fresh."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from redline import errors
from redline.analyse.peers.tools import PEER_DEFINITIONS
from redline.analyse.verdict import RULES
from redline.node.tunables.table import TUNABLES
from redline.node.tunables.tunable import Profile, Tunable, Want
from redline.sampled import SAMPLED
from redline.spec.experiment import Experiment
from redline.spec.overrides import FLAGS
from redline.units import DEFINITIONS

MADE = "<!-- made by scripts/make_docs.py: change the code, not this page -->\n"


def definitions() -> str:
    rows = "\n".join(f"| `{d.id}` | {d.unit} | {d.text} | {d.better} |" for d in DEFINITIONS.values())
    peers = "\n".join(f"| `{d.id}` | {d.unit} | {d.text} | {d.differs} |" for d in PEER_DEFINITIONS.values())
    return f"""# What a number means

Every number that redline shows carries the id of its definition. The digit after `@` is the version: a definition that
changes gets a new one, so two results with the same id may be compared.

| id | unit | definition | better |
|---|---|---|---|
{rows}

Percentiles count failed requests as +∞ in the headline, so a server cannot look fast by failing; the percentiles of the
successful requests alone stand second. Requests that redline itself cut off at the end of a load point are neither: they
are censored, and the verdict says so when there are too many of them. Warm-up requests are kept and left out.

Tokens are counted by the server's own `usage` where it sends one, else by its tokenizer, else by ours; the source is
stored with every request. Several tokens in one chunk arrive together, and the tokens-per-chunk histogram says how many.

Times are taken on arrival by the kernel (`SO_TIMESTAMPNS`); where that cannot be had the stamp is taken in user space and
labelled as such.

## Other tools' numbers

`redline report --as TOOL` recomputes what another tool would have reported, from the same raw log; see
[Other tools](peers.md). The number after `@` is the tool's version whose source says so.

| id | unit | definition | beside redline's own |
|---|---|---|---|
{peers}
"""


def error_page() -> str:
    tree = inspect.getdoc(errors) or ""
    return f"# Errors and exit codes\n\nEvery error says what happened, what it means and what to do.\n\n```text\n{tree}\n```\n"


def experiment() -> str:
    groups: dict[str, list[str]] = {}
    for flag in FLAGS:
        names = f"`{flag.name}`" + (f" / `{flag.negative}`" if flag.negative else "")
        text = flag.help.replace("|", "\\|")
        choices = f" ({', '.join(flag.choices)})" if flag.choices else ""
        groups.setdefault(flag.group, []).append(f"| {names} | `{flag.field}` | {text}{choices} |")
    tables = "\n\n".join(
        f"## {group}\n\n| flag | field | |\n|---|---|---|\n" + "\n".join(rows) for group, rows in groups.items()
    )
    return f"""# The experiment

{inspect.getdoc(Experiment)}

An experiment is a YAML file, flags, or both: flags win over the file. `redline compare … --print-experiment` writes the
file, `-f` reads it back. Unknown fields are errors, with the line and the field that was probably meant.

{tables}
"""


_TOPICS = {
    "outcome": "How the point went",
    "warm": "Was it warm?",
    "client": "Server, or load generator?",
    "calibrated": "What the calibration says",
    "asked": "What was asked, and what was had",
    "traffic": "Changing load and traces",
    "tokens": "Tokens",
    "cache": "The prefix cache, and who else was served",
    "gone": "Clients that are gone",
    "quality": "What the answers look like",
    "box": "The box",
}


def rules() -> str:
    """Every rule of the verdict, from its own docstring."""
    tables: dict[str, list[str]] = {}
    for rule in RULES:
        topic = rule.__module__.rpartition(".")[2]
        text = " ".join((inspect.getdoc(rule) or "").split()).replace("|", "\\|")
        tables.setdefault(topic, []).append(f"| `{rule.__name__}` | {text} |")
    return "\n\n".join(
        f"### {_TOPICS.get(topic, topic)}\n\n| rule | when it speaks, and why |\n|---|---|\n" + "\n".join(rows)
        for topic, rows in tables.items()
    )


def trust() -> str:
    return TRUST.replace("{rules}", rules())


TRUST = """# May this number be believed?

Every load point gets a verdict. It is the worst that any rule below says, and every reason is shown with it.

| verdict | means |
|---|---|
| `valid` | no rule had anything to say against the numbers; what is worth knowing is said all the same |
| `degraded` | the numbers hold with the reservation given |
| `client-bound` | they measure the load generator, not the server |
| `invalid` | they mean nothing; what was measured is kept all the same |

## What the client knows about itself

- **Calibration.** Before each kind of load point redline loads its own paced server in the same way: same clients or rate, same
  endpoint and way of answering (of several classes those that most requests have), same prompt size, same stamps, same number of
  workers, for `--calibrate` seconds (2; 0 leaves it out, and the verdict says so without being moved by it). The paced server runs in a process of its own and keeps the true time of everything it sent, so the difference is the client's own error. It
  stands beside the latencies, not inside their intervals. When chunks came more than a fifth faster than they were calibrated, it is done
  again at the real rate, afterwards. A flood tells how many chunks a second one core of this client takes.
- **Loop lag.** A beat every 20 ms inside each load worker: how late its loop gets to what is due (p50, p99, worst).
- **Send lag.** When a request was due, and when its last byte was handed to the kernel; connecting is counted apart.
- **Read lag.** How long bytes lay in the kernel before they were read: the error of a client that stamps after its read. With
  stamps of the kernel or of packets it moves no latency.
- **CPU** of the busiest load worker and of redline itself, bytes that waited between them, and requests that were due before they
  were made, or never left.

What calibration cannot see: a network between client and server, and what the engine's own work does to a client on the same box.
For the latter look at the lags of the real point; for the former there is no remedy but a client close to the server.

## From when is a latency counted?

From the **intended** start: when the schedule wanted the request to leave, or when its client became free. The time from the actual
send is kept too (`ttft_ms/sent@1`, `e2e_ms/sent@1`). A client that falls behind, and a client that caps its requests in flight, wait
before they send: from the send everything looks fine (vLLM #54101: TTFT p99 of 507 ms from the send, 3,330 ms from the schedule).

```bash
redline bench --url http://127.0.0.1:8000/v1 --model NAME --rate 20 --max-in-flight 64
```

`--max-in-flight` caps an open loop. What is due beyond it waits in the client and keeps its due time; the verdict says how many
waited and how far the two clocks are apart, and how many never left. Split over several load workers, each gets its part of the cap.

A failed request counts as +∞ in every headline percentile (`inf` in JSON): a server cannot look fast by failing. What was cut off
when the point ended is neither a success nor a failure; the verdict says when it would have moved a percentile.

A percentile that too few values make their maximum (fewer than 100 for p99, 20 for p95, 10 for p90) is marked † wherever it
stands: points, stages, turns, classes, steps of a search. The verdict speaks of it for the p99 of a whole point only (`few`): a
class or a stage with few requests takes nothing from the others. With several starts the one with the fewest counts.

## What is not judged

- Bytes unread in each socket are not sampled: read lag tells how late they were read, which is what matters to a stamp.
- A box that hides its governor, its steal time or its throttling (most virtual machines) is not held against the numbers: what
  cannot be read is left out. `redline doctor` says what this box does not tell.
- Who else used the CPUs is judged only where the engine's processes are known: engines that redline started.

## The rules

{rules}
"""


def node_settings() -> str:
    """Every row of the table of settings, by group."""
    tables: dict[str, list[str]] = {}
    for row in TUNABLES:
        wants = "<br>".join(f"{who}: {_wanted(want)}" for who, want in _alike(row.wants))
        sources = "; ".join(f"{source.ref} ({source.date})" for source in row.sources)
        notes = [row.effect] + ([f"*{row.advice}*"] if row.advice else [])
        cells = (f"`{row.id}`<br>{row.title}", wants, row.severity, "<br>".join(notes), _kept(row), sources)
        tables.setdefault(row.group, []).append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    head = "| setting | wanted | weight | what is expected, and *what to do by hand* | kept by | from |\n|---|---|---|---|---|---|\n"
    body = "\n\n".join(f"## {group}\n\n{head}" + "\n".join(rows) for group, rows in tables.items())
    return f"""# The node's settings

{len(TUNABLES)} rows; [the node](node.md) says what is done with them. A date is that of the version named, else of when the
source was read. What is wanted may be fitted to the box: `≥ 0` of a link means all the lanes that it has, of a clock the
highest that there is. Claims that contradict each other stand side by side: measure.

{body}
"""


def _alike(wants: Mapping[Profile, Want | None]) -> list[tuple[str, Want]]:
    """Profiles that want the same, together."""
    groups: dict[Want, list[str]] = {}
    for profile, want in wants.items():
        if want:
            groups.setdefault(want, []).append(profile)
    return [("all" if len(who) == len(wants) else ", ".join(who), want) for want, who in groups.items()]


def _wanted(want: Want) -> str:
    words = " or ".join(f"`{value}`" for value in want.values if value)
    return {"at least": "≥ ", "at most": "≤ "}.get(want.op, "") + (words or "as the box has it")


def _kept(row: Tunable) -> str:
    """Where the value is kept over a boot."""
    return f"{row.persist} `{row.persist_key}`" if row.persist != "none" else "by hand" if row.write == "none" else "-"


_SAMPLERS = {
    "gpu": "The GPU, by NVML",
    "gpm": "The GPU's own activity counters, by NVML GPM (Hopper and later)",
    "host": "The host, the engine's processes, and redline itself",
    "metrics": "The engine, by its `/metrics`",
    "causes": "What may hold up an engine, 30 times a second with `--explain`",
    "client": "The load generator",
    "each": "What the samplers cost",
}


def telemetry_names() -> str:
    """Everything that samplers measure, by sampler."""
    tables: dict[str, list[str]] = {}
    for one in SAMPLED.values():
        labels = ", ".join(f"`{label}`" for label in one.labels)
        tables.setdefault(one.sampler, []).append(f"| `{one.name}` | {one.unit} | {labels} | {one.text} |")
    head = "| name | unit | labels | |\n|---|---|---|---|\n"
    body = "\n\n".join(f"## {_SAMPLERS[sampler]}\n\n{head}" + "\n".join(rows) for sampler, rows in tables.items())
    return f"""# Telemetry: names and units

{len(SAMPLED)} names; [Telemetry](telemetry.md) says how they come about. A share is 0 to 1. A rate is over the time since the value
before. A counter is kept as it is, so its difference over any stretch of time can be had. The label `mig` is there on MIG
instances alone. Beside these, every counter and gauge of an engine's `/metrics` is kept under its own name as `server.NAME`, and
what DCGM tells as `dcgm.NAME`.

{body}
"""


PAGES: dict[str, Callable[[], str]] = {
    "definitions.md": definitions,
    "errors.md": error_page,
    "experiment.md": experiment,
    "node-settings.md": node_settings,
    "telemetry-names.md": telemetry_names,
    "trust.md": trust,
}


def main(check: bool) -> int:
    stale = []
    for name, page in PAGES.items():
        path, text = Path("docs") / name, MADE + page()
        if not path.exists() or path.read_text() != text:
            stale.append(name)
            if not check:
                path.write_text(text)
    if stale:
        print(("stale, run scripts/make_docs.py: " if check else "wrote ") + ", ".join(stale))
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv))
