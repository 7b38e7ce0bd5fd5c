"""Takes out of a text whatever identifies a box or a person, and puts the same placeholder for the same thing.

Equal things stay equal, so that a control group's path still fits the folder of that name.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from redline.node.tunables.find import engines_in

_HARMLESS = re.compile(
    r"(?i)(?:localhost|localdomain|vm|host|node|cpu|gpu|eth|nvme|server|client|worker|master|box|root|admin|user|test"
    r"|ubuntu|debian|docker|linux|default|system|none|nobody)-?\d{0,3}"
)
"""Names that identify nobody, and that often also are words of the kernel's: `vm`, `node1`."""

NEVER = re.compile(
    r"(?i)serial|uuid|guid|wwid|wwn|nqn|asset_tag|machine-id|hostname|domainname|^address$|^addresses$|permaddr|phys_switch_id"
    r"|unique_id|^eui$|^vpd|^authorized_keys$|shadow$"
)
"""Names of files whose content is left out as a whole."""

_SECRET = re.compile(
    r"(?i)\b([\w.-]*(?:password|passwd|passphrase|secret|token|api[_-]?key|credential)[\w.-]*\s*[=:]\s*)(?:\"[^\"\n]*\"|'[^'\n]*'|\S+)"
)
_SERIAL = re.compile(r"(?im)\b((?:serial|board part|board id|asset tag)[\w }\])]*?\s*[=:]=?\s*)(\S[^\n,;]*)")
_UUID = re.compile(r"(?i)(?<![0-9a-f])[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}(?![0-9a-f])")
_SHORT_UUID = re.compile(r"(?i)\b((?:PART)?UUID=)[^\s,]+")
_LONG_HEX = re.compile(r"(?i)(?<![0-9a-z])(?:0x)?[0-9a-f]{32,}(?![0-9a-z])")
_MAC = re.compile(r"(?i)(?<![0-9a-f:-])[0-9a-f]{2}(?:([:-])[0-9a-f]{2})(?:\1[0-9a-f]{2}){4,18}(?![0-9a-f:-])")
_NAMED_BY_MAC = re.compile(r"(?i)\b(enx|wlx|wwx)([0-9a-f]{12})\b")
_GUID = re.compile(r"(?i)(?<![0-9a-f:])[0-9a-f]{4}(?::[0-9a-f]{4}){3}(?![0-9a-f:])")
_WORLD_WIDE = re.compile(r"(?i)\b(eui\.|naa\.|wwn-0x|t10\.)[\w.-]+")
_IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w.])")
_IPV6 = re.compile(r"(?i)(?<![0-9a-f:])[0-9a-f:]*:[0-9a-f:]*:[0-9a-f:]*(?:\d+(?:\.\d+){3})?")
_URL_HOST = re.compile(r"(?<=://)[^/\s\"',]+")
_HOME = re.compile(r"(?<=/home/)[^/\s:\"',]+")
_REMOTE = re.compile(r"(?m)(?<!\S)(?:\[?[\w.:-]+\]?:/(?!/)|//[\w.-]+/)\S*")
"""`server:/export` and `//server/share` as /proc/mounts has them."""
_DOMAIN = re.compile(r"(?i)\b[\w-]+(?:\.[\w-]+)*\.(?:local|lan|internal|intra|corp|home|cluster|compute)\b")


def _engines(out: str) -> str:
    """Of all processes only the engines, by their kind: command lines hold secrets."""
    return "\n".join(f"{pid} {name}" for pid, name in engines_in(out))


def _of_the_driver(out: str) -> str:
    return "\n".join(line for line in out.splitlines() if re.search("NVRM|NVSwitch|BAR1", line))


def _all(out: str) -> str:
    return out


KEPT: dict[str, Callable[[str], str]] = {
    "ps": _engines,
    "dmesg": _of_the_driver,
    **dict.fromkeys(
        ("nvidia-smi", "nvcc", "nv-fabricmanager", "nvidia-ctk", "docker", "podman", "containerd", "ss"), _all
    ),
}
"""What is kept of a command's answer before the rest of this module looks at it."""


@dataclass
class Redactor:
    """`names`: host names and users of this box."""

    names: Collection[str] = ()
    _seen: dict[str, str] = field(default_factory=dict)
    _counts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        telling = {name for name in self.names if len(name) > 2 and not _HARMLESS.fullmatch(name)}
        longest_first = sorted((re.escape(name) for name in telling), key=len, reverse=True)
        self._named = re.compile(rf"(?i)(?<![a-z0-9])(?:{'|'.join(longest_first)})(?![a-z0-9])") if telling else None

    def text(self, content: str) -> str:
        """Everything that this module knows, out of a file's content or a command's answer."""
        content = _SECRET.sub(r"\1redacted", content)
        content = _SERIAL.sub(r"\1redacted", content)
        content = _SHORT_UUID.sub(r"\1...", content)
        content = self._each(_URL_HOST, "server", content)
        return self.named(self._each(_DOMAIN, "host", self.path(content)))

    def mounts(self, content: str) -> str:
        """Of /proc/mounts and its like: also servers and what they export."""
        return self.text(_REMOTE.sub(lambda found: self._placeholder("server", found[0]) + ":/", content))

    def command(self, line: str, out: str) -> str | None:
        """A command's answer; None for one that this module does not know, which may say anything."""
        keep = KEPT.get(line.split(" ", 1)[0])
        return None if keep is None else self.text(keep(out))

    def named(self, text: str) -> str:
        """Without the box's own names. Not for files of single words: a box may be called `performance`."""
        return self._each(self._named, "name", text) if self._named else text

    def path(self, path: str) -> str:
        """What may stand in names of files too: ids of containers, addresses, users' folders."""
        path = self._each(_UUID, "id", path)
        path = self._each(_LONG_HEX, "id", path)
        path = _NAMED_BY_MAC.sub(lambda found: found[1] + self._placeholder("mac", found[2]), path)
        path = self._each(_MAC, "mac", path)
        path = self._each(_GUID, "guid", path)
        path = _WORLD_WIDE.sub(lambda found: found[1] + self._placeholder("id", found[0]), path)
        path = self._each(_HOME, "user", path)
        path = _IPV4.sub(self._address, path)
        return _IPV6.sub(self._address, path)

    def _each(self, pattern: re.Pattern[str], kind: str, text: str) -> str:
        return pattern.sub(lambda found: self._placeholder(kind, found[0]), text)

    def _placeholder(self, kind: str, value: str) -> str:
        if re.fullmatch(r"(?:id|mac|guid|user|ip|name|host|server)-\d+", value):
            return value
        if value not in self._seen:
            self._counts[kind] = self._counts.get(kind, 0) + 1
            self._seen[value] = f"{kind}-{self._counts[kind]}"
        return self._seen[value]

    def _address(self, found: re.Match[str]) -> str:
        """Loopback and "any" tell nothing; what is no address after all stays."""
        before, value, after = found[0], found[0], ""
        if ":" in value:  # `address:fe80::1`, `[fe80::1]:22`
            value = value.removeprefix(":") if not value.startswith("::") else value
            value = value.removesuffix(":") if not value.endswith("::") else value
            before, after = found[0].split(value, 1) if value else ("", "")
        else:
            before = ""
        try:
            address = ipaddress.ip_address(value)
        except ValueError:
            return found[0]
        if address.is_loopback or address.is_unspecified:
            return found[0]
        return before + self._placeholder("ip", value) + after
