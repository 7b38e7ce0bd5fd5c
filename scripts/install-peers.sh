#!/usr/bin/env bash
# Installs other load generators, each into a virtual environment of its own, for `python bench/peers.py` and the live tests.
#
#   scripts/install-peers.sh [FOLDER] [TOOL…]        default: .venv-peers and all four
#
# torch goes in first where a tool needs it, in its CPU build, so that no gigabytes of CUDA come along. vLLM has a script
# of its own (`make vllm`). Of SGLang only bench_serving is wanted: its wheel goes in without the engine's dependencies.
set -euo pipefail

folder=${1:-.venv-peers}
[ $# -gt 0 ] && shift
[ $# -gt 0 ] || set -- guidellm aiperf inference-perf sglang

python_for() { # inference-perf wants Python 3.12
    [ "$1" = inference-perf ] || { echo "${PYTHON:-python3}"; return; }
    for found in python3.13 python3.12 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[23].*/bin/python; do
        "$found" -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null && { echo "$found"; return; }
    done
    echo ""
}

for tool in "$@"; do
    case $tool in
        guidellm) wanted=guidellm==0.8.1 before=torch==2.13.0 ;;
        aiperf) wanted=aiperf==0.13.0 before= ;;
        inference-perf) wanted=inference-perf==0.7.0 before= ;;
        sglang) wanted=sglang==0.5.23 before= ;;
        *) echo "no recipe for $tool" >&2; exit 2 ;;
    esac
    if [ -x "$folder/$tool/bin/python" ] && [ "$(cat "$folder/$tool/redline-peer" 2>/dev/null)" = "$wanted" ]; then
        echo "$tool: ready ($wanted)"
        continue
    fi
    python=$(python_for "$tool")
    if [ -z "$python" ]; then
        echo "$tool: needs Python 3.12 or later; skipped" >&2
        continue
    fi
    echo "$tool: $wanted ..."
    "$python" -m venv "$folder/$tool"
    # the configured index may have the CPU build; PyTorch's own is asked only where it has not
    [ -z "$before" ] || "$folder/$tool/bin/pip" install -q "$before+cpu" 2>/dev/null ||
        "$folder/$tool/bin/pip" install -q "$before" --extra-index-url https://download.pytorch.org/whl/cpu
    if [ "$tool" = sglang ]; then # what its benchmark imports, then the wheel alone
        "$folder/$tool/bin/pip" install -q aiohttp datasets msgspec numpy orjson pillow psutil pybase64 pyzmq requests \
            tqdm transformers==5.19.0
        "$folder/$tool/bin/pip" install -q --no-deps "$wanted"
    else
        "$folder/$tool/bin/pip" install -q "$wanted"
    fi
    echo "$wanted" >"$folder/$tool/redline-peer"
done
