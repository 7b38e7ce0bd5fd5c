#!/usr/bin/env bash
# Debian's Prometheus (with promtool), node_exporter and Docker Compose, unpacked into a folder for the tests.
# Nothing is installed and no service is started: the packages are downloaded and their programs taken out.
#   scripts/install-monitoring.sh FOLDER
set -euo pipefail
where=${1:-.monitoring}
bin=$where/bin
for tool in prometheus promtool prometheus-node-exporter docker-compose; do [[ -x $bin/$tool ]] || missing=yes; done
[[ -n ${missing:-} ]] || { echo "monitoring: already in $bin"; exit 0; }
if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
  echo "monitoring: this is no Debian or Ubuntu. Put prometheus, promtool, prometheus-node-exporter and docker-compose on PATH yourself" >&2
  exit 3
fi

mkdir -p "$bin"
where=$(realpath "$where") bin=$where/bin
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{lists,cache/archives}/partial
# lists of our own, so that the box's are not touched; its mirror, and for Compose 2 the release that has it
mirror=$(apt-cache policy 2>/dev/null | grep -oE 'https?://[^ ]+/debian' | grep -v security | head -n 1 || true)
own=(-o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work/cache" -o APT::Sandbox::User=root)

take() { # PACKAGE PROGRAM…: downloads the package and takes the programs out
  local package=$1; shift
  (cd "$work" && apt-get "${own[@]}" download "$package" >/dev/null 2>&1) || return 1
  dpkg-deb -x "$work/$package"_*.deb "$work/$package"
  local program
  for program in "$@"; do cp "$(find "$work/$package/usr" -type f -name "$program" -perm -u+x | head -n 1)" "$bin/"; done
}

apt-get "${own[@]}" update -qq
take prometheus prometheus promtool
take prometheus-node-exporter prometheus-node-exporter
if [[ -n $mirror ]]; then
  echo "deb $mirror trixie main" >"$work/trixie.list"
  own+=(-o "Dir::Etc::SourceList=$work/trixie.list" -o Dir::Etc::SourceParts=/dev/null)
  rm -rf "$work"/lists/*; mkdir -p "$work/lists/partial"
  apt-get "${own[@]}" update -qq && take docker-compose docker-compose || echo "monitoring: no Docker Compose; its test is skipped" >&2
fi
echo "monitoring: $("$bin/promtool" --version 2>&1 | head -n 1), in $bin"
