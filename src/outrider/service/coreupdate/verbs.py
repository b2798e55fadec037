"""CoreUpdate's verbs: each calls what our own API calls, and answers in CoreUpdate's shape, always with 200."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from outrider.core.errors import ConfigError, NotFound
from outrider.service.api import rest
from outrider.service.api.models import ChannelChange, GroupChange, NewChannel, NewPackage, PackageShown
from outrider.service.api.models_policy import NewGroup
from outrider.service.context import Asked, Bound, Context, context_of, request_context_of
from outrider.service.coreupdate.auth import BASE, answer, check_app
from outrider.service.coreupdate.routes import CoreUpdateRoute
from outrider.service.coreupdate.shapes import (
    ActiveBody,
    AppBody,
    ChannelBody,
    GroupBody,
    Json,
    PackageBody,
    PercentBody,
    RolloutBody,
    UserBody,
    active_shown,
    app_shown,
    channel_shown,
    frames_of,
    group_shown,
    items,
    package_shown,
    rollout_shown,
    user_shown,
)
from outrider.service.store.packages import sha256_hex
from outrider.service.store.store import Store
from outrider.service.store.users import Users

router = APIRouter(
    prefix=BASE,
    route_class=CoreUpdateRoute,
    include_in_schema=False,
    dependencies=[Depends(request_context_of)],
)
Ours = Annotated[Context, Depends(context_of)]
UPSTREAM = (
    "outrider doesn't copy from another update service; run `outrider package download` against that service and"
    " `outrider package create bulk` here"
)
METADATA = (
    "metadata of a payload is not kept, and with --meta updateservicectl sends the digests of the metadata file instead"
    " of the payload's; leave --meta out"
)


@router.get("/apps")
def list_apps(store: Bound, asked: Asked) -> Json:
    only = asked.principal.apps
    return items(app_shown(app) for app in store.apps.list() if not only or app.id in only)


@router.post("/apps")
def create_app(body: AppBody, store: Bound) -> Json:
    return app_shown(store.apps.create(app=body.id or None, label=body.label, description=body.description))


@router.get("/apps/{app}")
def get_app(app: str, store: Bound) -> Json:
    return app_shown(store.apps.get(app))


@router.patch("/apps/{app}")
def change_app(app: str, body: AppBody, store: Bound) -> Json:
    store.apps.get(app)
    return app_shown(store.apps.save(app, label=body.label or None, description=body.description).document)


@router.delete("/apps/{app}")
def delete_app(app: str, store: Bound) -> Json:
    """CoreUpdate deletes what belongs to an app, too; here `app delete --cascade` does that, and shows it first."""
    return app_shown(store.apps.delete(app))


@router.get("/apps/{app}/channels")
def list_channels(app: str, store: Bound) -> Json:
    return items(channel_shown(channel) for channel in store.channels.list(app))


@router.post("/apps/{app}/channels")
def create_channel(app: str, body: ChannelBody, store: Bound, asked: Asked) -> Json:
    """updateservicectl has the channel's name where the app belongs, so the app of the body counts."""
    of_app = check_app(asked.principal, body.app_id or app)
    new = NewChannel.model_validate({"name": body.label, "version": body.version or None, "publish": body.publish})
    return channel_shown(rest.create_channel(of_app, new, store))


@router.patch("/apps/{app}/channels/{channel}")
def change_channel(app: str, channel: str, body: ChannelBody, store: Bound) -> Json:
    store.channels.get(app, channel)
    change = ChannelChange.model_validate({"version": body.version or None, "publish": body.publish})
    return channel_shown(rest.save_channel(app, channel, change, store, Response()))


@router.delete("/apps/{app}/channels/{channel}")
def delete_channel(app: str, channel: str, store: Bound) -> Json:
    return channel_shown(store.channels.delete(app, channel))


@router.get("/public/channels")
def list_public_channels(store: Bound, asked: Asked) -> Json:
    return items(
        channel_shown(channel)
        for app in _apps(store, asked.principal.apps)
        for channel in store.channels.list(app)
        if channel.publish
    )


@router.get("/apps/{app}/groups")
def list_groups(app: str, store: Bound) -> Json:
    return items(group_shown(store.frames.get(app, group.id)) for group in store.groups.list(app))


@router.post("/apps/{app}/groups")
def create_group(app: str, body: GroupBody, store: Bound, request: Request) -> Json:
    _refuse_blacklist(body)
    facts = {"id": body.id, "channel": body.channel_id, "label": body.label, "paused": body.updates_paused}
    new = NewGroup.model_validate(facts)
    rest.create_group(app, new, store, request)
    return group_shown(store.frames.get(app, body.id))


@router.get("/apps/{app}/groups/{group}")
def get_group(app: str, group: str, store: Bound) -> Json:
    return group_shown(store.frames.get(app, group))


@router.patch("/apps/{app}/groups/{group}")
def change_group(app: str, group: str, body: GroupBody, store: Bound) -> Json:
    """The client sends the whole group back; its percentage is not taken from there, `group percent` has its own."""
    _refuse_blacklist(body)
    facts = {"label": body.label or None, "channel": body.channel_id or None, "paused": body.updates_paused}
    change = GroupChange.model_validate(facts)
    rest.change_group(app, group, change, store)
    return group_shown(store.frames.get(app, group))


@router.delete("/apps/{app}/groups/{group}")
def delete_group(app: str, group: str, store: Bound) -> Json:
    before = store.frames.get(app, group)
    store.groups.delete(app, group)
    return group_shown(before)


@router.post("/apps/{app}/groups/{group}")
def set_percent(app: str, group: str, body: PercentBody, store: Bound) -> Json:
    done = store.frames.set_percent(app, group, body.update_percent)
    return {"appId": done.group.app, "id": done.group.id, "updatePercent": done.percent}


@router.get("/apps/{app}/groups/{group}/rollout")
def get_rollout(app: str, group: str, store: Bound) -> Json:
    return rollout_shown(store.frames.get(app, group))


@router.post("/apps/{app}/groups/{group}/rollout")
def set_rollout(app: str, group: str, body: RolloutBody, store: Bound) -> Json:
    return rollout_shown(store.frames.set(app, group, frames_of(body)))


@router.get("/apps/{app}/groups/{group}/rollout/active")
def get_active(app: str, group: str, store: Bound) -> Json:
    return active_shown(store.frames.get(app, group))


@router.post("/apps/{app}/groups/{group}/rollout/active")
def set_active(app: str, group: str, body: ActiveBody, store: Bound) -> Json:
    return active_shown(store.frames.activate(app, group) if body.active else store.frames.deactivate(app, group))


@router.get("/apps/{app}/packages")
def list_packages(app: str, store: Bound, request: Request) -> Json:
    return items(package_shown(shown) for shown in _packages(store, app, request))


@router.post("/apps/{app}/packages/{version}")
def create_package(app: str, version: str, body: PackageBody, store: Bound, ours: Ours, request: Request) -> Json:
    """Without an address: the payload was uploaded, and is found by its digest."""
    if body.metadata_size or body.metadata_signature_rsa:
        raise ConfigError(METADATA)
    if not body.sha256_sum:
        raise ConfigError("sha256Sum: missing; clients cannot verify the payload without it")
    facts: Json = {"version": version, "release_notes": body.release_notes}
    if body.url:
        facts |= {"url": body.url, "size_bytes": body.size, "sha256": body.sha256_sum, "sha1": body.sha1_sum}
    else:
        digest = sha256_hex(body.sha256_sum)
        if ours.payloads.find(digest) is None:
            raise NotFound(
                "no stored payload has that digest; give --url, or upload the file first with `package upload`"
            )
        facts |= {"stored": digest, "name": f"{app.strip('{}')}-{version}"}
    new = NewPackage.model_validate(facts)
    return package_shown(rest.create_package(app, new, store, ours, request))


@router.delete("/apps/{app}/packages/{version}")
def delete_package(app: str, version: str, store: Bound, request: Request) -> Json:
    return package_shown(rest.delete_package(app, version, store, request))


@router.get("/public/packages")
def list_public_packages(store: Bound, asked: Asked, request: Request) -> Json:
    """The packages that published channels point at, or have as floors: what another service needs to copy them."""
    found: list[Json] = []
    for app in _apps(store, asked.principal.apps):
        channels = [channel for channel in store.channels.list(app) if channel.publish]
        wanted = {version for one in channels for version in (one.version, *(floor.version for floor in one.floors))}
        packages = [package_shown(shown) for shown in _packages(store, app, request) if shown.version in wanted]
        if packages:
            found.append({"AppId": app, "packages": packages})
    return items(found)


@router.get("/util/uuid")
def make_uuid() -> Json:
    return {"uuid": str(uuid.uuid4())}


@router.get("/admin/user")
def list_users(store: Bound) -> Json:
    return {"users": [user_shown(user) for user in store.users.list()]}


@router.post("/admin/user")
def create_user(body: UserBody, store: Bound, response: Response) -> Json:
    """Make an admin with a Hawk key; a user that is there already keeps its role, and gets a new key."""
    return _with_key(store.users, body.user_name, response)


@router.get("/admin/user/{user}")
def get_user(user: str, store: Bound) -> Json:
    return user_shown(store.users.get(user))


@router.put("/admin/user/{user}/token/new")
def renew_user(user: str, store: Bound, response: Response) -> Json:
    store.users.get(user)
    return _with_key(store.users, user, response)


@router.delete("/admin/user/{user}")
def delete_user(user: str, store: Bound) -> Json:
    return user_shown(store.users.delete(user))


@router.api_route("/upstream", methods=["GET", "POST"])
@router.api_route("/upstream/{name}", methods=["POST", "PUT", "DELETE"])
def upstream(request: Request) -> Response:
    return answer(501, UPSTREAM, request.url.path)


def _with_key(users: Users, name: str, response: Response) -> Json:
    known = {user.name for user in users.list()}
    made = users.create(name, None if name in known else "admin", hawk=True)
    response.headers["Cache-Control"] = "no-store"
    return user_shown(made.user) | {"token": made.hawk_key}


def _apps(store: Store, only: tuple[str, ...]) -> list[str]:
    return [app.id for app in store.apps.list() if not only or app.id in only]


def _packages(store: Store, app: str, request: Request) -> list[PackageShown]:
    return [rest.package_shown(package, request) for package in store.packages.list(app)]


def _refuse_blacklist(body: GroupBody) -> None:
    if body.oem_blacklist.strip():
        raise ConfigError(
            "oemBlacklist: a group excludes no OEMs here; give those machines a group of their own, and pause it"
        )
