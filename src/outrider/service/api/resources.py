"""Maps a path of the API to the stored document behind its entity tag and its ``If-Match``."""

import re
from collections.abc import Callable

from outrider.core.errors import ConfigError
from outrider.model.keys import Keys
from outrider.service.history.webhooks import webhook_key
from outrider.service.store.context import app_id_of

_RESOURCES: tuple[tuple[re.Pattern[str], Callable[..., str]], ...] = tuple(
    (re.compile(pattern.replace("{}", "([^/]+)")), key)
    for pattern, key in (
        ("/api/v1/apps/{}", lambda keys, app: keys.app(app_id_of(app))),
        ("/api/v1/apps/{}/packages/{}", lambda keys, app, version: keys.package(app_id_of(app), version)),
        # A path below a channel or a group names a part of that document, unless the part has a key of its own.
        ("/api/v1/apps/{}/channels/{}(?:/.*)?", lambda keys, app, channel: keys.channel(app_id_of(app), channel)),
        ("/api/v1/apps/{}/groups/{}/target", lambda keys, app, group: keys.target(app_id_of(app), group)),
        ("/api/v1/apps/{}/groups/{}/rollout(?:/.*)?", lambda keys, app, group: keys.rollout(app_id_of(app), group)),
        ("/api/v1/apps/{}/groups/{}(?:/.*)?", lambda keys, app, group: keys.group(app_id_of(app), group)),
        ("/api/v1/apps/{}/instances/{}", lambda keys, app, instance: keys.instance(app_id_of(app), instance)),
        ("/api/v1/apps/{}/blocks/{}", lambda keys, app, version: keys.block(app_id_of(app), version)),
        ("/api/v1/apps/{}/client-tokens/{}", lambda keys, app, token: keys.client_token(app_id_of(app), token)),
        ("/api/v1/webhooks/{}", webhook_key),
        ("/api/v1/users/{}", lambda keys, name: keys.user(name)),
    )
)


def resource_of(keys: Keys, path: str) -> str | None:
    """The key of the document that ``path`` names; None for lists and other paths without one document."""
    for pattern, key in _RESOURCES:
        match = pattern.fullmatch(path)
        if match:
            try:
                return key(keys, *match.groups())
            except ConfigError:
                return None  # a name that no document can have; the endpoint explains the fault
    return None
