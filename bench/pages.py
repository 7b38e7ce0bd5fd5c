"""How long each page of `redline ui` takes: of a normal run, and of a load point with very many requests.

    python bench/pages.py [--requests 1000000] [--db FILE]

Without --db two small simulated runs are written first. A page is asked for three times; the best is shown, and the
first where the answer is computed once and kept.
"""

from __future__ import annotations

import argparse
import re
import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from starlette.testclient import TestClient

from redline.pages.app import build
from redline.store.browse import Browser

sys.path.insert(0, str(Path(__file__).parent.parent))
GOAL_MS = 300.0
_COPY = """WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
INSERT INTO request ({columns}) SELECT {values} FROM n, (SELECT * FROM request WHERE id = ?)"""


def many_requests(path: Path, count: int) -> int:
    """A load point with `count` requests, each of its own length; its id."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        first, point = db.execute("SELECT id, point_id FROM request WHERE status = 'ok' AND NOT warmup").fetchone()
        columns = [row[1] for row in db.execute("PRAGMA table_info(request)") if row[1] != "id"]
        db.execute("INSERT INTO point SELECT NULL, trial_id, kind, 999, 'very many', started_ns, measured_from_ns, "
                   "ended_ns, stopped_by, outcome, verdict, reasons FROM point WHERE id = ?", (point,))  # fmt: skip
        made = int(db.execute("SELECT max(id) FROM point").fetchone()[0])
        changed = {
            "point_id": str(made),
            "request_index": "i",
            "finished_ns": "finished_ns + abs(random()) % 900000000",
        }
        values = ", ".join(changed.get(name, name) for name in columns)
        db.execute("BEGIN")
        db.execute(_COPY.format(columns=", ".join(columns), values=values), (count, first))
        db.execute("COMMIT")
    return made


def timed(client: TestClient, address: str) -> tuple[float, float, int]:
    """First and best of three in ms, and the size in kB."""
    took = []
    for _ in range(3):
        began = time.perf_counter()
        answer = client.get(address)
        took.append(1000 * (time.perf_counter() - began))
        assert answer.status_code == 200, (address, answer.text[:300])
    return took[0], min(took), len(answer.content) // 1000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=0, help="of the load point with very many")
    parser.add_argument("--db", type=Path, help="a results file; only read")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = asked.db or Path(folder) / "r.db"
        if asked.db is None:
            from tests.report.stored import write_run

            write_run(path, clients=(1, 10, 50), seconds=6.0)
            write_run(path, clients=(1, 10, 50), seconds=6.0)
        return show(path, asked.requests if asked.db is None else 0)


def show(path: Path, requests: int) -> int:
    with Browser.open(path) as reader:
        run = reader.run("last").id
        point = max(reader.points_counts(run))
        request = reader.request_lines(point)[0].id
    pages = ["/", f"/run/{run}", f"/run/{run}/findings", f"/run/{run}/live", f"/run/{run}/telemetry",
             f"/run/{run}/telemetry.json?group=engine", f"/point/{point}", f"/point/{point}/findings",
             f"/point/{point}/requests", f"/request/{request}", f"/request/{request}/chunks.json", "/compare",
             "/sql", "/static/x/style.css"]  # fmt: skip
    slow = 0
    with TestClient(build(path), base_url="http://127.0.0.1") as client:
        print(f"{'first ms':>9} {'best ms':>9} {'kB':>6}")
        for address in pages:
            first, best, size = timed(client, address)
            slow += best > GOAL_MS
            print(f"{first:9.1f} {best:9.1f} {size:6} {address}")
        if requests:
            made = many_requests(path, requests)
            print(f"a load point with {requests:,} requests")
            base = f"/point/{made}/requests"
            for address in (
                f"/run/{run}",
                base,
                f"{base}?order=first",
                f"{base}?order=ttft&kind=all",
                f"/run/{run}/live",
            ):
                print("{:9.1f} {:9.1f} {:6} {}".format(*timed(client, address), address))
            after = re.search(r'rel="next" href="([^"]+)"', client.get(base).text)
            if after:
                address = after[1].replace("&amp;", "&")
                print("{:9.1f} {:9.1f} {:6} {}".format(*timed(client, address), address))
    print(f"{slow} pages of a normal run over {GOAL_MS:.0f} ms")
    return int(slow > 0)


if __name__ == "__main__":
    sys.exit(main())
