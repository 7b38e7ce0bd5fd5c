from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from redline.pages.app import build
from redline.pages.guard import Access, is_loopback
from tests.pages.conftest import client_of

TOKEN = "0123456789abcdef0123"


@pytest.mark.parametrize("host", ["localhost", "localhost:8765", "127.0.0.1", "[::1]:8765", "127.8.8.8", "LOCALHOST."])
def test_names_of_this_box(filled: Path, host: str) -> None:
    with client_of(filled) as client:
        assert client.get("/healthz", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8765", "10.0.0.7", "localhost.evil.example", "[::", ""])
def test_a_rebound_name_is_refused(filled: Path, host: str) -> None:
    with client_of(filled) as client:
        for address in ("/", "/static/x/chart.js", "/run/last/live"):
            answer = client.get(address, headers={"host": host})
            assert answer.status_code == 421
            assert "results" not in answer.text


def test_off_the_loopback_an_address_is_known_and_a_strange_name_is_not() -> None:
    access = Access.of("0.0.0.0", TOKEN, ["gpu7.lab"])
    assert all(map(access.knows, ("10.0.0.7:8765", "[fd00::1]:1", "gpu7.lab", "GPU7.LAB:80", "localhost")))
    assert not access.knows("evil.example")
    assert not Access.of("127.0.0.1").knows("10.0.0.7")


@pytest.mark.parametrize(("host", "local"), [("127.0.0.1", True), ("::1", True), ("localhost", True),
                                             ("0.0.0.0", False), ("::", False), ("box", False)])  # fmt: skip
def test_what_the_loopback_is(host: str, local: bool) -> None:
    assert is_loopback(host) is local


def test_with_a_token_nothing_is_shown_without_it(filled: Path) -> None:
    app = build(filled, Access.of("0.0.0.0", TOKEN))
    with TestClient(app, base_url="http://10.0.0.7") as client:
        for address in ("/", "/healthz", "/static/x/chart.js", "/?token=wrong", "/?token=%C3%A9"):
            assert client.get(address).status_code == 401
        assert client.get("/healthz", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
        entered = client.get(f"/?q=a&token={TOKEN}", follow_redirects=False)
        assert entered.headers["location"] == "/?q=a"
        assert "HttpOnly" in entered.headers["set-cookie"]
        assert "SameSite=strict" in entered.headers["set-cookie"]
        assert client.get("/").status_code == 200  # by the cookie
        away = client.get(f"//evil.example/?token={TOKEN}", follow_redirects=False)
        assert away.headers.get("location", "/").startswith("/")
        assert not away.headers.get("location", "/").startswith("//")


def test_a_form_of_another_site_is_refused(client: TestClient) -> None:
    for headers in ({"origin": "http://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"},
                    {"origin": "http://127.0.0.1:9999"}):  # fmt: skip
        assert client.post("/sql", data={"q": "select 1"}, headers=headers).status_code == 403
    own = {"origin": "http://127.0.0.1", "sec-fetch-site": "same-origin"}
    assert client.post("/sql", data={"q": "select 1"}, headers=own).status_code == 200


@pytest.mark.parametrize("address", ["/", "/nowhere", "/run/last/findings", "/static/x/chart.js", "/healthz"])
def test_every_answer_says_what_a_page_may_do(client: TestClient, address: str) -> None:
    headers = client.get(address).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "http" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
