"""Tables of drivers: a name that an operator may choose, and the module that it stands for.

A driver is a module. It owns the settings of its section, says what is wrong with them, and makes the driver from
them. A module is imported when it is asked for; what only one driver needs (an SDK) is imported in its ``make``.
"""

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar, cast

from outrider.config.sections import Settings

Problem = tuple[str, str]
"""The setting to blame (``traefik.root``), and what is wrong with it and what to do, in one line."""


class Driver(Protocol):
    """What every driver module has, besides its ``make``."""

    @property
    def SETTINGS(self) -> type[Any] | None:  # noqa: N802 - a module's constant
        """The dataclass of the section that has the driver's name; None for a driver without settings."""

    def problems(self, settings: Settings) -> tuple[Problem, ...]:
        """What is wrong with ``settings`` when this driver is chosen; empty when it can be made."""


D = TypeVar("D", bound=Driver)


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverTable(Generic[D]):
    """The drivers of one kind.

    Attributes:
        chosen_by: The setting that names one of them.
        modules: Name -> module. The first is the default.
        products: What people may write instead, the product's name -> the driver that is for it.
    """

    chosen_by: str
    modules: Mapping[str, str]
    products: Mapping[str, str] = field(default_factory=dict)

    def __iter__(self) -> Iterator[str]:
        return iter(self.modules)

    def load(self, name: str) -> D:
        """The driver ``name``, which is in the table: the configuration takes no other."""
        return cast(D, importlib.import_module(self.modules[name]))
