"""Sends events to people, in chat or by mail, by the library ``apprise`` (extra ``notify``).

Source of the addresses: https://github.com/caronc/apprise/wiki, such as ``slack://A/B/C/#ops``
or ``mailto://user:password@example.org``.
"""

from typing import Any

from loguru import logger

from outrider.core.addresses import masked
from outrider.core.errors import ConfigError
from outrider.model.activity import Activity

LOCAL = frozenset({"dbus", "glib", "gnome", "kde", "macosx", "qt", "syslog", "windows"})
"""These reach nobody but the machine of the service."""
MISSING = "needs the package apprise: pip install 'outrider[notify]'"


def checked_recipient(url: str) -> str:
    """Return an address that people can be reached at.

    Raises:
        ConfigError: the library isn't installed, or doesn't know such an address.
    """
    if url.partition("://")[0].lower() in LOCAL:
        raise ConfigError(f"{masked(url)}: reaches only the machine of the update service")
    if _recipient(url) is None:
        raise ConfigError(
            f"{masked(url)}: no address that apprise knows; write one such as slack://TOKEN_A/TOKEN_B/TOKEN_C or"
            " mailto://USER:PASSWORD@HOST"
        )
    return url


def recipient_hosts(url: str) -> list[str]:
    """The hosts that an address names itself; a service's own, such as Slack's, is none of them.

    Raises:
        ConfigError: the library isn't installed.
    """
    recipient = _recipient(url)
    found = recipient if recipient is not None else ()
    named = [
        getattr(one, attribute, None)
        for one in found
        for attribute in ("host", "smtp_host")
        if "host" in one.template_tokens
    ]
    return [str(host) for host in named if host]


def notify(url: str, activity: Activity) -> bool:
    """Send one event; whether the other side has taken it. Takes the library's own limits of time, some seconds."""
    try:
        recipient = _recipient(url)
    except ConfigError as error:
        logger.bind(error_kind=error.kind, cause=str(error)).warning("notification not sent")
        return False
    if recipient is None:
        return False
    link = activity.facts.get("link", "")
    body = f"{activity.text}\n{link}" if link else activity.text
    about = f"{activity.app}/{activity.group}" if activity.group else activity.app
    kind = {"error": "failure", "warning": "warning", "success": "success"}.get(activity.severity, "info")
    # Each by itself: the library's own loop works on other threads, on which nobody looks where they connect to.
    return all(one.notify(title=f"outrider: {about}", body=body, notify_type=kind) for one in recipient)


def _recipient(url: str) -> Any:
    """None: the library knows no such address.

    Raises:
        ConfigError: the library isn't installed.
    """
    try:
        from apprise import Apprise, AppriseAsset
    except ImportError:
        raise ConfigError(MISSING) from None
    recipient = Apprise(asset=AppriseAsset(app_id="outrider", app_desc="outrider", app_url=""))
    return recipient if recipient.add(url) else None
