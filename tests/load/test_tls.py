"""TLS over the same socket: the kernel's stamps stay, and a wrong certificate is a failure, not a hang."""

from __future__ import annotations

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

from redline.load.crew import LoadWorker
from redline.load.frames import Arrivals, End, Outgoing, Phase, PhaseDone, RawStream, Target
from redline.load.reading import Asked, Reader
from redline.load.record import Status
from redline.load.stamping import Stamper
from redline.load.target import request_bytes, request_head
from tests.load.rings import needs_ring
from tests.load.streams import DONE, OK_HEAD, chunked, text_event

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


def collect(target: Target, requests: int) -> list[RawStream]:
    head = request_head("https://localhost/v1", "/completions", api_key=None, stream=True)
    streams: list[RawStream] = []
    with LoadWorker(target) as worker:
        worker.feed(Outgoing(i, request_bytes(head, f"r-{i}", b"{}")) for i in range(requests))
        worker.start(Phase(Arrivals.CLOSED, clients=2, requests=requests, preconnect=True))
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
    assert (stamper.report.restamped, stamper.report.fell_back) == (8, 0), stamper.report
    packet, kernel = [], []
    for raw, old in zip(better, plain, strict=True):
        record, before = Reader().read(raw, Asked(0, 10)), Reader().read(old, Asked(0, 10))
        assert (record.status, record.stamp, record.shared_stamps) == (Status.OK, "packet", 0)
        sent = min(server.sent_ns, key=lambda times: abs(times[0] - record.chunk_ns[0]))
        packet += [abs(a - b) for a, b in zip(record.chunk_ns, sent, strict=True)]
        kernel += [abs(a - b) for a, b in zip(before.chunk_ns, sent, strict=True)]
    assert sorted(packet)[len(packet) * 3 // 4] < sorted(kernel)[len(kernel) * 3 // 4] / 10


def test_a_certificate_that_nobody_vouches_for(server: TlsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    target = Target(socket.AF_INET, ("127.0.0.1", server.port), "localhost")
    streams = collect(target, 2)
    assert {raw.head.end for raw in streams} == {End.CONNECT}
    assert all("CERTIFICATE_VERIFY_FAILED" in raw.error for raw in streams)


def test_tls_with_a_server_that_speaks_none() -> None:
    with socket.create_server(("127.0.0.1", 0)) as plain:

        def answer() -> None:
            for _ in range(4):
                try:
                    sock, _ = plain.accept()
                except OSError:
                    return
                with sock:
                    sock.recv(100)
                    sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        streams = collect(Target(socket.AF_INET, ("127.0.0.1", plain.getsockname()[1]), "localhost"), 2)
        plain.shutdown(socket.SHUT_RDWR)
        thread.join(5)
    assert {raw.head.end for raw in streams} == {End.CONNECT}
    assert all("TLS handshake" in raw.error for raw in streams)
