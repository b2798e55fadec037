"""Tokens of Omaha clients without a sidekick: how one is written, read, and hidden from people.

A token is the last part of a client's update address: ``oc_ID_SECRET``. The id finds what is stored of it, which is the
digest of the whole. Pure.
"""

import re
from dataclasses import dataclass

PREFIX = "oc_"
"""Every token begins with it, so people and secret scanners recognise one."""
_ID = "[0-9a-f]{12}"
_TOKEN = re.compile(rf"{PREFIX}({_ID})_[A-Za-z0-9_-]{{43}}")
_ANYWHERE = re.compile(rf"({PREFIX}{_ID}_)[A-Za-z0-9_-]+")
_IS_ID = re.compile(_ID)


@dataclass(frozen=True, slots=True)
class ClientToken:
    """A token as a client sent it; it never shows itself."""

    id: str
    text: str

    def __repr__(self) -> str:
        """Only the part that is no secret."""
        return f"{PREFIX}{self.id}_***"

    __str__ = __repr__


def parse_token(text: str) -> ClientToken | None:
    """Read the last part of an address; None when it is no token."""
    found = _TOKEN.fullmatch(text)
    return None if found is None else ClientToken(found[1], text)


def is_token_id(text: str) -> bool:
    """Whether a token can have this id."""
    return _IS_ID.fullmatch(text) is not None


def masked(text: str) -> str:
    """``text`` without the secret parts of the tokens in it, whole or cut."""
    return _ANYWHERE.sub(r"\1***", text) if PREFIX in text else text
