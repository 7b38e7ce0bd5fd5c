"""Smallness is measured: files of at most 400 lines, functions of at most 40. Prints the worst and the totals."""

from __future__ import annotations

import ast
import sys
from collections import Counter
from pathlib import Path

FILE_LINES = 400
FUNCTION_LINES = 40
NAMELESS = {"utils", "util", "common", "helpers", "helper", "misc", "core", "base"}


def functions(path: Path) -> list[tuple[int, str]]:
    """(lines, 'file:line name') of every function; the docstring does not count."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            is_doc = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
            doc = (first.end_lineno or 0) - first.lineno + 1 if is_doc else 0
            found.append(((node.end_lineno or 0) - node.lineno + 1 - doc, f"{path}:{node.lineno} {node.name}"))
    return found


def main() -> int:
    root = Path("src/redline")
    files = sorted(root.rglob("*.py"))
    lengths = sorted(((len(path.read_text().splitlines()), path) for path in files), reverse=True)
    spans = sorted((span for path in files for span in functions(path)), reverse=True)
    rooms: Counter[str] = Counter()
    for lines, path in lengths:
        inside = path.relative_to(root)
        rooms[inside.parts[0] if len(inside.parts) > 1 else "."] += lines
    faults = [f"{path}: {lines} lines, at most {FILE_LINES}" for lines, path in lengths if lines > FILE_LINES]
    faults += [f"{where}: {lines} lines, at most {FUNCTION_LINES}" for lines, where in spans if lines > FUNCTION_LINES]
    faults += [f"{path}: a name that says nothing" for path in files if NAMELESS & {*path.parts, path.stem}]
    print(
        f"{sum(rooms.values())} lines in {len(files)} files: " + ", ".join(f"{k} {v}" for k, v in sorted(rooms.items()))
    )
    print("longest files: " + ", ".join(f"{path.relative_to(root)} {lines}" for lines, path in lengths[:3]))
    print("longest functions: " + ", ".join(f"{where.rsplit(' ', 1)[-1]} {lines}" for lines, where in spans[:3]))
    for fault in faults:
        print(fault, file=sys.stderr)
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
