"""Names of units and users: what outrider calls them, escaped as systemd wants it.

Source: systemd.unit(5) "String Escaping for Inclusion in Unit Names"; systemd.exec(5), DynamicUser=.
"""

import hashlib
import re

_PLAIN = re.compile(r"[A-Za-z0-9:_.-]")
"""A dash stays, too: it means a slash only in names made from paths."""
_USER = re.compile(r"[a-z0-9_-]{1,20}")


def escaped(text: str) -> str:
    """``text`` as a part of a unit's name."""
    return "".join(char if _PLAIN.fullmatch(char) else _hex(char) for char in text)


def unit_of(instance: str, workload_id: str) -> str:
    """The unit that outrider makes for a workload. Instances have no ``@``, so no two pairs share one."""
    return f"outrider-app-{escaped(instance)}@{escaped(workload_id)}.service"


def pattern_of(instance: str) -> str:
    """Glob for the units that outrider makes for an instance."""
    return f"outrider-app-{escaped(instance)}@*.service"


def drains_of(instance: str) -> tuple[str, ...]:
    """The units that drain ``instance`` when its machine shuts down: as installed, and as ``units render`` calls it."""
    return tuple(f"outrider-shutdown{between}{escaped(instance)}.service" for between in "@-")


def own_unit_of(unit: str, version: str, instance: str) -> str:
    """The operator's unit for a version: of ``example@.service`` it is ``example@1.0.0-a.service``.

    A unit that is no template is the same for all versions.
    """
    if not unit.endswith("@.service"):
        return unit
    return f"{unit.removesuffix('.service')}{escaped(f'{version}-{instance}')}.service"


def user_of(instance: str) -> str:
    """Name of the user that exists only while an app of ``instance`` runs.

    All versions share it, and so the files that they keep.
    """
    name = instance if _USER.fullmatch(instance) else hashlib.sha256(instance.encode()).hexdigest()[:12]
    return f"outrider-{name}"


def _hex(char: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in char.encode())
