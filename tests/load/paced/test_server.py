from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections import Counter

import pytest

from redline.load.paced.pace import FAULTS, Faults, Pace, ToyTokenizer
from redline.load.paced.server import PacedServer, main


def post(server: PacedServer, path: str, body: dict[str, object]) -> bytes:
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=10) as reply:
        return bytes(reply.read())


def ask(server: PacedServer, **body: object) -> bytes:
    return post(server, "/v1/completions", {"model": "paced", "prompt": "a b", "stream": True, **body})


def test_the_schedule_is_kept_and_the_truth_recorded() -> None:
    with PacedServer(Pace(ttft_ms=40, itl_ms=10)) as server:
        text = ask(server, max_tokens=6).decode()
        [truth] = server.truth(clear=True)
        assert server.truth() == []
    assert text.count('"text":" ') == 6
    assert text.endswith("data: [DONE]\n\n")
    assert (truth.tokens, truth.prompt_tokens, truth.fault) == ([1] * 6, 3, "")
    gaps = [(at - truth.arrived_ns) / 1e6 for at in truth.before_ns]
    expected = [40 + 10 * i for i in range(6)]
    assert all(gap >= due for gap, due in zip(gaps, expected, strict=True))
    assert sorted(gap - due for gap, due in zip(gaps, expected, strict=True))[2] < 5
    assert all(before <= after for before, after in zip(truth.before_ns, truth.after_ns, strict=True))


def test_a_late_step_does_not_move_the_next() -> None:
    """Many streams at once: each keeps to its own absolute deadlines."""
    with PacedServer(Pace(ttft_ms=20, itl_ms=5)) as server:
        began = time.monotonic()
        ask(server, max_tokens=40)
        took = time.monotonic() - began
        [truth] = server.truth()
    assert truth.before_ns[-1] - truth.before_ns[0] == pytest.approx(39 * 5e6, rel=0.2)
    assert took < 2


def test_usage_and_its_kinds() -> None:
    options: dict[str, object] = {"include_usage": True, "continuous_usage_stats": True}
    for kind, events_with_usage in (("continuous", 5), ("final", 1), ("none", 0)):
        with PacedServer(Pace(ttft_ms=1, itl_ms=1, usage=kind)) as server:  # type: ignore[arg-type]
            body = ask(server, max_tokens=3, stream_options=options)
        assert body.count(b'"usage"') == events_with_usage


def test_faults_are_dealt_out_evenly() -> None:
    dealer = Faults({"reset": 0.1, "stall": 0.1, "empty": 0.05})
    dealt = [dealer.next() for _ in range(1000)]
    for stretch, shares in ((dealt, (100, 100, 50)), (dealt[:200], (20, 20, 10))):
        counts = Counter(stretch)
        got = [counts[kind] for kind in ("reset", "stall", "empty")]
        assert got == pytest.approx(shares, abs=1)
    assert Faults({}).next() == ""


@pytest.mark.parametrize("text", ["", "hello", "a quite wonderful  day\n", "naïve 東京"])
def test_the_toy_tokenizer_loses_nothing(text: str) -> None:
    made = ToyTokenizer()
    ids = made.encode(text)
    assert made.decode(ids) == text
    assert len(ids) == made.count(text)


def test_the_side_doors() -> None:
    with PacedServer(Pace(max_model_len=50)) as server:
        ids = json.loads(post(server, "/tokenize", {"prompt": "one two"}))
        assert (ids["count"], ids["max_model_len"]) == (3, 50)
        assert json.loads(post(server, "/detokenize", {"tokens": ids["tokens"]}))["prompt"] == "one two"
        with urllib.request.urlopen(server.base_url + "/models", timeout=5) as reply:
            assert json.loads(reply.read())["data"][0]["id"] == "paced"
        wrong: list[tuple[str, dict[str, object], int]] = [
            ("/v1/completions", {"model": "other", "prompt": "a"}, 404),
            ("/v1/completions", {"model": "paced", "prompt": "a", "max_tokens": 60}, 400),
            ("/v1/completions", {"model": "paced"}, 400),
            ("/nothing", {}, 404),
        ]
        for path, body, code in wrong:
            with pytest.raises(urllib.error.HTTPError) as caught:
                post(server, path, body)
            assert caught.value.code == code
            caught.value.close()


def test_from_the_command_line() -> None:
    command = [
        sys.executable,
        "-m",
        "redline.load.paced",
        "--ttft-ms",
        "1",
        "--fault",
        "http-500:1",
        "--tokens",
        "2",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(url + "/completions", b'{"model":"paced","prompt":"a"}', timeout=5)
        caught.value.close()
        process.terminate()
        assert process.wait(5) == 0
    refused = subprocess.run([*command[:3], "--fault", "nonsense"], capture_output=True, text=True)
    assert refused.returncode != 0
    assert FAULTS[0] in refused.stderr


def test_it_ends_with_the_block_that_started_it() -> None:
    with PacedServer() as server:
        process = server.process
        assert process is not None
    assert process.poll() is not None
    assert not server.alive
    server.stop()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--fault", "reset:x"], "KIND:SHARE"),
        (["--fault", "rest:0.1"], "unknown fault"),
        (["--framing", "foo"], "invalid choice"),
        (["--usage", "foo"], "invalid choice"),
        (["--chunk-mix", "1,x"], "such as 1,3,5"),
        (["--chunk-mix", "1,0"], "such as 1,3,5"),
    ],
)
def test_wrong_options_end_in_words(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("redline.load.paced.server.PacedLoop", None)  # it must not come so far
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert said in f"{caught.value}{capsys.readouterr().err}"
