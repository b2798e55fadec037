"""One HTTP request of the Omaha client: bounded in time as a whole, never redirected, its failures named."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import requests
import urllib3

from outrider.core.client_tokens import masked
from outrider.core.errors import DriverError, Unknown
from outrider.http import Deadline


@contextmanager
def exchange(
    url: str,
    body: bytes,
    *,
    timeout_s: float,
    user_agent: str,
    content_type: str = "text/xml; charset=utf-8",
    verify: bool | str = True,
    certificate: str | None = None,
    more_headers: Mapping[str, str] | None = None,
) -> Iterator[requests.Response]:
    """POST ``body`` on a connection of its own; the response's body is still to be read, inside the ``with``.

    ``verify`` is what proves a TLS server: the machine's authorities, a PEM file of others, or nothing (False).
    ``more_headers`` are sent, and shown nowhere; errors show ``url`` without the token of a client in it.

    Raises:
        DriverError: the request was never sent: no connection, or one that TLS refuses.
        Unknown: it was sent, and no whole answer came within ``timeout_s`` seconds. Reading the body inside the
            ``with`` block fails in the same ways.
    """
    headers = {
        "Content-Type": content_type,
        "User-Agent": user_agent,
        "Accept": "text/xml, application/xml",
        # No decoder, so no few bytes that unpack to gigabytes.
        "Accept-Encoding": "identity",
        "Connection": "close",
        **(more_headers or {}),
    }
    shown = masked(url)
    with requests.Session() as session, Deadline(timeout_s) as deadline:
        # Nothing reads the environment after start (proxies, .netrc).
        session.trust_env = False
        session.verify = verify
        session.cert = certificate
        session.mount("http://", deadline)
        session.mount("https://", deadline)
        try:
            with session.post(
                url, data=body, headers=headers, timeout=timeout_s, allow_redirects=False, stream=True
            ) as response:
                yield response
            if deadline.passed:
                # Cut off by us, a body without a stated length looks complete.
                raise TimeoutError
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            if deadline.passed or _read_in_vain(error):
                raise Unknown(f"{shown}: no whole answer within {timeout_s:g} s") from error
            if _never_sent(error):
                raise DriverError(f"{shown}: can't connect: {_innermost(error)}") from error
            raise Unknown(f"{shown}: no answer: {_innermost(error)}") from error


def _read_in_vain(error: BaseException) -> bool:
    """One read took all the time: the limit on a read may end it a moment before the deadline does."""
    in_vain = (requests.exceptions.ReadTimeout, urllib3.exceptions.ReadTimeoutError)
    return any(isinstance(cause, in_vain) for cause in _causes(error))


def _never_sent(error: BaseException) -> bool:
    unsent = (
        urllib3.exceptions.NewConnectionError,
        urllib3.exceptions.ConnectTimeoutError,
        urllib3.exceptions.SSLError,
        urllib3.exceptions.LocationParseError,
        requests.exceptions.InvalidURL,
    )
    return any(isinstance(cause, unsent) for cause in _causes(error))


def _innermost(error: BaseException) -> str:
    """The words of the operating system, not the chain of library objects around them."""
    causes = list(_causes(error))
    text = next((cause.strerror for cause in reversed(causes) if isinstance(cause, OSError) and cause.strerror), None)
    return text or str(causes[-1])[:200] or type(causes[-1]).__name__


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    todo: list[object] = [error]
    while todo:
        one = todo.pop(0)
        if isinstance(one, BaseException) and all(one is not other for other in seen):
            seen.append(one)
            yield one
            todo += [getattr(one, "reason", None), *one.args, one.__cause__, one.__context__]
