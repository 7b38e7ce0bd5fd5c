"""What drivers and libraries there are, for which distributions, and until when: `recipes/drivers.yaml` as records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from importlib.resources import files
from typing import Any, Literal

import yaml

from redline.errors import UsageError
from redline.spec.faults import did_you_mean

DEFAULT_BRANCH = "580"
STALE_MONTHS = 12
SOON_MONTHS = 3
Family = Literal["debian", "rhel"]


@dataclass(frozen=True)
class Dated:
    """`until`, `extended`, `checked`: YYYY-MM; '' for what has no end of its own."""

    name: str
    source: str
    checked: str
    until: str = ""
    extended: str = ""

    @property
    def label(self) -> str:
        return self.name

    def warnings(self, today: date) -> list[str]:
        """What a person should know before relying on it."""
        said, now = [], f"{today:%Y-%m}"
        if self.until and self.until < now:
            more = f" (extended support until {self.extended})" if self.extended >= now else ""
            said.append(f"{self.label}: support ended {self.until}{more}")
        elif self.until and months_between(now, self.until) <= SOON_MONTHS:
            said.append(f"{self.label}: support ends {self.until}")
        if months_between(self.checked, now) > STALE_MONTHS:
            said.append(f"{self.label}: last looked up {self.checked}, so newer versions and dates are likely")
        return said


@dataclass(frozen=True)
class Branch(Dated):
    """Of the driver. `cuda`: the toolkit's version."""

    kind: str = ""
    cuda: str = ""

    @property
    def label(self) -> str:
        return f"driver branch {self.name}"


@dataclass(frozen=True)
class Release(Dated):
    """`ids`: `ID-VERSION` of /etc/os-release. `without`: components that are not packaged for it, and why."""

    ids: tuple[str, ...] = ()
    family: Family = "debian"
    repo: str = ""
    architectures: tuple[str, ...] = ()
    cuda: str = ""
    lock: str = ""
    without: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Component(Dated):
    """`debian`, `rhel`: packages, with `{branch}`, `{cuda}` and `{major}` to fill in. `proof`: what the check asks."""

    debian: tuple[str, ...] = ()
    rhel: tuple[str, ...] = ()
    proof: str = ""
    seen: str = ""


@dataclass(frozen=True)
class Drivers:
    """Everything that can be chosen from."""

    branches: Mapping[str, Branch]
    releases: Mapping[str, Release]
    components: Mapping[str, Component]


@dataclass(frozen=True)
class Choice:
    """What is to be installed."""

    branch: Branch
    components: tuple[Component, ...]
    releases: tuple[Release, ...]

    def packages(self, release: Release, component: Component) -> tuple[str, ...]:
        """Names of packages; () where there are none for this release."""
        if component.name in release.without:
            return ()
        cuda = self.cuda(release)
        words = {"branch": self.branch.name, "cuda": cuda.replace(".", "-"), "major": cuda.partition(".")[0]}
        return tuple(name.format(**words) for name in getattr(component, release.family))

    def cuda(self, release: Release) -> str:
        """Not older than the first that is packaged for the release."""
        return max(
            self.branch.cuda, release.cuda, key=lambda text: tuple(int(part) for part in text.split(".") if part)
        )

    def warnings(self, today: date, release: Release | None = None) -> list[str]:
        """Of the branch, the components, and the one release that is meant, if any is known."""
        dated: list[Dated] = [self.branch, *self.components, *([release] if release else [])]
        said = [text for one in dated for text in one.warnings(today)]
        if release:
            said += [
                f"{one.name}: {release.without[one.name]}" for one in self.components if one.name in release.without
            ]
        return said


def months_between(earlier: str, later: str) -> int:
    """Of two YYYY-MM."""
    (a, b), (c, d) = (map(int, text.split("-")) for text in (earlier, later))
    return (c - a) * 12 + d - b


@lru_cache(maxsize=1)
def drivers() -> Drivers:
    told: dict[str, dict[str, dict[str, Any]]] = yaml.safe_load(
        (files("redline") / "recipes" / "drivers.yaml").read_text()
    )

    def made(kind: Any, part: str) -> dict[str, Any]:
        return {
            name: kind(name=name, **{key: _frozen(value) for key, value in fields.items()})
            for name, fields in told[part].items()
        }

    return Drivers(made(Branch, "branches"), made(Release, "releases"), made(Component, "components"))


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def choose(branch: str = DEFAULT_BRANCH, components: Sequence[str] = ()) -> Choice:
    """UsageError for a branch or a component that is not known; all components when none is named."""
    known = drivers()
    if branch not in known.branches:
        raise UsageError(f"no driver branch {branch}", fix=f"one of {', '.join(sorted(known.branches))}")
    for name in components:
        if name not in known.components:
            raise UsageError(f"no component {name!r}", fix=did_you_mean(name, sorted(known.components)))
    names = [name for name in known.components if name in components or not components]
    parts = tuple(known.components[name] for name in names)
    return Choice(known.branches[branch], parts, tuple(known.releases.values()))


def release_of(id_: str, version: str) -> Release | None:
    """By `ID` and `VERSION_ID` of /etc/os-release; minor versions of RHEL and its kin do not count."""
    whole, major = f"{id_}-{version}", f"{id_}-{version.partition('.')[0]}"
    found = (one for one in drivers().releases.values() if whole in one.ids or major in one.ids)
    return next(found, None)
