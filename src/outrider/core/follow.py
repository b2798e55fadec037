"""What a channel follows at a registry: ``registry:5000/app:^2``, an image with the tags that count.

The tags are semver, also with a ``v`` before it. They are chosen by a range (``^2``, ``~1.4``, ``1.x``, ``>=1.2 <3``,
``*``), or by a pattern whose ``{version}`` stands for the version (``release-{version}``). A prerelease counts only if
the range names one of the same version.

Source: the ranges of node-semver (github.com/npm/node-semver, README.md).
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import semver

from outrider.core import versions
from outrider.core.errors import ConfigError
from outrider.core.images import parse_image

_PLACE = "{version}"
_PARTIAL = re.compile(r"(0|[1-9]\d*|[xX*])(?:\.(0|[1-9]\d*|[xX*]))?(?:\.(0|[1-9]\d*|[xX*])(-[0-9A-Za-z.-]+)?)?")
_COMPARISON = re.compile(r"(>=|<=|>|<|=|\^|~)?\s*(\S+)")
MAX_LENGTH = 500

_Test = Callable[[semver.Version], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """An image whose tags are followed.

    Attributes:
        name: With its registry.
        prefix, suffix: Around the version in a tag.
    """

    name: str
    prefix: str
    suffix: str
    _tests: tuple[_Test, ...]
    _prereleases: frozenset[tuple[int, int, int]]

    def newest(self, tags: Iterable[str]) -> tuple[str, str] | None:
        """Version and tag of the newest tag that counts; None when none does."""
        found = [(version, tag) for tag in tags if (version := self._version_of(tag)) is not None]
        best = max(found, key=lambda one: (one[0], one[1]), default=None)
        return None if best is None else (str(best[0]), best[1])

    def _version_of(self, tag: str) -> semver.Version | None:
        if not tag.startswith(self.prefix) or not tag.endswith(self.suffix):
            return None
        text = tag[len(self.prefix) : len(tag) - len(self.suffix)]
        try:
            version = versions.parse(text if self.prefix or self.suffix else text.removeprefix("v"))
        except ConfigError:
            return None
        if version.prerelease and (version.major, version.minor, version.patch) not in self._prereleases:
            return None
        return version if all(test(version) for test in self._tests) else None


def parse_follow(text: str) -> Followed:
    """Read what to follow.

    Raises:
        ConfigError: it is no image with a range or a pattern.
    """
    last = text.rfind(":")
    name, chosen = (text[:last], text[last + 1 :].strip()) if last > text.rfind("/") else (text, "")
    if not chosen or len(text) > MAX_LENGTH:
        raise ConfigError(f"follow {text[:200]!r}: write IMAGE:RANGE, for example registry:5000/app:^2")
    parse_image(f"{name}:x")
    if _PLACE in chosen:
        prefix, _, suffix = chosen.partition(_PLACE)
        if not re.fullmatch(r"[A-Za-z0-9_.-]*", prefix + suffix):
            raise ConfigError(f"follow {text!r}: {chosen!r} is no tag with {_PLACE} in it")
        return Followed(name=name, prefix=prefix, suffix=suffix, _tests=(), _prereleases=frozenset())
    tests: list[_Test] = []
    named: set[tuple[int, int, int]] = set()
    rest = chosen
    while rest:
        found = _COMPARISON.match(rest)
        if found is None:
            raise ConfigError(f"follow {text!r}: {chosen!r} is no range")
        rest = rest[found.end() :].lstrip()
        tests += _tests_of(text, found[1] or "", found[2], named)
    return Followed(name=name, prefix="", suffix="", _tests=tuple(tests), _prereleases=frozenset(named))


def _tests_of(text: str, sign: str, operand: str, named: set[tuple[int, int, int]]) -> list[_Test]:
    """What one comparison of a range asks of a version."""
    found = _PARTIAL.fullmatch(operand)
    if found is None:
        raise ConfigError(f"follow {text!r}: {operand!r} is no version, nor a part of one such as 2 or 1.4")
    numbers = [int(part) for part in found.groups()[:3] if part is not None and part.isdigit()]
    if any(part is not None and part.isdigit() for part in found.groups()[len(numbers) : 3]):
        raise ConfigError(f"follow {text!r}: {operand!r}: no number may follow an x")
    major, minor, patch = [*numbers, 0, 0, 0][:3]
    least = semver.Version(major, minor, patch, prerelease=(found[4] or "")[1:] or None)
    if found[4]:
        named.add((least.major, least.minor, least.patch))
    above = _above(least, len(numbers))
    match sign:
        case ">":
            return [lambda one: one > least] if len(numbers) == 3 else [lambda one: above is not None and one >= above]
        case ">=":
            return [lambda one: one >= least]
        case "<":
            return [lambda one: one < least]
        case "<=":
            return [lambda one: one <= least] if len(numbers) == 3 else [lambda one: above is None or one < above]
        case "^":
            # up to the first number that isn't 0
            place = next((place for place, number in enumerate(numbers, 1) if number), len(numbers))
            limit = _above(least, place)
        case "~":
            limit = _above(least, min(2, len(numbers)))
        case _:
            if len(numbers) == 3:
                return [lambda one: one == least]
            limit = above
    return [lambda one: one >= least, lambda one: limit is None or one < limit]


def _above(least: semver.Version, places: int) -> semver.Version | None:
    """The first version that differs from ``least`` in its first ``places`` numbers; None for no place: any version."""
    match places:
        case 0:
            return None
        case 1:
            return semver.Version(least.major + 1)
        case 2:
            return semver.Version(least.major, least.minor + 1)
        case _:
            return semver.Version(least.major, least.minor, least.patch + 1)
