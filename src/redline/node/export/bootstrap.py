"""Drivers and libraries as a script for bash: installs what is missing, refuses where it would guess, checks after.

One text for every distribution that is known, so that the same file serves user data, playbooks and people.
"""

from __future__ import annotations

from redline.node.export.drivers import Choice, Release

_HEAD = r"""#!/bin/bash
# Written by `redline node export`. As root: NVIDIA's driver, libraries and container toolkit, from its repositories.
# What is installed already is left alone. --check installs nothing and says what nvidia-smi, nvcc and the linker say.
# Exit codes: 0 all is there, 1 something does not work, 3 refused with nothing changed, 4 reboot and run it again.
# REDLINE_ROOT=DIR reads and writes files there, for tests.
set -euo pipefail
export LC_ALL=C DEBIAN_FRONTEND=noninteractive
ROOT="${REDLINE_ROOT:-}"
"""

_REFUSE = r"""
refuse() { # what, what to do
  echo "refused, nothing was changed: $1" >&2
  echo "  $2" >&2
  exit 3
}

os_release() { # name
  # shellcheck disable=SC1091
  (. "$ROOT/etc/os-release" && echo "${!1:-}")
}

known() { # which box this is, into the variables of its release
  local id version
  [ -r "$ROOT/etc/os-release" ] || refuse "no /etc/os-release: the distribution is not known" "install by hand"
  id="$(os_release ID)" version="$(os_release VERSION_ID)"
  case "$id-$version" in
"""

_UNKNOWN = r"""    *) refuse "$id $version is not known here" "known: {known}" ;;
  esac
  machine="$(uname -m)"
  case "$machine" in aarch64) architecture=sbsa ;; *) architecture="$machine" ;; esac
  case " $architectures " in
    *" $architecture "*) ;;
    *) refuse "no packages for $machine on $id $version" "known: $architectures" ;;
  esac
}
"""

_PRESENT = r"""
installed() { # package
  if [ "$family" = debian ]; then
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
  else
    rpm -q --quiet "$1"
  fi
}

running() { # branch of the driver that is loaded; nothing when none is
  sed -n 's/^NVRM version:.* \([0-9]\{3\}\)\.[0-9.]*  .*/\1/p' "$ROOT/proc/driver/nvidia/version" 2>/dev/null || true
}

preflight() {
  local now
  [ "$(id -u)" = 0 ] || refuse "installing takes root" "sudo $0"
  now="$(running)"
  if [ -n "$now" ] && ! installed nvidia-open; then
    refuse "driver $now runs, and no package of NVIDIA's repository owns it" \
      "remove it first (nvidia-uninstall, or the distribution's packages)"
  fi
  if [ -n "$now" ] && [ "$now" != "$BRANCH" ] && [ "${REDLINE_SWITCH_DRIVER:-}" != 1 ]; then
    refuse "driver $now runs, and this is for $BRANCH" "stop what uses the GPUs, then REDLINE_SWITCH_DRIVER=1 $0"
  fi
  if command -v mokutil >/dev/null && mokutil --sb-state 2>/dev/null | grep -q enabled; then
    echo "note: Secure Boot is on: enroll the key that signs the modules (mokutil --import), or they do not load"
  fi
}
"""

_REPOSITORIES = r"""
fetch() { # address file
  curl -fsSL --retry 3 -o "$2" "$1"
}

repositories_debian() {
  local keyring="/usr/share/keyrings/nvidia-container-toolkit-keyring.gpg" new
  local list="$ROOT/etc/apt/sources.list.d/nvidia-container-toolkit.list"
  local needed=()
  for tool in curl gpg; do command -v "$tool" >/dev/null || needed+=("${tool/gpg/gnupg}"); done
  if [ "${#needed[@]}" -gt 0 ]; then apt-get -q update && apt-get -qy install ca-certificates "${needed[@]}"; fi
  new="$(mktemp -d)"
  if ! installed cuda-keyring; then
    fetch "$CUDA_REPOSITORY/$repo/$architecture/cuda-keyring_1.1-1_all.deb" "$new/cuda-keyring.deb"
    dpkg -i "$new/cuda-keyring.deb"
    changed=1
  fi
  if [ ! -s "$ROOT$keyring" ]; then
    fetch "$TOOLKIT_REPOSITORY/gpgkey" "$new/key"
    gpg --batch --yes --dearmor -o "$ROOT$keyring" "$new/key"
    changed=1
  fi
  if [ ! -s "$list" ]; then
    fetch "$TOOLKIT_REPOSITORY/stable/deb/nvidia-container-toolkit.list" "$new/list"
    sed "s#deb https://#deb [signed-by=$keyring] https://#" "$new/list" >"$list"
    changed=1
  fi
  rm -rf "$new"
}

repositories_rhel() {
  local cuda="$ROOT/etc/yum.repos.d/cuda-$repo.repo" toolkit="$ROOT/etc/yum.repos.d/nvidia-container-toolkit.repo" new
  new="$(mktemp)"
  if [ ! -s "$cuda" ]; then
    fetch "$CUDA_REPOSITORY/$repo/$architecture/cuda-$repo.repo" "$new" && install -m 0644 "$new" "$cuda"
    changed=1
  fi
  if [ ! -s "$toolkit" ]; then
    fetch "$TOOLKIT_REPOSITORY/stable/rpm/nvidia-container-toolkit.repo" "$new" && install -m 0644 "$new" "$toolkit"
    changed=1
  fi
  rm -f "$new"
  if ! installed dkms && ! dnf -q list dkms >/dev/null 2>&1; then # the modules are built on this box
    dnf -qy install "https://dl.fedoraproject.org/pub/epel/epel-release-latest-${repo#rhel}.noarch.rpm"
    changed=1
  fi
}
"""

_INSTALL = r"""
headers() { # of the kernel that runs: modules are built against them
  if [ "$family" = debian ]; then
    echo "linux-headers-$(uname -r)"
  else
    echo "kernel-devel-$(uname -r) kernel-headers"
  fi
}

branch_rhel() { # keeps to the branch of the driver
  if [ "$lock" = versionlock ]; then
    installed python3-dnf-plugin-versionlock || dnf -qy install python3-dnf-plugin-versionlock
    dnf -q versionlock list 2>/dev/null | grep -q "nvidia.*$BRANCH" || dnf -q versionlock "*nvidia*$BRANCH*"
  elif ! dnf -q module list --enabled nvidia-driver 2>/dev/null | grep -q "$BRANCH-open"; then
    dnf -qy module enable "nvidia-driver:$BRANCH-open"
  fi
}

packages() {
  local missing=() package
  # shellcheck disable=SC2086
  for package in $wanted; do installed "$package" || missing+=("$package"); done
  if [ "${#missing[@]}" = 0 ]; then return 0; fi
  case " ${missing[*]} " in
    *" nvidia-open "*)
      # shellcheck disable=SC2207
      missing=($(headers) "${missing[@]}")
      ;;
  esac
  echo "installing: ${missing[*]}"
  if [ "$family" = debian ]; then
    apt-get -q update
    # the pin comes before what it pins
    case " ${missing[*]} " in
      *" nvidia-driver-pinning-$BRANCH "*) apt-get -qy install "nvidia-driver-pinning-$BRANCH" ;;
    esac
    apt-get -qy install --no-install-recommends "${missing[@]}"
  else
    case " ${missing[*]} " in *" nvidia-open "*) branch_rhel ;; esac
    dnf -qy install "${missing[@]}"
  fi
  changed=1
}
"""

_TOOLKIT = r"""
described() { # whether containers can name the GPUs (CDI)
  compgen -G "$ROOT/etc/cdi/nvidia*.yaml" >/dev/null || compgen -G "$ROOT/var/run/cdi/nvidia*.yaml" >/dev/null
}

toolkit() {
  command -v nvidia-ctk >/dev/null || return 0
  if [ -d "$ROOT/run/systemd/system" ] && [ -e "$ROOT/usr/lib/systemd/system/nvidia-cdi-refresh.path" ]; then
    # written anew whenever the driver or the GPUs change; no reload of systemd, which takes GPUs from containers
    systemctl is-enabled -q nvidia-cdi-refresh.path 2>/dev/null || systemctl enable -q --now nvidia-cdi-refresh.path
    described || systemctl start nvidia-cdi-refresh.service 2>/dev/null || true
  fi
  if [ -n "$(running)" ] && ! described; then
    mkdir -p "$ROOT/etc/cdi"
    nvidia-ctk cdi generate --output="$ROOT/etc/cdi/nvidia.yaml"
    changed=1
  fi
  if command -v dockerd >/dev/null && ! grep -qs '"nvidia"' "$ROOT/etc/docker/daemon.json"; then
    nvidia-ctk runtime configure --runtime=docker
    echo "note: systemctl restart docker, when its containers may stop, lets it use the GPUs"
    changed=1
  fi
}
"""

_CHECK = r"""
failed=0
reboot=0

say() { # ok|failed|reboot what found
  printf '%-7s %-10s %s\n' "$1" "$2" "$3"
  case "$1" in failed) failed=1 ;; reboot) reboot=1 ;; esac
}

check_driver() {
  local now told
  now="$(running)"
  if [ -z "$now" ]; then
    if installed nvidia-open; then
      say reboot driver "installed, and the kernel has not loaded it yet"
    else
      say failed driver "not installed"
    fi
  elif [ "$now" != "$BRANCH" ]; then
    say reboot driver "$now is loaded, $BRANCH is wanted"
  elif told="$(nvidia-smi --query-gpu=driver_version,name --format=csv,noheader 2>&1)"; then
    say ok driver "$(echo "$told" | sort | uniq -c | sed 's/^ *//' | tr '\n' ';')"
  else
    say failed driver "nvidia-smi: $(echo "$told" | sed -n 1p)"
  fi
}

check_cuda() {
  local nvcc="$ROOT/usr/local/cuda-$cuda/bin/nvcc" told
  told="$("$nvcc" --version 2>/dev/null | sed -n 's/.*release \([0-9.]*\),.*/\1/p' || true)"
  if [ "$told" = "$cuda" ]; then say ok cuda "nvcc $told"; else say failed cuda "${told:-no $nvcc}, $cuda is wanted"; fi
}

check_library() { # name, start of its file's name
  local found
  found="$(ldconfig -p 2>/dev/null | sed -n "s/.* => \(.*\/$2[0-9.]*\)$/\1/p" | sed -n 1p)"
  if [ -n "$found" ]; then say ok "$1" "$(readlink -f "$found")"; else say failed "$1" "the linker finds no $2"; fi
}

check_toolkit() {
  local told
  if ! told="$(nvidia-ctk --version 2>/dev/null | sed -n 1p)"; then
    say failed toolkit "no nvidia-ctk"
  elif [ -z "$(running)" ]; then
    say ok toolkit "$told; GPUs are described once the driver runs"
  elif nvidia-ctk cdi list 2>/dev/null | grep -q '^nvidia.com/gpu='; then
    say ok toolkit "$told; $(nvidia-ctk cdi list 2>/dev/null | grep -c '^nvidia.com/gpu=[0-9]') GPUs described (CDI)"
  else
    say failed toolkit "$told, and no GPU is described for containers (nvidia-ctk cdi list)"
  fi
}
"""

_LIBRARIES = {"cudnn": "libcudnn.so.9", "nccl": "libnccl.so.2", "tensorrt": "libnvinfer.so"}

_END = r"""
changed=0
case "${1:-}" in
  "")
    known
    preflight
    "repositories_$family"
    packages
    [ -n "$(running)" ] || modprobe nvidia 2>/dev/null || true
    toolkit
    ;;
  --check) known ;;
  *)
    echo "usage: $0 [--check]" >&2
    exit 2
    ;;
esac
checks
if [ "$failed" != 0 ]; then exit 1; fi
if [ "$reboot" != 0 ]; then
  mkdir -p "$ROOT/run" && touch "$ROOT/run/redline-reboot"
  echo "reboot, then run $0 --check"
  exit 4
fi
if [ "$changed" = 0 ]; then echo "nothing was missing"; else echo "installed and working"; fi
"""


def bootstrap(choice: Choice) -> str:
    """The script."""
    names = [component.name for component in choice.components]
    cases = "".join(_case(choice, release) for release in choice.releases)
    known = ", ".join(release.name for release in choice.releases)
    checks = "".join(f"  {_check(name)}\n" for name in names)
    return "".join(
        [
            _HEAD, f"BRANCH={choice.branch.name}\n",
            'CUDA_REPOSITORY="${REDLINE_CUDA_REPOSITORY:-https://developer.download.nvidia.com/compute/cuda/repos}"\n',
            'TOOLKIT_REPOSITORY="${REDLINE_TOOLKIT_REPOSITORY:-https://nvidia.github.io/libnvidia-container}"\n',
            _REFUSE, cases, _UNKNOWN.replace("{known}", known), _PRESENT, _REPOSITORIES, _INSTALL, _TOOLKIT, _CHECK,
            f"\nchecks() {{\n{checks}}}\n", _END,
        ]
    )  # fmt: skip


def _case(choice: Choice, release: Release) -> str:
    """One branch of `case`, for every name of a release; of RHEL and its kin every minor version."""
    dot = "" if release.family == "debian" else "*"
    patterns = " | ".join(f"{id_} | {id_}.{dot}" if dot else id_ for id_ in release.ids)
    wanted = " ".join(name for one in choice.components for name in choice.packages(release, one))
    absent = " ".join(one.name for one in choice.components if one.name in release.without)
    variables = {
        "family": release.family, "repo": release.repo, "architectures": " ".join(release.architectures),
        "lock": release.lock, "cuda": choice.cuda(release), "wanted": wanted,
    }  # fmt: skip
    if any(one.name in _LIBRARIES for one in choice.components):
        variables["absent"] = absent
    lines = "".join(f'      {name}="{value}"\n' for name, value in variables.items())
    notes = "".join(
        f'      echo "note: {one.name}: {release.without[one.name]}"\n'
        for one in choice.components
        if one.name in release.without
    )
    return f"    {patterns})\n{lines}{notes}      ;;\n"


def _check(name: str) -> str:
    if name in _LIBRARIES:
        return f'case " $absent " in *" {name} "*) ;; *) check_library {name} {_LIBRARIES[name]} ;; esac'
    return f"check_{name}"
