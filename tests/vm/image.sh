#!/usr/bin/env bash
# Makes the disk of the virtual machine in which `make test-vm` tries `redline node`.
#
#   tests/vm/image.sh [DIR]        default: .vm; DIR/base.qcow2 is the disk, DIR/key logs in as root
#
# Debian 12 as a server has it: systemd, GRUB, AppArmor, TuneD, irqbalance, sshd, swap, and what redline needs from
# PyPI. Takes mmdebstrap, e2fsprogs, fdisk, qemu-utils and root; no loop device, no mount of its own. A stamp file makes
# a second call free. Exit code 3: this box cannot make it; the reason is on stderr.
set -euo pipefail
cd "$(dirname "$0")/../.."

release=bookworm
dir=${1:-.vm}
python=${PYTHON:-python3}
packages=systemd-sysv,dbus,udev,kmod,procps,iproute2,ethtool,pciutils,openssh-server,ca-certificates
packages+=,linux-image-amd64,initramfs-tools,zstd,grub-pc,apparmor,tuned,irqbalance,numactl,python3,python3-venv
wanted="$release recipe 1 $packages $(sed -n '/^dependencies = \[/,/^\]/p' pyproject.toml | sha256sum | cut -c1-12)"
wanted+=" $(sha256sum <"$0" | cut -c1-12)"

unavailable() {
    echo "the virtual machine cannot be made here: $1" >&2
    exit 3
}

if [ -f "$dir/stamp" ] && [ "$(cat "$dir/stamp")" = "$wanted" ] && [ -f "$dir/base.qcow2" ]; then
    echo "vm: $dir/base.qcow2 is ready"
    exit 0
fi
for need in mmdebstrap mke2fs sfdisk qemu-img ssh-keygen; do
    PATH="$PATH:/usr/sbin:/sbin" command -v "$need" >/dev/null || unavailable \
        "$need is missing; apt-get install mmdebstrap e2fsprogs fdisk qemu-utils qemu-system-x86 openssh-client"
done
[ "$(id -u)" = 0 ] || unavailable "it takes root (files of other owners)"
[ "$(uname -m)" = x86_64 ] || unavailable "the recipe is for x86_64, this is $(uname -m)"

export PATH="$PATH:/usr/sbin:/sbin"
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
root=$dir/root
rm -rf "$root" "$dir"/{stamp,base.qcow2,disk.raw,wheels,key,key.pub}
ssh-keygen -q -t ed25519 -N '' -C redline-vm -f "$dir/key"

echo "vm: what redline needs from PyPI ..."
"$python" - >"$dir/needs.txt" <<'PYTHON'
import tomllib
print("\n".join(tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"]))
PYTHON
"$python" -m pip -q --disable-pip-version-check download -r "$dir/needs.txt" -d "$dir/wheels" \
    --only-binary=:all: --implementation cp --python-version 3.11 \
    --platform manylinux2014_x86_64 --platform manylinux_2_28_x86_64

echo "vm: Debian $release (some minutes) ..."
nice -n 10 mmdebstrap --quiet --variant=apt --include="$packages" --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --skip=cleanup/apt/lists "$release" "$root" 2>"$dir/mmdebstrap.log" || {
    tail -n 15 "$dir/mmdebstrap.log" >&2
    unavailable "mmdebstrap failed (lines above)"
}
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/archives/*.deb

put() { # put FILE [MODE], content on stdin
    mkdir -p "$root$(dirname "$1")"
    cat >"$root$1"
    chmod "${2:-644}" "$root$1"
}

put /etc/hostname <<<box
put /etc/fstab <<'FILE'
/dev/vda1 / ext4 defaults 0 1
/swap none swap nofail 0 0
/dev/nvme0n1 /srv/models ext4 nofail 0 0
FILE
mkdir -p "$root/srv/models"
# emulated on a busy host everything takes longer than systemd waits for
put /etc/systemd/system.conf.d/slow.conf <<'FILE'
[Manager]
DefaultTimeoutStartSec=15min
DefaultTimeoutStopSec=5min
DefaultDeviceTimeoutSec=15min
FILE
# one file per card, as an administrator would write them
put /etc/systemd/network/10-access.network <<'FILE'
[Match]
Name=access
[Network]
DHCP=ipv4
FILE
put /etc/systemd/network/20-fabric.network <<'FILE'
[Match]
Name=fabric
[Network]
Address=10.99.0.1/24
ConfigureWithoutCarrier=yes
LinkLocalAddressing=no
FILE
put /etc/systemd/network/10-access.link <<'FILE'
[Match]
MACAddress=52:54:00:00:00:01
[Link]
Name=access
FILE
put /etc/systemd/network/20-fabric.link <<'FILE'
[Match]
MACAddress=52:54:00:00:00:02
[Link]
Name=fabric
FILE
put /etc/initramfs-tools/conf.d/few-modules <<<'MODULES=list'
printf '%s\n' virtio_pci virtio_blk nvme ext4 >>"$root/etc/initramfs-tools/modules"
# no_timer_check: on a busy host the emulated timer may be late for the kernel's test of it
put /etc/default/grub <<'FILE'
GRUB_DEFAULT=0
GRUB_TIMEOUT=0
GRUB_RECORDFAIL_TIMEOUT=0
GRUB_DISTRIBUTOR=Debian
GRUB_CMDLINE_LINUX_DEFAULT="quiet"
GRUB_CMDLINE_LINUX="console=ttyS0,115200 no_timer_check panic=5"
GRUB_TERMINAL=console
GRUB_DISABLE_OS_PROBER=true
FILE
put /root/.ssh/authorized_keys 600 <"$dir/key.pub"
chmod 700 "$root/root/.ssh"
put /etc/ssh/sshd_config.d/vm.conf <<'FILE'
UseDNS no
PermitRootLogin prohibit-password
FILE
# the last steps of the set-up take a kernel of the machine's own: they are done at the first boot, which then ends
put /etc/systemd/system/finish.service <<'FILE'
[Unit]
Description=Boot loader of the image
After=local-fs.target
[Service]
Type=oneshot
ExecStart=/bin/sh -ec 'umask 77; dd if=/dev/zero of=/swap bs=1M count=64; mkswap /swap; umask 22; grub-install /dev/vda; update-grub; systemctl disable finish.service; sync; echo finished >/dev/ttyS1'
ExecStartPost=/bin/systemctl --no-block poweroff
[Install]
WantedBy=multi-user.target
FILE

cp -r "$dir/wheels" "$root/wheels"
chroot "$root" /bin/sh -ec '
    export DEBIAN_FRONTEND=noninteractive
    python3 -m venv /opt/redline
    /opt/redline/bin/pip -q --disable-pip-version-check install --no-index --find-links /wheels /wheels/*.whl
    ln -s /opt/redline/bin/redline /usr/local/bin/redline
    systemctl -q enable systemd-networkd finish.service ssh
    systemctl -q mask apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer e2scrub_reap.service \
        fstrim.timer dpkg-db-backup.timer getty@tty1.service serial-getty@ttyS0.service systemd-networkd-wait-online.service
    update-initramfs -u >/dev/null 2>&1
'
rm -rf "$root/wheels"
cp -L "$root"/vmlinuz "$root"/initrd.img "$dir/"

echo "vm: the disk ..."
truncate -s 4G "$dir/disk.raw"
echo 'start=2048, type=83, bootable' | sfdisk -q "$dir/disk.raw"
mke2fs -q -t ext4 -L root -d "$root" -E offset=1048576 "$dir/disk.raw" $((4 * 1024 * 1024 - 1024))k
qemu-img convert -O qcow2 "$dir/disk.raw" "$dir/base.qcow2"
rm -rf "$root" "$dir/disk.raw" "$dir/wheels"
"$python" -m tests.vm.machine "$dir"
echo "$wanted" >"$dir/stamp"
echo "vm: $dir/base.qcow2 is ready after $SECONDS s"
