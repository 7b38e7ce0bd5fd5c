from __future__ import annotations

from pathlib import Path

from redline.node.persist.unit import units
from tests.node.folder_box import folder_box
from tests.node.persist.test_lines import carry_out, setting

SYSTEMD = {"/usr/bin/systemctl": "", "/run/systemd/system/x": ""}
MEMLOCK = setting("LimitMEMLOCK", "infinity", "unit", "/x", "vllm")
DROP_IN = "/etc/systemd/system/vllm.service.d/90-redline.conf"


def container(root: Path, pid: int, scope: str, device: str) -> None:
    process = root / f"proc/{pid}"
    (process / "fd").mkdir(parents=True)
    (process / "cgroup").write_text(f"0::/system.slice/{scope}\n")
    (process / "fd/3").symlink_to(device)


def test_a_drop_in_and_systemd_is_told(tmp_path: Path) -> None:
    box = folder_box(tmp_path, files=SYSTEMD)
    form = units(box, [MEMLOCK])
    assert [change.label for change in form.changes] == [DROP_IN, "systemctl daemon-reload"]
    assert (form.changes[0].after or b"").endswith(b"[Service]\nLimitMEMLOCK=infinity\n")
    assert form.changes[1].undo_argv == form.changes[1].argv
    carry_out(box, form)
    again = units(box, [setting("LimitNOFILE", "1048576", "unit", "/x", "vllm")])
    assert (again.changes[0].after or b"").endswith(b"[Service]\nLimitMEMLOCK=infinity\nLimitNOFILE=1048576\n")
    assert units(box, [MEMLOCK]).changes == []


def test_slices_have_their_own_section(tmp_path: Path) -> None:
    form = units(folder_box(tmp_path, files={}), [setting("CPUWeight", "500", "unit", "/x", "infer.slice")])
    assert b"[Slice]\nCPUWeight=500\n" in (form.changes[0].after or b"")
    assert len(form.changes) == 1, "no systemd runs here"


def test_systemd_is_not_told_while_containers_hold_gpus(tmp_path: Path) -> None:
    box = folder_box(tmp_path, files=SYSTEMD)
    container(tmp_path, 10, f"docker-{'a' * 64}.scope", "/dev/nvidia0")
    container(tmp_path, 11, f"docker-{'a' * 64}.scope", "/dev/nvidiactl")
    container(tmp_path, 12, f"cri-containerd-{'b' * 64}.scope", "/dev/nvidia1")
    container(tmp_path, 13, f"docker-{'c' * 64}.scope", "/dev/null")
    container(tmp_path, 14, f"docker/{'d' * 64}", "/dev/nvidia0")  # the cgroupfs driver: systemd has no say in it
    form = units(box, [MEMLOCK])
    assert [change.label for change in form.changes] == [DROP_IN]
    assert any("drop the GPUs from 2 running containers" in warning for warning in form.warnings)
