from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote

import orjson
import pytest
from starlette.testclient import TestClient

from redline.report.numbers import number
from redline.store.browse import Browser
from tests.pages.conftest import client_of

VOID = {"meta", "br", "hr", "img", "input", "link", "path", "rect", "line"}
PART = {"x-part": "1"}


class Nesting(HTMLParser):
    """Every tag is closed in order; every id is one of a kind."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open += [] if tag in VOID else [tag]
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.links += [value for name, value in attrs if name in ("href", "src", "action", "data-part") and value]

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> without a beginning"
        assert self.open.pop() == tag


def read(client: TestClient, address: str, status: int = 200, **more: object) -> Nesting:
    answer = client.get(address, **more)  # type: ignore[arg-type]
    assert answer.status_code == status, answer.text[:500]
    page = Nesting()
    page.feed(answer.text)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert "<b>spec</b>" not in answer.text
    return page


def test_every_page_of_every_run_is_well_formed_and_every_link_leads_somewhere(client: TestClient) -> None:
    seen, waiting = set(), ["/"]
    while waiting:
        address = waiting.pop()
        seen.add(address)
        page = read(client, address)
        assert not [link for link in page.links if not link.startswith(("/", "#", "?"))]
        for link in page.links:
            link = link.partition("#")[0]
            kind = re.sub(r"\d[\w-]*", "N", link.partition("?")[0])
            known = sum(re.sub(r"\d[\w-]*", "N", one.partition("?")[0]) == kind for one in seen | set(waiting))
            skip = ("/static", "/request", "?")
            if link and link not in seen and link not in waiting and known < 3 and not link.startswith(skip):
                if re.search(r"/report\.|/at/|/raw$", link):
                    assert client.get(link, follow_redirects=False).status_code in (200, 303)
                    seen.add(link)
                else:
                    waiting.append(link)
    assert len(seen) > 20


def test_the_result_has_the_numbers_of_the_report(client: TestClient, runs: list[str]) -> None:
    text = client.get(f"/run/{runs[0]}/findings").text
    saved = client.get(f"/run/{runs[0]}/report.json")
    points = saved.json()["models"][0]["points"]
    assert len(points) == 2
    for point in points:
        for engine in point["engines"].values():
            assert f">{number(engine['numbers']['ttft_ms.p99']['value'])}" in text
    assert saved.headers["content-disposition"].startswith("attachment")
    assert client.get(f"/run/{runs[0]}/report.md").text.startswith("#")
    assert client.get(f"/run/{runs[0]}/report.pdf").status_code == 404


def test_the_sql_beside_a_number_gives_that_number(client: TestClient, points: dict[str, list[int]]) -> None:
    text = client.get(f"/point/{next(iter(points.values()))[0]}/findings", headers=PART).text
    proofs = re.findall(r'data-sql="([^"]+)" data-shown="([^"]+)"', text)
    assert len(proofs) >= 6
    for sql, shown in proofs:
        sql = sql.replace("&#39;", "'").replace("&lt;", "<").replace("&gt;", ">")
        said = client.post("/sql", data={"q": sql}, headers={"accept": "application/json"}).json()
        assert said["text"] == shown.replace("†", "")


def test_every_finding_names_its_definition_and_version(client: TestClient, points: dict[str, list[int]]) -> None:
    text = client.get(f"/point/{next(iter(points.values()))[1]}/findings").text
    for definition in ("ttft_ms/intended@1", "itl_ms@1", "tpot_ms@1", "e2e_ms/sent@1", "output_tokens_per_s@1"):
        assert f">{definition}</code>" in text


def test_a_percentile_leads_to_its_request(client: TestClient, filled: Path, points: dict[str, list[int]]) -> None:
    point = next(iter(points.values()))[1]
    address = client.get(f"/point/{point}/at/ttft.p99", follow_redirects=False).headers["location"]
    text = client.get(f"/point/{point}/findings").text
    shown = re.search(r'id="ttft_ms.p99"[^>]*>([\d.,]+)', text)
    assert shown
    with Browser.open(filled) as reader:
        found = reader.request(int(address.rpartition("/")[2]))
    assert found
    assert number((found.record.chunk_ns[0] - found.record.intended_ns) / 1e6) == shown[1]


def test_a_request_from_when_it_was_due_to_its_last_byte(
    client: TestClient, filled: Path, points: dict[str, list[int]]
) -> None:
    with Browser.open(filled) as reader:
        line = reader.request_lines(next(iter(points.values()))[0])[0]
        found = reader.request(line.id)
    assert found
    text = client.get(f"/request/{line.id}").text
    for event in ("due", "sent", "first byte", "first token", "last token", "finished"):
        assert f"<b>{event}</b>" in text
    assert f"{(found.record.finished_ns - found.record.intended_ns) / 1e6:,.3f}" in text
    figures = client.get(f"/request/{line.id}/chunks.json").json()["figures"]
    assert len(figures[0]["series"][0]["x"]) == line.chunks - 1
    assert figures[1]["series"][0]["y"][-1] == sum(found.record.chunk_tokens)


def test_a_comparison_is_that_of_the_command(client: TestClient, runs: list[str], filled: Path) -> None:
    from redline.report.versus import compare_runs
    from redline.report.versus_text import headline

    a, b = (f"{run}:vllm" for run in runs[:2])
    page = client.get("/compare", params={"a": a, "b": b}).text
    assert f"/compare/result?a={quote(a, safe='')}" in page
    said = client.get("/compare/result", params={"a": a, "b": b, "tolerance": "2"}).text
    assert headline(compare_runs(a, b, db=filled, tolerance=0.02)) in said
    assert f"redline compare {a} {b} --tolerance 2" in said


def test_two_ticked_runs_are_compared_the_older_one_as_a(client: TestClient, runs: list[str]) -> None:
    answer = client.get("/compare", params={"run": [runs[1], runs[0]]}, follow_redirects=False)
    assert answer.headers["location"] == f"/compare?a={runs[0]}&b={runs[1]}"
    assert client.get("/compare", params={"run": [runs[0]]}).status_code == 400


@pytest.mark.parametrize(
    ("address", "status", "words"),
    [
        ("/nowhere", 404, "there is no such page"),
        ("/run/zzz", 404, "no run"),
        ("/run/zzz/findings", 404, "no run"),
        ("/point/999999", 404, "there is no load point 999999"),
        ("/request/999999", 404, "there is no request 999999"),
        ("/compare/result?a=zzz&b=last", 404, "no run"),
        ("/compare/result?a=last&b=last&tolerance=x", 400, "is no number"),
        ("/compare/result?a=last&b=last&tolerance=inf", 400, "makes no sense"),
        ("/compare/result?a=last&b=last&metric=speed", 400, "no metric"),
        ("/point/1/requests?after=1.2", 400, "no page begins after"),
        ("/point/1/requests?after=0.99999999999999999999.1", 400, "no page begins after"),
        ("/point/1/at/itl.p99", 404, "there is no percentile"),
        ("/run/last/telemetry.json?group=nothing", 404, "there is no group"),
        ("/run/last/file/99", 404, "there is no file 99"),
    ],
)
def test_what_is_not_there_says_so(client: TestClient, address: str, status: int, words: str) -> None:
    answer = client.get(address)
    assert answer.status_code == status
    assert words in answer.text
    assert "Traceback" not in answer.text
    as_json = client.get(address, headers={"accept": "application/json"})
    assert words in orjson.loads(as_json.content)["what"]


@pytest.mark.parametrize(
    "address", ["/?page=-1&sort=x&dir=y", "/?page=99999999999", "/point/1/requests?order=x&kind=y"]
)
def test_odd_parameters_fall_back(client: TestClient, address: str) -> None:
    assert client.get(address).status_code == 200


def test_telemetry_has_a_chart_for_each_name(client: TestClient, runs: list[str]) -> None:
    assert 'telemetry.json?group=engine"' in client.get(f"/run/{runs[0]}/telemetry").text
    figures = client.get(f"/run/{runs[0]}/telemetry.json?group=engine").json()["figures"]
    memory = next(figure for figure in figures if figure["title"] == "engine.rss_bytes")
    assert memory["unit"] == "GB"
    assert len([y for y in memory["series"][0]["y"] if y is not None]) == 10  # five of each engine
    assert None in memory["series"][0]["y"]


def test_scripts_and_styles_are_kept_by_the_browser(client: TestClient) -> None:
    page = client.get("/").text
    kept = re.findall(r'(?:href|src)="(/static/[^"]+)"', page)
    assert len(kept) == 5
    for address in kept:
        answer = client.get(address)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
        assert "http" not in re.sub(r"http://www\.w3\.org/\S+", "", answer.text)
    assert client.get("/static/x/../../../app.py").status_code == 404


def test_nothing_is_written(client: TestClient, filled: Path) -> None:
    before = filled.read_bytes()
    for address in ("/", "/run/last/findings", "/sql", "/run/last/live"):
        client.get(address)
    assert filled.read_bytes() == before
    with client_of(filled) as other:
        assert other.post("/run/last").status_code == 405
        assert other.delete("/run/last").status_code == 405
