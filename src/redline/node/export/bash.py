"""A plan as a script for bash: it does what is not done yet, keeps what was there, and takes it back on demand."""

from __future__ import annotations

import base64
import shlex

from redline.node.change import Change, value_of
from redline.node.plan import Plan

_HEAD = r"""#!/bin/bash
# Written by `redline node export`. As root: the settings below, now and after every boot; --revert takes them back.
# What is set already is left alone. REDLINE_ROOT=DIR works on a copy of a box and runs no commands.
set -euo pipefail
ROOT="${REDLINE_ROOT:-}"
KEEP="$ROOT/var/lib/redline/export"
changed=0
failed=0
"""

_REMEMBER = r"""
declare -A kept=()
if [ -f "$KEEP/log" ]; then
  while IFS=$'\t' read -r kind path old; do kept["$kind $path"]="$old"; done <"$KEEP/log"
fi

remember() { # kind path old: only what was there before the first run
  if [ -n "${kept["$1 $2"]+set}" ]; then return 0; fi
  [ -d "$KEEP" ] || mkdir -p "$KEEP"
  printf '%s\t%s\t%s\n' "$1" "$2" "$3" >>"$KEEP/log"
  kept["$1 $2"]="$3"
}
"""

_ATTRIBUTE = r"""
now() { # into $present: the bracketed word of a choice, else the words with single blanks
  local words=()
  read -r -d '' -a words 2>/dev/null <"$1" || true
  present="${words[*]:-}"
  case "$present" in *\[*\]*) present="${present#*\[}" && present="${present%%\]*}" ;; esac
}

attribute() { # path value partners: the kernel changes partners along, and refuses to be given their 0
  local path="$ROOT$1" value="$2" old partner
  if [ ! -e "$path" ]; then
    echo "absent: $1"
    return 0
  fi
  now "$path"
  old="$present"
  if [ "$old" = "$value" ]; then return 0; fi
  for partner in "${@:3}"; do # before the value: they are put back after it
    if [ -e "$ROOT$partner" ] && now "$ROOT$partner" && [ "$present" != 0 ]; then
      remember attribute "$partner" "$present"
    fi
  done
  if [ "$old" != 0 ] || [ $# -lt 3 ]; then remember attribute "$1" "$old"; fi
  if printf '%s\n' "$value" 2>/dev/null >"$path"; then
    echo "$1: $old -> $value"
    changed=$((changed + 1))
  else
    echo "refused: $1 = $value" >&2
    failed=1
  fi
}
"""

_KEEP = r"""
keep_file() { # path
  if [ -n "${kept["file $1"]+set}" ]; then return 0; fi
  if [ -f "$ROOT$1" ]; then
    mkdir -p "$KEEP/files$(dirname "$1")"
    cp -p "$ROOT$1" "$KEEP/files$1"
    remember file "$1" kept
  else
    remember file "$1" absent
  fi
}
"""

_REPLACE = r"""
folder() { # path: one that was not there goes again
  if [ -d "$ROOT$1" ]; then return 0; fi
  folder "$(dirname "$1")"
  remember folder "$1" absent
  mkdir "$ROOT$1"
}

replace() { # path mode, content on stdin
  local path="$ROOT$1" new
  folder "$(dirname "$1")"
  new="$(mktemp "$path.XXXXXX")"
  cat >"$new"
  if [ -f "$path" ] && cmp -s "$path" "$new"; then
    rm -f "$new"
    return 0
  fi
  keep_file "$1"
  chmod "$2" "$new"
  if [ -f "$path" ]; then chmod --reference="$path" "$new" && chown --reference="$path" "$new"; fi
  mv -f "$new" "$path"
  echo "wrote $1"
  changed=$((changed + 1))
}
"""

_DISCARD = r"""
discard() { # path
  if [ ! -f "$ROOT$1" ]; then return 0; fi
  keep_file "$1"
  rm -f "$ROOT$1"
  echo "removed $1"
  changed=$((changed + 1))
}
"""

_RUN = r"""
run() { # command: what rewrites files from those above
  if [ -n "$ROOT" ]; then
    echo "not run on a copy: $*"
  else
    "$@"
  fi
}
"""

_BACK = r"""
back() {
  local kind path old
  if [ ! -f "$KEEP/log" ]; then
    echo "nothing to take back"
    return 0
  fi
  while IFS=$'\t' read -r kind path old; do
    case "$kind $old" in
      "file absent") rm -f "$ROOT$path" ;;
      "folder absent") rmdir "$ROOT$path" 2>/dev/null || echo "kept: $path, which is not empty" ;;
      "file kept") cp -p "$KEEP/files$path" "$ROOT$path" ;;
      attribute*) printf '%s\n' "$old" >"$ROOT$path" || failed=1 ;;
    esac
    echo "back: $path"
  done < <(tac "$KEEP/log")
"""

_MIDDLE = r"""  if [ "$failed" = 0 ]; then rm -rf "$KEEP"; fi
}

forth() {
"""

_END = r"""  echo "$changed changed"
}

case "${1:-}" in
  "") forth ;;
  --revert) back ;;
  *)
    echo "usage: $0 [--revert]" >&2
    exit 2
    ;;
esac
exit "$failed"
"""


_FUNCTIONS = {
    ("attribute", False): _ATTRIBUTE,
    ("file", False): _REPLACE,
    ("file", True): _DISCARD,
    ("command", False): _RUN,
}


_DRIVERS = r"""
drivers() { # in a shell of its own: what it refuses ends it, and nothing was set yet
  if [ -n "$ROOT" ]; then
    echo "not run on a copy: drivers and libraries"
    return 0
  fi
  bash -c "$DRIVERS" "$0" "$@"
}
"""

_END_WITH_DRIVERS = r"""  echo "$changed changed"
}

drove=0
case "${1:-}" in
  "")
    drivers || drove=$?
    case "$drove" in 0 | 4) ;; *) exit "$drove" ;; esac
    forth
    ;;
  --check)
    drivers --check || exit $?
    ;;
  --revert)
    back
    echo "drivers and libraries stay: their packages are for apt-get or dnf to remove"
    ;;
  *)
    echo "usage: $0 [--check | --revert]" >&2
    exit 2
    ;;
esac
if [ "$failed" = 0 ]; then exit "$drove"; fi
exit 1
"""


def bash(plan: Plan, drivers: str = "") -> str:
    """The script. Its exit code is 1 when the kernel refused a value; everything else is then done all the same.
    `drivers`: a script that is run first; the settings are made when it ends with 0, or with 4 for a reboot."""
    redone = [_run(change.redo_argv) for change in reversed(plan.changes) if change.redo_argv]
    done = [line for change in plan.changes for line in _lines(change)]
    kinds = {(change.kind, change.kind == "file" and change.after is None) for change in plan.changes}
    # a function that nobody calls is a warning of shellcheck's
    keeping = [_REMEMBER] if any(kind != "command" for kind, _ in kinds) else []
    keeping += [_KEEP] if any(kind == "file" for kind, _ in kinds) else []
    more = keeping + [text for kind, text in _FUNCTIONS.items() if kind in kinds]
    first = [f"\nDRIVERS=\"$(\n  cat <<'REDLINE_DRIVERS'\n{drivers}REDLINE_DRIVERS\n)\"\n", _DRIVERS] if drivers else []
    end = _END_WITH_DRIVERS if drivers else _END
    return "".join([_HEAD, *first, *more, _BACK, *redone, _MIDDLE, *(done or ["  :\n"]), end])


def _lines(change: Change) -> list[str]:
    title = f"  # {', '.join(change.tunable_ids)}\n"
    if change.kind == "command":
        return [title, f'  if [ "$changed" != 0 ]; then {_run(change.argv).strip()}; fi\n']
    path = shlex.quote(change.path)
    if change.kind == "attribute":
        words = [path, shlex.quote(value_of(change.after or b"")), *map(shlex.quote, change.coupled)]
        return [title, f"  attribute {' '.join(words)}\n"]
    if change.after is None:
        return [title, f"  discard {path}\n"]
    return [title, f"  replace {path} {change.mode or 0o644:04o} {_content(change.after)}"]


def _run(argv: tuple[str, ...]) -> str:
    return f"  run {shlex.join(argv)}\n"


def _content(content: bytes) -> str:
    """As it is where a person can read it, else in base64."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = ""
    if text.endswith("\n") and "\0" not in text and "\nREDLINE_END\n" not in f"\n{text}":
        return f"<<'REDLINE_END'\n{text}REDLINE_END\n"
    return f"< <(base64 -d <<<{shlex.quote(base64.b64encode(content).decode())})\n"
