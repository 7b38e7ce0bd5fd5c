"""Runs inside of the machine: says on the second serial line what a new journal of redline's says, as it is written."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

JOURNALS, LINE = Path("/var/lib/redline/node"), Path("/dev/ttyS1")


def main() -> None:
    known = {} if "--all" in sys.argv else {path: path.stat().st_size for path in JOURNALS.glob("*.jsonl")}
    with LINE.open("w") as out:
        print("following", file=out, flush=True)
        while True:
            for path in JOURNALS.glob("*.jsonl"):
                with path.open("rb") as file:
                    file.seek(known.get(path, 0))
                    for line in file:
                        if not line.endswith(b"\n"):
                            break
                        known[path] = known.get(path, 0) + len(line)
                        record = json.loads(line)
                        print(record["what"], record.get("i", ""), file=out, flush=True)
            time.sleep(0.005)


if __name__ == "__main__":
    main()
