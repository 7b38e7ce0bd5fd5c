"""Two thousand streams at once: everybody is connected, served and accounted for, in bounded memory."""

from __future__ import annotations

from pathlib import Path

from redline.load.crew import Crew
from redline.load.frames import Arrivals, End, Phase, PhaseDone, RawStream, Tick
from redline.load.paced.pace import Pace
from redline.load.paced.server import PacedServer
from redline.load.target import resolve
from tests.load.test_crew import requests

STREAMS = 2_000


def resident(crew: Crew) -> int:
    pids = [worker.process.pid for worker in crew.workers if worker.process]
    pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids]
    return sum(pages) * 4096


def test_two_thousand_streams_at_once() -> None:
    pace = Pace(ttft_ms=3000, itl_ms=100, usage="none")
    with PacedServer(pace) as server, Crew(resolve(server.base_url), 2) as crew:
        while not crew.ready:
            crew.hear(0.5)
        idle = resident(crew)
        crew.feed(requests(server, STREAMS, tokens=2))
        crew.start(Phase(Arrivals.CLOSED, clients=STREAMS, requests=STREAMS, ramp_ns=500_000_000, preconnect=True))
        heard: list[RawStream] = []
        most = used = 0
        done = None
        while done is None:
            for item in crew.hear(0.2):
                if isinstance(item, RawStream):
                    heard.append(item)
                elif isinstance(item, Tick) and item.in_flight > most:
                    most, used = item.in_flight, resident(crew) - idle
                elif isinstance(item, PhaseDone):
                    done = item
    assert sorted(raw.head.number for raw in heard) == list(range(STREAMS))
    assert {raw.head.end for raw in heard} == {End.COMPLETE}
    assert most > STREAMS / 2  # all of them, unless the box is so busy that the first end before the last begin
    assert used / STREAMS < 20_000  # bytes per stream in flight; about 3,500 on 64-bit Python 3.11
