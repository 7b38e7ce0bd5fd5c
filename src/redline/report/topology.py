"""A picture of a box: NUMA nodes with what hangs on them, PCIe links, NVLink. Drawn as SVG, follows light and dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from redline.report import palette

Facts = Mapping[str, Any]

PAD, GAP = 20, 64
"""Inside of cards and between them: the distance between two nodes is written there."""
TILE_W, TILE_H, TILE_GAP = 124, 58, 14
HEAD = 62
"""Of a node's card: name, CPUs, memory."""
FONT = "Inter, 'Helvetica Neue', Helvetica, Arial, 'Liberation Sans', sans-serif"
_ACCENTS = {"gpu": 0, "nic": 2, "nvme": 4, "nvswitch": 3}


@dataclass(frozen=True)
class Tile:
    """A device: what it is called, two more lines, and whether the second of them is a complaint."""

    kind: str
    name: str
    what: str
    link: str
    bad: bool


@dataclass(frozen=True)
class Card:
    """A node. `columns` hang on one root port each, with a GPU on top; `loose` are the devices without a GPU beside."""

    title: str
    lines: tuple[str, ...]
    columns: tuple[tuple[Tile, ...], ...]
    loose: tuple[Tile, ...]

    @property
    def across(self) -> int:
        return max(3, min(4, max(len(self.columns), len(self.loose))))

    @property
    def width(self) -> int:
        return 2 * PAD + self.across * (TILE_W + TILE_GAP) - TILE_GAP

    @property
    def rows(self) -> list[Sequence[tuple[Tile, ...]]]:
        """Columns, as many side by side as there is room for, then the loose ones."""
        single = tuple((tile,) for tile in self.loose)
        rows: list[Sequence[tuple[Tile, ...]]] = []
        for columns in (self.columns, single):
            rows += [columns[at : at + self.across] for at in range(0, len(columns), self.across)]
        return rows

    @property
    def height(self) -> int:
        return HEAD + sum(_row_height(row) for row in self.rows) + PAD


def _row_height(row: Sequence[tuple[Tile, ...]]) -> int:
    return 22 + max(len(column) for column in row) * (TILE_H + 8)


def topology_svg(facts: Facts) -> str:
    """`facts` as `node.box.node_facts` gives them. Width and height are those of the box that is drawn."""
    cards = _cards(facts)
    across = 2 if len(cards) > 1 else 1
    wide = max(card.width for card in cards) if across > 1 else max(680, cards[0].width)
    width = 2 * PAD + across * wide + (across - 1) * GAP
    parts: list[str] = []
    top = 76
    for start in range(0, len(cards), across):
        line = cards[start : start + across]
        tall = max(card.height for card in line)
        for place, card in enumerate(line):
            parts += _draw_card(card, PAD + place * (wide + GAP), top, wide, tall)
        if len(line) == 2 and (far := _distance(facts, start)):
            parts += _draw_distance(PAD + wide, top + HEAD / 2, far)
        top += tall + PAD
    if band := _nvlink(facts):
        parts += _draw_band(width, top, band)
        top += 44
    title, subtitle = _titles(facts)
    head = [_text(PAD, 32, title, "title"), _text(PAD, 54, subtitle, "muted")]
    parts = [*head, *parts, *_legend(width, top + 12)]
    return _document(width, top + 36, parts, f"Topology of the box: {title}. {subtitle}")


def _cards(facts: Facts) -> list[Card]:
    names = {card.get("pci_address"): _short(card.get("name")) for card in facts["gpu"].get("devices", ())}
    speeds = {nic["name"]: nic.get("speed_mbit_per_s") for nic in _listed(facts.get("nics"))}
    sizes = {disk["name"]: disk.get("bytes") for disk in _listed(facts.get("disks"))}
    devices = _listed(facts.get("devices"))
    tiles = {device["address"]: _tile(device, names, speeds, sizes) for device in devices}
    cards = []
    for node in _listed(facts.get("nodes")):
        there = [device for device in devices if device["node"] == node["node"]]
        memory = f"{node['memory_bytes'] / 1e9:,.0f} GB" if node["memory_bytes"] else "no memory"
        cpus = f"CPUs {node['cpus']}" if node["cpus"] else "no CPUs"
        cards.append(_card(f"node {node['node']}", (cpus, memory), there, tiles))
    unknown = [device for device in devices if device["node"] is None]
    if unknown or not cards:
        cards.append(
            _card("node not told" if cards else "the box", ("the firmware does not say (-1)",), unknown, tiles)
        )
    return cards


def _card(title: str, lines: tuple[str, ...], devices: list[Facts], tiles: Mapping[str, Tile]) -> Card:
    """GPUs with what shares their root port as columns; the rest loose."""
    ports: dict[str, list[Facts]] = {}
    for device in devices:
        if device["kind"] != "nvswitch":
            port = device["path"][0] if len(device["path"]) > 1 else device["address"]
            ports.setdefault(port, []).append(device)
    order = list(_ACCENTS)
    columns: list[tuple[Tile, ...]] = []
    loose: list[Tile] = []
    for group in ports.values():
        group.sort(key=lambda device: (order.index(device["kind"]), device["address"]))
        found = tuple(tiles[device["address"]] for device in group)
        if found[0].kind == "gpu":
            columns.append(found)
        else:
            loose += found
    return Card(title, lines, tuple(columns), tuple(loose))


def _tile(device: Facts, names: Mapping[str, str], speeds: Mapping[str, Any], sizes: Mapping[str, Any]) -> Tile:
    link, kind = device["link"], device["kind"]
    name = f"GPU {device['index']}" if kind == "gpu" and device["index"] is not None else "/".join(device["names"])
    what = names.get(device["address"], "") if kind == "gpu" else ""
    if kind == "nic":
        speed = next((speeds[name] for name in device["names"] if isinstance(speeds.get(name), int)), None)
        what = "" if speed is None else f"{speed / 1000:g} Gbit/s"
    if kind == "nvme":
        size = sum(size or 0 for disk, size in sizes.items() if disk.startswith(f"{(*device['names'], '?')[0]}n"))
        what = f"{size / 1e12:.1f} TB" if size else ""
    best = _pcie(link["generation_max"], link["width_max"]) or _pcie(link["generation"], link["width"])
    bad = bool(device["narrow"])
    if bad:
        shown = f"PCIe {link['generation'] or '?'} ×{link['width']} of ×{link['width_max']}"
    elif device["slow_slot"]:
        shown, bad = f"slot: PCIe {link['slot_generation_max']} of {link['generation_max']}", True
    else:
        shown = best
    return Tile(kind, name or device["address"], what, shown, bad)


def _pcie(generation: int | None, width: int | None) -> str:
    return f"PCIe {generation} ×{width}" if generation and width else ""


def _titles(facts: Facts) -> tuple[str, str]:
    cpu, cards = facts["cpu"], facts["gpu"].get("devices", [])
    models: dict[str, int] = {}
    for card in cards:
        models[_short(card.get("name"))] = models.get(_short(card.get("name")), 0) + 1
    gpus = ", ".join(f"{count} × {name}" for name, count in models.items())
    drawn = sum(1 for device in _listed(facts.get("devices")) if device["kind"] == "gpu")
    gpus = gpus or f"{drawn or 'no'} GPU{'s' if drawn != 1 else ''}"
    threads = f"{cpu.get('cores', '?')} cores, {cpu.get('threads', '?')} threads"
    memory = facts["memory"].get("total_bytes", 0) / 1e9
    driver = facts["gpu"].get("driver")
    subtitle = f"{cpu.get('sockets', '?')} × {cpu.get('model', '?')} · {threads} · {memory:,.0f} GB"
    nodes = len(_listed(facts.get("nodes")))
    return f"{gpus} · {nodes} NUMA node{'s' if nodes != 1 else ''}", subtitle + (
        f" · driver {driver}" if driver else ""
    )


def _nvlink(facts: Facts) -> str:
    cards = [card for card in facts["gpu"].get("devices", ()) if card.get("nvlinks")]
    if not cards:
        return ""
    links = sorted({card["nvlinks"] for card in cards})
    where = " through NVSwitch" if any(card.get("nvlink_to") == "nvswitch" for card in cards) else ""
    count = "–".join(str(count) for count in (links if len(links) == 1 else (links[0], links[-1])))
    return f"NVLink{where} · {len(cards)} GPUs · {count} links each"


def _distance(facts: Facts, start: int) -> str:
    """From the left node to the right one, in the kernel's units: 10 is local."""
    nodes = _listed(facts.get("nodes"))
    if start + 1 >= len(nodes):
        return ""
    distances = str(nodes[start]["distance"]).split()
    return distances[start + 1] if start + 1 < len(distances) else ""


def _short(name: str | None) -> str:
    return (name or "GPU").removeprefix("NVIDIA ").removeprefix("Tesla ")


def _listed(value: Any) -> list[Any]:
    """[] for a fact that was skipped."""
    return value if isinstance(value, list) else []


def _draw_card(card: Card, left: float, top: float, width: float, height: float) -> list[str]:
    parts = [
        f'<rect class="card" x="{left}" y="{top}" width="{width}" height="{height}" rx="10"/>',
        _text(left + PAD, top + 27, card.title, "name"),
        _text(left + PAD, top + 47, _cut(" · ".join(card.lines), width - 2 * PAD), "muted"),
    ]
    y = top + HEAD
    for row in card.rows:
        parts += _draw_bus(left + PAD, top + HEAD, y, len(row), alone=len(card.rows) == 1)
        for place, column in enumerate(row):
            x = left + PAD + place * (TILE_W + TILE_GAP)
            for depth, tile in enumerate(column):
                at = y + 22 + depth * (TILE_H + 8)
                parts += [f'<path class="bus" d="M{x + 14} {at - 8}V{at}"/>'] if depth else []
                parts += _draw_tile(tile, x, at)
        y += _row_height(row)
    return parts


def _draw_bus(left: float, first: float, y: float, columns: int, alone: bool) -> list[str]:
    """The line that a row of tiles hangs on; rows below the first are joined to it at the left edge."""
    stubs = [left + 14 + place * (TILE_W + TILE_GAP) for place in range(columns)]
    at = y if y == first else y + 8
    start = stubs[0] if alone else left - 10
    joined = f"M{start} {first}V{at}" if y != first else ""
    drops = "".join(f"M{x} {at}V{y + 22}" for x in stubs)
    return [f'<path class="bus" d="{joined}M{start} {at}H{stubs[-1]}{drops}"/>']


def _draw_tile(tile: Tile, x: float, y: float) -> list[str]:
    return [
        f'<rect class="tile" x="{x}" y="{y}" width="{TILE_W}" height="{TILE_H}" rx="6"/>',
        f'<rect class="{tile.kind}" x="{x}" y="{y + 6}" width="4" height="{TILE_H - 12}" rx="2"/>',
        _text(x + 13, y + 19, _cut(tile.name, TILE_W - 18, 7.0), "device"),
        _text(x + 13, y + 34, _cut(tile.what, TILE_W - 16), "small"),
        _text(x + 13, y + 49, _cut(tile.link, TILE_W - 16), "alarm" if tile.bad else "small"),
    ]


def _draw_distance(left: float, y: float, distance: str) -> list[str]:
    return [
        f'<path class="wire" d="M{left + 6} {y}H{left + GAP - 6}"/>',
        _text(left + GAP / 2, y - 8, distance, "device", "middle"),
        _text(left + GAP / 2, y + 16, "distance", "small", "middle"),
    ]


def _draw_band(width: float, top: float, text: str) -> list[str]:
    return [
        f'<rect class="band" x="{PAD}" y="{top}" width="{width - 2 * PAD}" height="26" rx="6"/>',
        _text(width / 2, top + 17.5, text, "onband", "middle"),
    ]


def _legend(width: float, y: float) -> list[str]:
    parts, x = [], float(PAD)
    for kind, name in (("gpu", "GPU"), ("nic", "network"), ("nvme", "NVMe")):
        square = f'<rect class="{kind}" x="{x}" y="{y - 9}" width="10" height="10" rx="2"/>'
        parts += [square, _text(x + 16, y, name, "small")]
        x += 34 + 6 * len(name)
    said = "a column shares one PCIe root port · links at their best; they slow down when idle"
    return [*parts, _text(width - PAD, y, said, "small", "end")]


def _cut(text: str, width: float, letter: float = 6.2) -> str:
    """As much of the text as fits, with an ellipsis."""
    most = int(width / letter)
    return text if len(text) <= most else text[: max(1, most - 1)] + "…"


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    placed = f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f'<text class="{kind}" x="{x:g}" y="{y:g}"{placed}>{escape(text)}</text>' if text else ""


def _style(dark: bool) -> str:
    def colour(light: str) -> str:
        return palette.DARK[light] if dark else light

    accents = palette.ENGINES_DARK if dark else palette.ENGINES
    ground = "#12161b" if dark else "#f5f7f9"
    rules = [
        (".ground", f"fill:{ground}"),
        (".card,.tile", f"fill:{colour(palette.BACKGROUND)};stroke:{colour(palette.LINE)}"),
        (".bus,.wire", f"stroke:{colour(palette.MUTED)}"),
        (".title,.name,.device", f"fill:{colour(palette.TEXT)}"),
        (".muted,.small", f"fill:{colour(palette.MUTED)}"),
        (".alarm", f"fill:{colour(palette.ALARM)}"),
        (".band", f"fill:{accents[0]}"),
        (".onband", f"fill:{ground}"),
        *((f".{kind}", f"fill:{accents[place]}") for kind, place in _ACCENTS.items()),
    ]
    return "".join(f"{selector}{{{rule}}}" for selector, rule in rules)


_SHAPES = (
    f"text{{font-family:{FONT}}}.title{{font-size:20px;font-weight:600}}.name{{font-size:15px;font-weight:600}}"
    ".device{font-size:13px;font-weight:600}.muted{font-size:12px}.small{font-size:11px}"
    ".alarm{font-size:11px;font-weight:600}.onband{font-size:12px;font-weight:600}"
    ".bus{fill:none;stroke-width:1.5;opacity:.55}.wire{fill:none;stroke-width:3;opacity:.55}"
)


def _document(width: float, height: float, parts: list[str], said: str) -> str:
    style = f"{_SHAPES}{_style(False)}@media (prefers-color-scheme:dark){{{_style(True)}}}"
    body = "\n".join(part for part in parts if part)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}"'
        f' height="{height:g}" role="img" aria-label="{escape(said)}">\n<style>{style}</style>\n'
        f'<rect class="ground" width="{width:g}" height="{height:g}"/>\n{body}\n</svg>\n'
    )
