"""Compiled or interpreted, a worker reads the same: every byte, in the same pieces' order, with the same end."""

from __future__ import annotations

import itertools
import pwd
import random
import select
import shutil
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from redline.clock import now_ns, realtime_offset
from redline.compiled import NoCompiler
from redline.load import receive
from redline.load.crew import LoadWorker
from redline.load.frames import Arrivals, End, Outgoing, Phase, RawStream, Stamp
from redline.load.receive import Compiled, Interpreted, best, told
from redline.load.stamps import SO_TIMESTAMPNS
from redline.load.target import request_bytes, request_head, resolve
from redline.load.wire import ANCILLARY_BYTES, Connection, Framing, State
from tests.load.scripted import HANG, RESET, ScriptedServer, Step
from tests.load.streams import OK_HEAD, chunked, cut
from tests.load.test_crew import hear_until_done


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compiled")
    try:
        with select.epoll() as epoll:
            Compiled(epoll, folder).close()
    except NoCompiler as why:
        pytest.skip(f"{why}; install a C compiler, e.g. apt-get install gcc")
    return folder


BODY = b"".join(chunked(*(b"data: %d\n\n" % i * (i % 7 + 1) for i in range(40))))
TRAILERS = BODY.removesuffix(b"\r\n") + b"Server-Timing: total;dur=1\r\n\r\n"
LARGE = b"".join(chunked(*(bytes([i]) * 90_000 for i in range(5))))
NASTY = b"".join(chunked(b"0\r\n\r\n", b"a0\r\n\r\n", b"x" * 300, b"0\r\n\r\n"))


def script(number: int) -> Iterator[Step]:
    """Ten kinds of answers, cut at random, the pieces 2 ms apart."""
    dice = random.Random(number)
    whole = (BODY, BODY, TRAILERS, LARGE, NASTY, BODY, BODY, BODY[:700], BODY[:700], BODY + b"HTTP/1.1 200 OK\r\n")
    kind = number % len(whole)
    yield OK_HEAD
    for piece in cut(whole[kind], [dice.randrange(100_000) for _ in range(25)]):
        yield 0.002
        yield piece
    if kind == 7:
        yield RESET
    elif kind == 8:
        yield HANG


def load(compiled: bool, count: int = 20) -> dict[int, RawStream]:
    with ScriptedServer(script) as server:
        target = replace(resolve(server.endpoint.base_url), compiled=compiled, idle_ns=1_500_000_000)
        head = request_head(server.endpoint.base_url, "/completions", api_key=None, stream=True)
        with LoadWorker(target) as worker:
            worker.feed(Outgoing(i, request_bytes(head, f"r-{i}", b"{}")) for i in range(count))
            worker.start(Phase(Arrivals.CLOSED, clients=1, requests=count))  # one by one: the script's order is ours
            streams, _, _ = hear_until_done(worker, 60.0)
            assert bool(worker.interpreted) is not compiled
    return {raw.head.number: raw for raw in streams}


def test_every_byte_and_every_end_is_the_same(built: Path) -> None:
    ours, plain = load(True), load(False)
    assert ours.keys() == plain.keys() == set(range(20))
    for number in ours:
        one, other = ours[number], plain[number]
        assert one.data == other.data, number
        assert (one.head.end, one.head.stamp, one.error) == (other.head.end, other.head.stamp, other.error), number
        assert sum(one.lengths) == len(one.data)
        assert len(one.lengths) == len(one.stamps) == len(one.seen)
        assert sorted(one.stamps) == list(one.stamps)
        assert all(one.head.sent_ns <= at <= seen for at, seen in zip(one.stamps, one.seen, strict=True))
    ends = [ours[n].head.end for n in range(10)]
    assert ends == [End.COMPLETE] * 7 + [End.RESET, End.IDLE, End.COMPLETE]


class Pair:
    """A connection in the middle of an answer, and the server's side of it."""

    def __init__(self, poller: Interpreted, epoll: select.epoll) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            sock = socket.create_connection(listener.getsockname())
            self.server, _ = listener.accept()
        self.server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        for _ in range(1000):  # the kernel begins to stamp a little after the first socket asks for it
            self.server.sendall(b"?")
            if sock.recvmsg(1, ANCILLARY_BYTES)[1]:
                break
        sock.setblocking(False)
        self.conn = Connection(sock, 0)
        self.conn.state, self.conn.framing, self.conn.sent_ns = State.RECEIVING, Framing.CHUNKED, now_ns()
        self.conn.seen.append(now_ns())
        epoll.register(sock.fileno(), select.EPOLLIN)
        poller.entrust(self.conn)

    def close(self) -> None:
        self.server.close()
        self.conn.sock.close()


@pytest.fixture
def pair(built: Path) -> Iterator[tuple[Compiled, Pair]]:
    epoll = select.epoll()
    poller = Compiled(epoll, built)
    poller.set_offset(realtime_offset().offset_ns)
    made = Pair(poller, epoll)
    yield poller, made
    made.close()
    poller.close()


def look(poller: Compiled, until: int = 1) -> list[tuple[int, int]]:
    """What is told until `until` pieces were found."""
    events, found = [], 0
    while found < until:
        events += poller.wait(forever=True)
        found += poller.found
    return events


def test_the_middle_of_an_answer_is_kept_and_not_told(pair: tuple[Compiled, Pair]) -> None:
    poller, made = pair
    for i in range(300):
        made.server.sendall(b"%d" % i * 50)
        assert look(poller) == []
    assert poller.held()[0] == 300
    poller.drain(made.conn)
    assert made.conn.data == [b"%d" % i * 50 for i in range(300)]
    assert made.conn.size == sum(map(len, made.conn.data))
    assert (len(made.conn.stamps), made.conn.stamp) == (300, Stamp.KERNEL)
    assert all(a <= b <= c for a, b, c in zip(made.conn.stamps, made.conn.seen[1:], made.conn.stamps[1:], strict=False))
    assert poller.held() == (0, 0)
    assert poller.take_quick() > 0 == poller.take_quick()


@pytest.mark.parametrize(("piece", "what"), [(b"x\r\n0\r\n\r\n", receive.LOOK), (b"\r\n", receive.LOOK)])
def test_what_may_be_the_end_is_told(pair: tuple[Compiled, Pair], piece: bytes, what: int) -> None:
    poller, made = pair
    made.server.sendall(piece)
    [(fd, word)] = look(poller)
    assert (fd, told(word)) == (made.conn.fd, (what, 0))
    poller.drain(made.conn)
    assert made.conn.data == [piece]


def test_the_end_of_the_connection_is_told(pair: tuple[Compiled, Pair]) -> None:
    poller, made = pair
    made.server.shutdown(socket.SHUT_WR)
    [(_, word)] = look(poller)
    assert told(word) == (receive.CLOSED, 0)


def test_a_stamp_that_cannot_be_is_left_to_python(pair: tuple[Compiled, Pair]) -> None:
    """As after the wall clock was set: the piece is told with the kernel's own time, and nothing of it is lost."""
    poller, made = pair
    poller.set_offset(0)
    before = time.time_ns()
    made.server.sendall(b"hello, world")
    [(_, word)] = look(poller)
    assert told(word) == (receive.PIECE, 0)
    data, realtime_ns, seen = poller.piece()
    assert data == b"hello, world"
    assert before - 1_000_000 < realtime_ns < time.time_ns()
    assert seen <= now_ns()
    assert poller.held() == (0, 0)
    assert made.conn.inbox is not None
    assert made.conn.inbox.last_ns == seen, "the next piece is quick, or not, after this one"


def test_without_stamps_the_connection_says_so(pair: tuple[Compiled, Pair]) -> None:
    poller, made = pair
    made.conn.sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 0)
    made.server.sendall(b"hello, world")
    assert look(poller) == []
    poller.drain(made.conn)
    assert (made.conn.stamp, made.conn.stamps) == (Stamp.USER, made.conn.seen[1:])


def test_what_is_not_entrusted_is_not_read(pair: tuple[Compiled, Pair]) -> None:
    poller, made = pair
    poller.release(made.conn)
    made.server.sendall(b"hello, world")
    assert look(poller) == [(made.conn.fd, select.EPOLLIN)]
    assert made.conn.sock.recv(100) == b"hello, world"


def test_a_forgotten_connection_takes_its_bytes_along(pair: tuple[Compiled, Pair]) -> None:
    poller, made = pair
    made.server.sendall(b"hello, world")
    look(poller)
    assert poller.held() == (1, 12)
    poller.forget(made.conn)
    assert (poller.held(), made.conn.inbox) == ((0, 0), None)


def test_a_wall_clock_that_is_set_loses_nothing(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every piece's stamp is impossible by the offset that the C was told, and right by the one that Python reads."""
    monkeypatch.setattr(Compiled, "set_offset", lambda self, ns: setattr(self._receiver, "offset_ns", ns - 10**12))
    with ScriptedServer(
        lambda number: itertools.chain([OK_HEAD], *((0.003, p) for p in chunked(b"a", b"b")))
    ) as server:
        head = request_head(server.endpoint.base_url, "/completions", api_key=None, stream=True)
        with LoadWorker(resolve(server.endpoint.base_url), in_thread=True) as worker:
            worker.feed([Outgoing(0, request_bytes(head, "r-0", b"{}"))])
            worker.start(Phase(Arrivals.CLOSED, requests=1))
            [raw], _, _ = hear_until_done(worker)
    assert (raw.head.end, raw.head.stamp) == (End.COMPLETE, Stamp.KERNEL)
    assert raw.data == OK_HEAD + b"".join(chunked(b"a", b"b"))


def test_without_a_compiler_python_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    epoll = select.epoll()
    poller, why = best(epoll)
    assert (type(poller), why) == (Interpreted, "no C compiler")
    poller.close()


def test_a_user_without_a_home_is_read_for_by_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs under a number of no passwd entry: there is no place to keep what is compiled."""

    def nobody(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: "/bin/sh")
    poller, why = best(select.epoll())
    assert type(poller) is Interpreted
    assert "XDG_CACHE_HOME" in why
    poller.close()
