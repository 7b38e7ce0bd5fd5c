"""TLS over the same socket: the kernel's stamps stay, and a wrong certificate is a failure, not a hang."""

from __future__ import annotations

import itertools
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redline.load.crew import LoadWorker
from redline.load.frames import Arrivals, End, Outgoing, Phase, PhaseDone, RawStream, Target
from redline.load.reading import Asked, Reader
from redline.load.record import Status
from redline.load.stamping import Stamper
from redline.load.target import request_bytes, request_head
from redline.load.tls import Tls
from tests.load.rings import needs_ring
from tests.load.streams import DONE, OK_HEAD, chunked, cut, text_event

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
EVENTS = [text_event(f" {i}") for i in range(10)]
GAP_S = 0.02


class TlsServer:
    """Answers each request with ten events, 20 ms apart, and notes when each was really sent."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate, key)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.sent_ns: list[list[int]] = []
        self.threads = [threading.Thread(target=self._accept, daemon=True)]
        self.threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
            self.threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        try:
            with self.context.wrap_socket(sock, server_side=True) as tls:
                while data := tls.recv(65536):
                    while not data.endswith(b"}"):
                        data += tls.recv(65536)
                    tls.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    tls.sendall(OK_HEAD)
                    times: list[int] = []
                    for event in chunked(*EVENTS, last=False):
                        time.sleep(GAP_S)
                        times.append(time.monotonic_ns())
                        tls.sendall(event)
                    self.sent_ns.append(times)
                    tls.sendall(b"".join(chunked(text_event("", "stop"), DONE)))
        except OSError:
            sock.close()

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in self.threads:
            thread.join(5)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "cert.pem", folder / "key.pem"
    options = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    command = ["openssl", *options.split(), "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    return certificate, key


@pytest.fixture
def server(certificate: tuple[Path, Path]) -> Iterator[TlsServer]:
    made = TlsServer(*certificate)
    yield made
    made.close()


def collect(target: Target, requests: int, lead_ns: int = 0) -> list[RawStream]:
    head = request_head("https://localhost/v1", "/completions", api_key=None, stream=True)
    streams: list[RawStream] = []
    with LoadWorker(target) as worker:
        worker.feed(Outgoing(i, request_bytes(head, f"r-{i}", b"{}")) for i in range(requests))
        while not worker.ready:
            worker.hear(1.0)
        start_ns = time.monotonic_ns() + lead_ns if lead_ns else 0
        worker.start(Phase(Arrivals.CLOSED, clients=2, requests=requests, preconnect=True, start_ns=start_ns))
        while True:
            for heard in worker.hear(1.0):
                if isinstance(heard, RawStream):
                    streams.append(heard)
                elif isinstance(heard, PhaseDone):
                    return streams


def test_segment_times_hold_under_tls(
    server: TlsServer, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    target = Target(socket.AF_INET, ("127.0.0.1", server.port), "localhost")
    frozen = replace(target, stall_every_ms=15.0, stall_ms=10.0)
    streams = collect(frozen, 6)
    assert len(streams) == 6
    kernel, user = [], []
    for raw in streams:
        record = Reader().read(raw, Asked(0, 10, keep_text=True))
        assert (record.status, record.stamp, record.error) == (Status.OK, "kernel", "")
        assert record.text == "".join(f" {i}" for i in range(10))
        sent = min(server.sent_ns, key=lambda times: abs(times[0] - record.chunk_ns[0]))
        kernel += [abs(a - b) for a, b in zip(record.chunk_ns, sent, strict=True)]
        seen = Reader().read(replace(raw, stamps=raw.seen), Asked(0, 10)).chunk_ns
        user += [abs(a - b) for a, b in zip(seen, sent, strict=True)]
    assert sorted(kernel)[len(kernel) * 3 // 4] < sorted(user)[len(user) * 3 // 4] / 3


@needs_ring
def test_under_tls_a_freeze_of_200_ms_costs_the_packet_tier_nothing(
    server: TlsServer, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten records are read at once after each freeze; every one gets the time of its own segment."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    target = Target(socket.AF_INET, ("127.0.0.1", server.port), "localhost", stall_every_ms=100.0, stall_ms=200.0)
    with Stamper(target, "packet") as stamper:  # nobody empties it until the end
        plain = collect(target, 8)
        for raw in plain:
            stamper.put(raw)
        better = stamper.flush()
    assert (stamper.report.restamped, stamper.report.fell_back) == (8, 0)
    packet, kernel = [], []
    for raw, old in zip(better, plain, strict=True):
        record, before = Reader().read(raw, Asked(0, 10)), Reader().read(old, Asked(0, 10))
        assert (record.status, record.stamp, record.shared_stamps) == (Status.OK, "packet", 0)
        sent = min(server.sent_ns, key=lambda times: abs(times[0] - record.chunk_ns[0]))
        packet += [abs(a - b) for a, b in zip(record.chunk_ns, sent, strict=True)]
        kernel += [abs(a - b) for a, b in zip(before.chunk_ns, sent, strict=True)]
    assert sorted(packet)[len(packet) * 3 // 4] < sorted(kernel)[len(kernel) * 3 // 4] / 10


class Ends:
    """Both ends of a TLS connection in memory, the handshake done."""

    def __init__(self, certificate: Path, key: Path) -> None:
        ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ours.load_cert_chain(certificate, key)
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.server = ours.wrap_bio(self._in, self._out, server_side=True)
        self.client = Tls(ssl.create_default_context(cafile=str(certificate)), "localhost")
        self.handshake = b""
        done = served = False
        while not (done and served):
            data = self._out.read()
            self.handshake += data
            done = self.client.shake_hands(data) or done
            self._in.write(self.client.to_send())
            try:
                self.server.do_handshake()
                served = True
            except ssl.SSLWantReadError:
                pass

    def sealed(self, plain: bytes) -> bytes:
        self.server.write(plain)
        return self._out.read()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 3000), min_size=1, max_size=12), st.lists(st.integers(0, 100_000), max_size=20))
def test_records_are_opened_one_by_one_however_they_are_cut(
    certificate: tuple[Path, Path], sizes: list[int], marks: list[int]
) -> None:
    """Each piece of plain text knows the byte of the wire at which its record was whole."""
    ends = Ends(*certificate)
    tickets = ends.sealed(b"first")  # session tickets come before it
    [*_, (plain, begin)] = list(ends.client.open(tickets))
    assert plain == b"first"
    texts = [bytes([65 + i]) * size for i, size in enumerate(sizes)]
    records = [ends.sealed(text) for text in texts]
    found = [piece for part in cut(b"".join(records), marks) for piece in ends.client.open(part)]
    assert [text for text, _ in found] == texts
    assert [at - begin for _, at in found] == list(itertools.accumulate(map(len, records)))


def test_a_ticket_does_not_cost_a_connection_that_was_opened_in_advance(
    server: TlsServer, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From TLS 1.3 on a server sends session tickets unasked, right behind the handshake."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    streams = collect(Target(socket.AF_INET, ("127.0.0.1", server.port), "localhost"), 4, 1_000_000_000)
    assert {raw.head.end for raw in streams} == {End.COMPLETE}
    assert [raw.head.connect_ns for raw in streams] == [0] * 4
    assert len(server.threads) == 1 + 2, "the one that accepts, and one per connection"


def test_a_certificate_that_nobody_vouches_for(server: TlsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    target = Target(socket.AF_INET, ("127.0.0.1", server.port), "localhost")
    streams = collect(target, 2)
    assert {raw.head.end for raw in streams} == {End.CONNECT}
    assert all("CERTIFICATE_VERIFY_FAILED" in raw.error for raw in streams)


@pytest.mark.parametrize("said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
def test_tls_with_a_server_that_speaks_none(said: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as plain:

        def answer() -> None:
            for _ in range(4):
                try:
                    sock, _ = plain.accept()
                except OSError:
                    return
                with sock:
                    sock.recv(65536)
                    sock.sendall(said)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        streams = collect(Target(socket.AF_INET, ("127.0.0.1", plain.getsockname()[1]), "localhost"), 2)
        plain.shutdown(socket.SHUT_RDWR)
        thread.join(5)
    assert {raw.head.end for raw in streams} == {End.CONNECT}
    assert all(raw.error.startswith("TLS handshake: ") for raw in streams)
    if not said:
        assert {raw.error for raw in streams} == {"TLS handshake: closed by the server"}
