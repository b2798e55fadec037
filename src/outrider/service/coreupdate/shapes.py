"""Bodies of CoreUpdate's API. Its clients leave out what is false, zero or empty, and send int64 as text.

Unknown fields are ignored: updateservicectl sends whole objects back, with fields that only a server may set.
"""

import base64
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict
from pydantic.alias_generators import to_camel

from outrider.core.rollout.frames import Frame
from outrider.model.documents import App, Channel, Instance, User
from outrider.service.api.models import ChannelShown, PackageShown
from outrider.service.store.frames import GroupFrames

Json = dict[str, object]
Int64 = Annotated[int, BeforeValidator(lambda value: value or 0)]
"""As text or as a number; empty: 0."""


class Body(BaseModel):
    """A request body."""

    model_config = ConfigDict(alias_generator=to_camel, extra="ignore")


class AppBody(Body):
    id: str = ""
    label: str = ""
    description: str = ""


class ChannelBody(Body):
    app_id: str = ""
    label: str = ""
    version: str = ""
    publish: bool = False


class GroupBody(Body):
    id: str = ""
    label: str = ""
    channel_id: str = ""
    oem_blacklist: str = ""
    updates_paused: bool = False


class PercentBody(Body):
    update_percent: float = 0.0


class PackageBody(Body):
    """``version`` and ``appId`` are in the path, and may be here, too."""

    url: str = ""
    size: Int64 = 0
    sha1_sum: str = ""
    sha256_sum: str = ""
    release_notes: str = ""
    metadata_size: str = ""
    metadata_signature_rsa: str = ""


class FrameBody(Body):
    duration: Int64 = 0
    percent: float = 0.0


class RolloutBody(Body):
    rollout: list[FrameBody] = []


class ActiveBody(Body):
    active: bool = False


class UserBody(Body):
    user_name: str = ""


def items(every: Iterable[Json]) -> Json:
    """A list as the client reads it."""
    return {"items": list(every)}


def app_shown(app: App) -> Json:
    return {"id": app.id, "label": app.label, "description": app.description}


def channel_shown(channel: Channel | ChannelShown) -> Json:
    return {
        "appId": channel.app,
        "label": channel.name,
        "version": channel.version or "",
        "publish": channel.publish,
        "upstream": "",
        "dateCreated": _time(channel.created),
    }


def group_shown(found: GroupFrames) -> Json:
    group = found.group
    return {
        "id": group.id,
        "appId": group.app,
        "channelId": group.channel,
        "label": group.label,
        "oemBlacklist": "",
        "updatesPaused": group.paused,
        "updatePercent": found.percent,
        "rolloutActive": found.active,
    }


def package_shown(package: PackageShown) -> Json:
    return {
        "appId": package.app,
        "version": package.version,
        "url": package.download_url,
        "size": str(package.size_bytes),
        "sha1Sum": package.sha1,
        "sha256Sum": base64.b64encode(bytes.fromhex(package.sha256)).decode(),
        "required": package.required,
        "releaseNotes": package.release_notes,
        "dateCreated": _time(package.created),
    }


def rollout_shown(found: GroupFrames) -> Json:
    frames = [{"duration": str(frame.duration_s), "percent": frame.percent} for frame in found.frames]
    return {"appId": found.group.app, "groupId": found.group.id, "rollout": frames}


def active_shown(found: GroupFrames) -> Json:
    return {"appId": found.group.app, "groupId": found.group.id, "active": found.active}


def user_shown(user: User) -> Json:
    """Without a key: of a user that is there already nobody is told it again."""
    return {"user": user.name}


def update_shown(row: Instance) -> Json:
    """An instance as of its last check-in; the last event that it reported."""
    event, result = row.history[-1].event.split(":", 1) if row.history else ("", "")
    return {
        "appId": row.app,
        "clientId": row.id,
        "groupId": row.group,
        "version": row.version,
        "oem": row.oem,
        "eventType": event,
        "eventResult": result,
        "errorCode": str(row.error_code),
        "lastSeen": _time(row.last_seen),
    }


def frames_of(body: RolloutBody) -> tuple[Frame, ...]:
    """The frames as they were sent, unchecked."""
    return tuple(Frame(frame.duration, frame.percent) for frame in body.rollout)


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"
