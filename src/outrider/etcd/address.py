"""etcd's address from what an operator wrote, without connecting: endpoints, and the password's file."""

from collections.abc import Iterable
from pathlib import Path

from outrider.core import addresses
from outrider.etcd.seam import Endpoint


def endpoints_of(texts: Iterable[str], *, tls: bool) -> tuple[tuple[Endpoint, ...], bool]:
    """The endpoints in the seam's terms, and whether they are asked over TLS.

    Args:
        tls: A file of certificates is given.

    Raises:
        ValueError: one can't be used, or they contradict each other; the text says what to write.
    """
    found, over_tls = addresses.parse_endpoints(texts, tls=tls)
    return tuple(Endpoint(host=each.host, port=each.port) for each in found), over_tls


def read_password(path: Path) -> str:
    """The password in a file; a line break at its end is cut.

    Raises:
        ValueError: the file can't be read, is not text, or is empty; the text says which, without the path.
    """
    try:
        password = path.read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise ValueError(f"can't be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ValueError("not UTF-8") from error
    if not password:
        raise ValueError("is empty")
    return password
