from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from redline.errors import EnvironmentFault, UsageError
from redline.observe.trace import chrome
from redline.observe.trace.chrome import read_chrome
from redline.observe.trace.columns import ANNOTATION, KERNEL, LAUNCH, OP
from tests.observe.trace.kineto import host, kernel, whole, written

MANY = [kernel(f"k{number % 3}", number * 3.0, 2.0, correlation=number + 1) for number in range(5000)]


@pytest.mark.parametrize("name", ["t.json", "t.json.gz"])
@pytest.mark.parametrize("chunk", [200, 4096, 1 << 22])
def test_every_event_is_read_whatever_the_pieces(
    tmp_path: Path, name: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chrome, "CHUNK", chunk)
    found = read_chrome(written(tmp_path / name, MANY[: 200 if chunk == 200 else 5000]))
    count = 200 if chunk == 200 else 5000
    assert len(found) == count
    assert found.readout.trouble == ""
    assert found.readout.bad == 0
    assert found.correlation.tolist() == list(range(1, count + 1))
    assert found.start_us[7] == 21.0
    assert found.names == ("k0", "k1", "k2")
    assert found.tracks == (("device 0", "stream 7"),)


def test_what_is_kept_and_what_is_not(tmp_path: Path) -> None:
    events = [
        host("cpu_op", "aten::mm", 1, 2),
        host("user_annotation", "mine", 0, 5),
        host("python_function", "f.py(3): g", 0, 5),
        host("cuda_runtime", "cudaLaunchKernel", 1, 1, correlation=5),
        host("cuda_runtime", "cudaStreamSynchronize", 2, 1, correlation=6),
        kernel("k", 3, 1, correlation=5),
        '  {"ph": "M", "name": "process_name", "pid": 1, "args": {"name": "python"}}',
        '  {"ph": "s", "id": 5, "pid": 1, "tid": 1, "ts": 1, "cat": "ac2g", "name": "ac2g"}',
    ]
    found = read_chrome(written(tmp_path / "t.json", events))
    assert sorted(found.kind.tolist()) == sorted([OP, ANNOTATION, LAUNCH, KERNEL])
    assert found.readout.events == 8


def test_an_event_that_holds_a_list_of_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`},{` inside an event is no border between two."""
    monkeypatch.setattr(chrome, "CHUNK", 256)
    odd = '{"ph": "X", "cat": "cpu_op", "name": "a},{b", "ts": 1, "dur": 1, "args": {"l": [{"x": 1}, {"y": "}"}]}}'
    found = read_chrome(written(tmp_path / "t.json", [odd, *MANY[:50], odd, odd]))
    assert len(found) == 53
    assert found.readout.bad == 0


def test_numbers_that_are_none_and_numbers_in_quotes(tmp_path: Path) -> None:
    odd = [
        '{"ph": "X", "cat": "cpu_op", "name": "nan", "ts": 1, "dur": 1, "args": {"blocks per SM": nan, "y": -Infinity}}'
    ]
    quoted = ['{"ph": "X", "cat": "cpu_op", "name": "quoted", "ts": "2.5", "dur": "1"}']
    found = read_chrome(written(tmp_path / "t.json", [*odd, *quoted, MANY[0]]))
    assert len(found) == 3
    assert 2.5 in found.start_us.tolist()


def test_a_malformed_event_costs_itself_only(tmp_path: Path) -> None:
    events = [*MANY[:100], '  {"ph": "X", "cat": "kernel", "name": "bad", "ts": oops, "dur": 1}', *MANY[100:200]]
    found = read_chrome(written(tmp_path / "t.json", events))
    assert len(found) == 200
    assert found.readout.bad == 1
    assert "1 were malformed" in found.readout.sentence()


@pytest.mark.parametrize("share", [0.2, 0.5, 0.97])
def test_a_truncated_trace_says_what_was_readable(tmp_path: Path, share: float) -> None:
    text = whole(MANY)
    path = tmp_path / "t.json"
    path.write_text(text[: int(len(text) * share)])
    found = read_chrome(path)
    assert 0.9 * share * 5000 < len(found) < 5000
    assert "ends in the middle" in found.readout.sentence()


def test_a_truncated_gzip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chrome, "CHUNK", 1 << 16)
    data = gzip.compress(whole(MANY).encode())
    path = tmp_path / "t.json.gz"
    path.write_bytes(data[: len(data) // 2])
    found = read_chrome(path)
    assert 1000 < len(found) < 5000
    assert "ends early" in found.readout.trouble


def test_a_damaged_gzip(tmp_path: Path) -> None:
    data = bytearray(gzip.compress(whole(MANY).encode(), 1))
    data[len(data) // 2 : len(data) // 2 + 50] = b"\xff" * 50
    path = tmp_path / "t.json.gz"
    path.write_bytes(data)
    found = read_chrome(path)
    assert len(found) < 5000
    assert found.readout.trouble


def test_a_gzip_of_several_parts(tmp_path: Path) -> None:
    text = whole(MANY[:100]).encode()
    path = tmp_path / "t.json.gz"
    path.write_bytes(gzip.compress(text[:5000]) + gzip.compress(text[5000:]))
    found = read_chrome(path)
    assert (len(found), found.readout.trouble) == (100, "")


@pytest.mark.parametrize("content", [b"", b"hello", b"{}", b'{"a": [1, 2]}', b"\x1f\x8bbroken", b'{"traceEvents": []}'])
def test_what_is_no_trace_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "t.json"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="no event"):
        read_chrome(path)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="cannot be read"):
        read_chrome(tmp_path / "none.json")


def test_a_bare_list_of_events(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text("[" + ",".join(MANY[:10]) + "]")
    assert len(read_chrome(path)) == 10


def test_progress_reaches_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chrome, "CHUNK", 1 << 16)
    path = written(tmp_path / "t.json", MANY)
    seen: list[tuple[int, int]] = []
    read_chrome(path, lambda done, of: seen.append((done, of)))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] == seen[-1][1] == path.stat().st_size


def test_memory_follows_what_is_kept_and_not_the_file(tmp_path: Path) -> None:
    """40 MB of trace, in which a fifth of the events are kept, in far less than 40 MB."""
    path = tmp_path / "t.json"
    noise = [host("python_function", "x" * 100, 0, 1).replace("External id", "Python id") for _ in range(4000)]
    block = ",\n".join([*MANY[:1000], *noise])
    with path.open("w") as file:
        file.write('{"traceEvents": [\n')
        file.write(",\n".join([block] * 30))
        file.write("\n]}")
    assert path.stat().st_size > 35e6
    code = (
        "import resource, sys\nfrom pathlib import Path\nfrom redline.observe.trace.chrome import read_chrome\n"
        "most = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\nbefore = most()\n"
        "found = read_chrome(Path(sys.argv[1]))\nprint(len(found), most() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    count, grown = done.stdout.split()
    assert int(count) == 30_000
    assert float(grown) < 36


def test_against_torch(tmp_path: Path) -> None:
    """A trace that torch wrote, beside the json module's reading of it."""
    torch = pytest.importorskip("torch")
    path = tmp_path / "t.json.gz"
    kinds = [torch.profiler.ProfilerActivity.CPU]
    name = "execute_context_0(0)_generation_1(1)"
    with torch.profiler.profile(activities=kinds) as profile, torch.profiler.record_function(name):
        torch.nn.functional.linear(torch.randn(4, 8), torch.randn(8, 8)).softmax(-1)
    profile.export_chrome_trace(str(path))
    found = read_chrome(path)
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    kept = [e for e in events if e["ph"] == "X" and e.get("cat") in ("cpu_op", "user_annotation")]
    assert len(found) == len(kept) > 5
    assert sorted(found.names[i] for i in found.name) == sorted(e["name"] for e in kept)
    assert sum(found.length_us) == pytest.approx(sum(float(e["dur"]) for e in kept))
