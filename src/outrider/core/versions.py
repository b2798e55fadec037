"""Versions: strict semver 2.0.0, parsed once, never compared as text."""

from functools import cache

import semver

from outrider.core.errors import ConfigError

NOTHING = "0.0.0"
"""The version an instance reports before it ever ran anything (updatectl's own default for ``--version``)."""


@cache
def parse(text: str) -> semver.Version:
    """Read a semver 2.0.0 version such as ``1.2.3-rc.1+build.5``.

    Raises:
        ConfigError: ``text`` is not strict semver; ``v1.2`` and ``1.2.3.4`` are refused.
    """
    try:
        return semver.Version.parse(text)
    except (ValueError, TypeError):
        raise ConfigError(f"version {text!r}: not semver; write MAJOR.MINOR.PATCH, for example 1.2.3") from None


def is_newer(candidate: str, running: str) -> bool:
    """Tell whether ``candidate`` comes after ``running`` in semver order (build metadata doesn't count)."""
    return parse(candidate) > parse(running)
