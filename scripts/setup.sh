#!/usr/bin/env bash
# Makes the virtual environment $VENV with redline, every extra and the development tools.
# Without an NVIDIA GPU torch is the CPU build, pinned in constraints/cpu.txt, so that plain pip takes it; where the
# configured index has no such build, pip is sent to PyTorch's own index of CPU builds. TORCH=cpu or TORCH=gpu decides by hand.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3} venv=${VENV:-.venv}

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  echo "setup: $python is $("$python" --version 2>&1 || echo missing); redline needs Python 3.11 or newer. Try: make setup PYTHON=python3.12" >&2
  exit 3
fi
if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
  echo "setup: $python has no venv module. On Debian and Ubuntu: apt-get install python3-venv" >&2
  exit 3
fi

torch=${TORCH:-}
if [[ -z $torch ]]; then
  if [[ -e /proc/driver/nvidia/version || -e /dev/nvidiactl ]] || command -v nvidia-smi >/dev/null; then torch=gpu; else torch=cpu; fi
fi

echo "setup: $venv, torch for $torch"
[[ -x $venv/bin/python ]] || "$python" -m venv "$venv"
pip=("$venv/bin/python" -m pip --disable-pip-version-check)
"${pip[@]}" install -q --upgrade 'pip>=25.1'  # the first that reads dependency groups

if [[ $torch == cpu ]]; then
  wanted=$(grep '^torch==' constraints/cpu.txt)
  have=$("$venv/bin/python" -c 'import importlib.metadata as m; print("torch==" + m.version("torch"))' 2>/dev/null || true)
  if [[ $have != "$wanted" ]]; then
    echo "setup: installing $wanted (200 MB)"
    "${pip[@]}" install -q "$wanted" 2>/dev/null ||
      "${pip[@]}" install -q "$wanted" --extra-index-url https://download.pytorch.org/whl/cpu
  fi
fi
echo "setup: installing redline and its tools"
"${pip[@]}" install -q -c "constraints/$torch.txt" -e '.[all]' --group dev
echo "$torch" >"$venv/.torch"
