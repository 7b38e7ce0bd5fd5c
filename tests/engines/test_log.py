from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from redline.engines.log import Follower, clean, tail


def test_clean() -> None:
    assert clean("\x1b[1;36m(Worker)\x1b[0m up\x1b]0;title\x07 \n") == "(Worker) up"
    assert clean("loading 10 %\rloading 50 %\rloading 100 %\n") == "loading 100 %"


def test_tail(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert tail(log) == ""
    log.write_bytes("\n".join(f"line {i} é" for i in range(100_000)).encode() + b"\n\xff\xfe")
    assert tail(log, 2) == "line 99999 é\n\ufffd\ufffd"


@given(st.lists(st.binary(max_size=30), max_size=20))
def test_follower_sees_each_complete_line_once(tmp_path_factory, chunks) -> None:  # type: ignore[no-untyped-def]
    log = tmp_path_factory.mktemp("log") / "log"
    follower, seen = Follower(log), []
    with log.open("wb", buffering=0) as file:
        for chunk in chunks:
            file.write(chunk)
            seen += follower.new_lines()
    whole = b"".join(chunks).replace(b"\r", b"\n").split(b"\n")[:-1]
    assert seen == [clean(line.decode("utf-8", "replace")) for line in whole]
