"""In a real browser, without a display: what a person would see and do."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from redline.load.paced.pace import Pace
from redline.load.paced.server import PacedServer
from tests.e2e.program import wait_for

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install --no-install-recommends chromium"),
]
playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright here: pip install playwright")

BENCH = """
import sys, redline
from pathlib import Path
redline.bench(sys.argv[1], "paced", db=Path(sys.argv[2]), concurrency="3", duration=float(sys.argv[3]), prompt_tokens=8,
              output_tokens=6, calibrate=0, name="followed")
"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def served(filled: Path) -> Iterator[tuple[str, Path]]:
    """`redline ui` as a program, on a copy of the results."""
    path = Path(shutil.copy(filled, filled.with_name("browsed.db")))
    command = [sys.executable, "-m", "redline", "ui", "--db", str(path), "--port", "0", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        said = ""
        while not said.endswith("}\n"):
            line = process.stdout.readline()
            assert line, "redline ui ended before it said where it is"
            said += line
        yield json.loads(said)["url"], path
    finally:
        process.terminate()
        process.communicate(timeout=20)


class Visit:
    """A page, everything that went wrong in it, and every address that it asked for."""

    def __init__(self, browser: Any, base: str, width: int = 1280, dark: bool = False) -> None:
        scheme = "dark" if dark else "light"
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page = self.context.new_page()
        self.page.set_default_timeout(40_000)
        self.base = base
        self.faults: list[str] = []
        self.asked: list[str] = []
        self.page.on(
            "console", lambda said: self.faults.append(said.text) if said.type in ("error", "warning") else None
        )
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))

    def go(self, address: str) -> None:
        self.page.goto(self.base.rstrip("/") + address)

    def check(self) -> None:
        assert self.faults == []
        assert {urlsplit(url).hostname for url in self.asked} == {"127.0.0.1"}
        assert self.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it is wider than the screen"

    def close(self) -> None:
        self.context.close()


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_from_the_runs_to_a_request(chromium: Any, served: tuple[str, Path], width: int, dark: bool) -> None:
    visit = Visit(chromium, served[0], width, dark)
    page = visit.page
    visit.go("/")
    assert page.locator("[data-rows] tbody tr").count() == 3
    visit.check()
    page.get_by_role("link", name="aaaa").click()
    page.locator("#findings table.numbers").first.wait_for()
    assert page.locator("#findings figure.chart svg path").count() > 8
    load = page.locator("#findings figure.chart svg").first
    assert load.locator("circle").count() == 4
    assert load.locator("g[clip-path] circle").count() == 0, "a load point at the edge is half cut off"
    assert "4 clients" in load.locator("text.axis").all_text_contents()
    visit.check()
    page.locator("#points a.row").first.click()
    prove = page.locator("[data-sql]").first
    prove.click()
    page.locator(".proof .same").first.wait_for()  # the SQL gave the number again
    visit.check()
    page.locator("nav.tabs a", has_text="Requests").click()
    page.locator("[data-rows] a.row").first.click()
    page.locator("[data-figures]").scroll_into_view_if_needed()  # drawn when it comes into sight
    page.locator("[data-figures] svg").first.wait_for()
    assert page.locator("[data-figures] svg").count() == 2
    chart = page.locator("figure.chart").first
    chart.focus()
    chart.press("ArrowRight")
    assert "ms" in page.locator("#tip").inner_text()
    visit.check()
    visit.close()


def test_two_runs_are_ticked_and_compared_and_keys_work(chromium: Any, served: tuple[str, Path]) -> None:
    visit = Visit(chromium, served[0])
    page = visit.page
    visit.go("/")
    assert page.locator("[data-compare]").is_disabled()
    for number in (1, 2):
        page.locator("input[name=run]").nth(number).check()
    page.locator("[data-compare]").click()
    page.locator("h2.headline").wait_for()
    assert page.locator("h2.headline").inner_text().startswith("B against A:")
    page.keyboard.press("g")
    page.keyboard.press("r")
    page.wait_for_url("**/")
    page.keyboard.press("/")
    page.keyboard.type("before")
    page.keyboard.press("Enter")
    page.wait_for_url("**q=before**")
    assert page.locator("[data-rows] tbody tr").count() == 1
    visit.check()
    visit.close()


def test_a_run_in_progress_is_followed_to_its_end(chromium: Any, served: tuple[str, Path]) -> None:
    url, path = served
    visit = Visit(chromium, url)
    page = visit.page
    with PacedServer(Pace(ttft_ms=10, itl_ms=4, model="paced")) as server:
        bench = subprocess.Popen(
            [sys.executable, "-c", BENCH, server.base_url, str(path), "10"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            visit.go("/")
            row = page.locator("tr", has_text="followed")

            def there() -> bool:
                visit.go("/")
                return bool(row.count())

            wait_for(there, 60, 1)
            row.locator("a.row").click()
            requests = page.locator("[data-live-value=requests]")

            def counted() -> int:
                # all at once: between two questions the page may have noticed the end
                text = "".join(requests.all_inner_texts()).replace(",", "")
                return int(text) if text.isdigit() else 0

            first = wait_for(counted, 60)
            wait_for(lambda: counted() > first, 30)
            page.locator("[data-live-charts] svg").first.wait_for()
            page.locator(".status.done").first.wait_for(timeout=60_000)  # the page has noticed the end by itself
            page.locator("#findings table.numbers").first.wait_for()
        finally:
            bench.kill()
            bench.wait()
    assert page.locator("#live").count() == 0
    visit.check()
    visit.close()
