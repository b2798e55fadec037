"""How a setting is written down: its default, its help, what it must keep to; and the type of a secret one."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")


class Secret:
    """A text that never shows itself: ``repr``, ``str`` and every log line of it are ``***``."""

    __slots__ = ("_text",)

    def __init__(self, text: str = "") -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself, for the library that needs it."""
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What a value of a setting must keep to besides its type.

    Attributes:
        help: One sentence for the operator.
        least, most: Bounds of a number, both allowed themselves.
        above: Bound of a number that isn't allowed itself.
        pattern: Regular expression that a text, or each text of a list, must match as a whole.
        wanted: What ``pattern`` means, in words, for the error line.
        empty: Whether an empty text or list is all right where there is a pattern.
    """

    help: str
    least: float | None = None
    most: float | None = None
    above: float | None = None
    pattern: str = ""
    wanted: str = ""
    empty: bool = True


def setting(
    default: T,
    help: str,
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    pattern: str = "",
    wanted: str = "",
    empty: bool = True,
) -> T:
    """A setting with its default; the bounds are checked at load."""
    rule = Rule(help=help, least=least, most=most, above=above, pattern=pattern, wanted=wanted, empty=empty)
    value: T = field(default=default, metadata={"rule": rule})
    return value


def computed(factory: Callable[[], T], help: str, *, pattern: str = "", wanted: str = "") -> T:
    """A setting whose default is found out on this machine, or is a mapping."""
    rule = Rule(help=help, pattern=pattern, wanted=wanted, empty=False)
    value: T = field(default_factory=factory, metadata={"rule": rule})
    return value


def required(help: str, *, pattern: str = "", wanted: str = "") -> Any:
    """A setting without a default: the operator has to say it."""
    return field(metadata={"rule": Rule(help=help, pattern=pattern, wanted=wanted, empty=False)})
