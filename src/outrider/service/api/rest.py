"""The REST API under ``/api/v1``, for the command line and, later, the web page.

Every function parses, calls the store, and shows the result. They are plain functions and run in the thread pool,
because the store waits for etcd.
"""

from collections.abc import Iterable
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from outrider.core import versions
from outrider.core.errors import ConfigError, Conflict
from outrider.core.labels import parse_selector
from outrider.model.documents import Group, Instance, Package
from outrider.service.api.models import (
    AppChange,
    AppShown,
    BlockShown,
    ChannelChange,
    ChannelShown,
    CommandShown,
    GoneShown,
    GroupChange,
    GroupShown,
    InstanceShown,
    Items,
    NeededShown,
    NewApp,
    NewChannel,
    NewCommand,
    NewDigest,
    NewPackage,
    PackageShown,
    PresenceShown,
    TargetShown,
    UtcTime,
)
from outrider.service.api.models_policy import NewGroup
from outrider.service.api.package_files import files_of
from outrider.service.api.pagination import DEFAULT_LIMIT, After, Limit, page_of
from outrider.service.context import Asked, Bound, Context, OfSelector, base_url_of, check_destinations, context_of
from outrider.service.payloads.images import image_notes, image_payload
from outrider.service.payloads.resolver import resolve
from outrider.service.problems import RESPONSES
from outrider.service.rollouts.offers import codebase_of
from outrider.service.store.context import app_id_of
from outrider.service.store.effects import effects
from outrider.service.store.packages import Payload, sha256_hex
from outrider.service.store.store import Store

router = APIRouter(prefix="/api/v1", responses=RESPONSES)
Ours = Annotated[Context, Depends(context_of)]
OfGroup = Annotated[str | None, Query(description="Only instances of this group.")]
OfVersion = Annotated[
    str | None, Query(description="Only versions with this beginning: 1.2 matches 1.2.3, but not 1.20.0.")
]


@router.get("/apps", tags=["apps"])
def list_apps(store: Bound, asked: Asked, limit: Limit = DEFAULT_LIMIT, after: After = None) -> Items[AppShown]:
    """List all apps, by id; of a user whose role is limited to apps, these."""
    only = asked.principal.apps
    found = [app for app in store.apps.list() if not only or app.id in only]
    page, following = page_of(found, limit=limit, after=after, name=lambda app: app.id)
    return Items(items=[AppShown.model_validate(app) for app in page], next=following)


@router.post("/apps", status_code=201, tags=["apps"])
def create_app(new: NewApp, store: Bound) -> AppShown:
    """Add an app."""
    made = store.apps.create(app=new.id, label=new.label, description=new.description, product_id=new.product_id)
    return AppShown.model_validate(made)


@router.get("/apps/{app}", tags=["apps"])
def get_app(app: str, store: Bound) -> AppShown:
    """Show one app, by UUID (any case, with or without braces) or by name."""
    return AppShown.model_validate(store.apps.get(app))


@router.put(
    "/apps/{app}", tags=["apps"], responses={201: {"model": AppShown, "description": "Created: there was none"}}
)
def save_app(app: str, change: AppChange, store: Bound, response: Response) -> AppShown:
    """Change the given fields of an app, or add it when there is none (201)."""
    saved = store.apps.save(app, label=change.label, description=change.description, product_id=change.product_id)
    response.status_code = 201 if saved.created else 200
    return AppShown.model_validate(saved.document)


@router.delete("/apps/{app}", tags=["apps"])
def delete_app(app: str, store: Bound) -> AppShown:
    """Remove an unused app."""
    return AppShown.model_validate(store.apps.delete(app))


@router.get("/apps/{app}/channels", tags=["channels"])
def list_channels(app: str, store: Bound, limit: Limit = DEFAULT_LIMIT, after: After = None) -> Items[ChannelShown]:
    """List the channels of an app, by name."""
    page, following = page_of(store.channels.list(app), limit=limit, after=after, name=lambda channel: channel.name)
    return Items(items=[ChannelShown.model_validate(channel) for channel in page], next=following)


@router.post("/apps/{app}/channels", status_code=201, tags=["channels"])
def create_channel(app: str, new: NewChannel, store: Bound) -> ChannelShown:
    """Add a channel."""
    saved = store.channels.create(
        app, new.name, version=new.version, publish=new.publish, allow_missing=new.allow_missing
    )
    return ChannelShown.model_validate(saved.document).model_copy(update={"notes": list(saved.notes)})


@router.get("/apps/{app}/channels/{channel}", tags=["channels"])
def get_channel(app: str, channel: str, store: Bound) -> ChannelShown:
    """Show one channel."""
    return ChannelShown.model_validate(store.channels.get(app, channel))


@router.put(
    "/apps/{app}/channels/{channel}",
    tags=["channels"],
    responses={201: {"model": ChannelShown, "description": "Created: there was none"}},
)
def save_channel(app: str, channel: str, change: ChannelChange, store: Bound, response: Response) -> ChannelShown:
    """Change the given fields of a channel, or add it when there is none (201). All its groups move at once."""
    saved = store.channels.save(
        app,
        channel,
        version=change.version,
        publish=change.publish,
        allow_missing=change.allow_missing,
        follow=change.follow,
        follow_moves=change.follow_moves,
    )
    response.status_code = 201 if saved.created else 200
    notes = [*saved.notes, *(_effects_on(store, app, {channel}) if change.version is not None else ())]
    return ChannelShown.model_validate(saved.document).model_copy(update={"notes": notes})


@router.delete("/apps/{app}/channels/{channel}", tags=["channels"])
def delete_channel(app: str, channel: str, store: Bound) -> ChannelShown:
    """Remove a channel without groups."""
    return ChannelShown.model_validate(store.channels.delete(app, channel))


@router.get("/apps/{app}/groups", tags=["groups"])
def list_groups(app: str, store: Bound, limit: Limit = DEFAULT_LIMIT, after: After = None) -> Items[GroupShown]:
    """List the groups of an app, by id."""
    page, following = page_of(store.groups.list(app), limit=limit, after=after, name=lambda group: group.id)
    return Items(items=[_group(group, store) for group in page], next=following)


@router.post("/apps/{app}/groups", status_code=201, tags=["groups"])
def create_group(app: str, new: NewGroup, store: Bound, request: Request) -> GroupShown:
    """Add a group."""
    policy = None if new.policy is None else new.policy.to_policy()
    check_destinations(context_of(request), policy)
    saved = store.groups.create(
        app,
        new.id,
        channel=new.channel,
        label=new.label,
        slots=new.slots,
        paused=new.paused,
        identity=new.identity,
        policy=policy,
    )
    return GroupShown.model_validate(saved.document).model_copy(update={"notes": list(saved.notes)})


@router.get("/apps/{app}/groups/{group}", tags=["groups"])
def get_group(app: str, group: str, store: Bound, asked: Asked) -> GroupShown:
    """Show one group."""
    found = store.groups.get(app, group)
    asked.seen.shows_more = found.frames_since is not None  # its percentage changes by itself
    return _group(found, store)


@router.patch("/apps/{app}/groups/{group}", tags=["groups"])
def change_group(app: str, group: str, change: GroupChange, store: Bound) -> GroupShown:
    """Change the given fields of a group."""
    changed = store.groups.update(
        app,
        group,
        label=change.label,
        channel=change.channel,
        paused=change.paused,
        slots=change.slots,
        identity=change.identity,
    )
    moved = change.channel is not None or change.paused is not None
    notes = effects(store.context, changed.app, [changed]) if moved else ()
    return GroupShown.model_validate(changed).model_copy(update={"notes": list(notes)})


@router.delete("/apps/{app}/groups/{group}", tags=["groups"])
def delete_group(app: str, group: str, store: Bound) -> GroupShown:
    """Remove a group without running sidekicks."""
    return GroupShown.model_validate(store.groups.delete(app, group))


@router.get("/apps/{app}/groups/{group}/target", tags=["groups"])
def get_target(app: str, group: str, store: Bound) -> TargetShown:
    """Show the target of a group: the version for its instances."""
    return TargetShown.model_validate(store.groups.target(app, group))


@router.get("/apps/{app}/packages", tags=["packages"])
def list_packages(
    app: str,
    store: Bound,
    request: Request,
    version: Annotated[
        str | None, Query(description="Only versions with this beginning: 1.2 matches 1.2.3, but not 1.20.0.")
    ] = None,
    limit: Limit = DEFAULT_LIMIT,
    after: After = None,
) -> Items[PackageShown]:
    """List the packages of an app, newest version first."""
    every = store.packages.list(app)
    page, following = page_of(
        (package for package in every if version is None or _begins(package.version, version)),
        limit=limit,
        after=after,
        name=lambda package: package.version,
        rank=lambda name: (versions.parse(name), name),
        descending=True,
    )
    return Items(items=[package_shown(package, request) for package in page], next=following)


@router.post("/apps/{app}/packages", status_code=201, tags=["packages"])
def create_package(app: str, new: NewPackage, store: Bound, ours: Ours, request: Request) -> PackageShown:
    """Add a package: an address with size and SHA-256, an uploaded payload, or the reference of an image."""
    payload, notes = _payload(new, ours), new.release_notes
    tasks = [task.to_task() for task in new.tasks]
    made = store.packages.create(
        *(app, new.version, payload),
        release_notes=notes, arch=new.arch, required=new.required, tasks=tasks, files=files_of(new, ours),
    )  # fmt: skip
    shown = package_shown(made, request, store)
    waiting = {channel.name for channel in store.channels.list(app) if channel.version == made.version}
    return shown.model_copy(update={"notes": [*shown.notes, *_effects_on(store, app, waiting)]})


@router.get("/apps/{app}/packages/{version}", tags=["packages"])
def get_package(app: str, version: str, store: Bound, request: Request) -> PackageShown:
    """Show one package."""
    return package_shown(store.packages.get(app, version), request, store)


@router.get("/apps/{app}/packages/{version}/needed", tags=["packages"])
def get_needed(app: str, version: str, store: Bound) -> NeededShown:
    """Show what needs a package, so that it cannot be deleted now."""
    store.packages.get(app, version)
    return NeededShown(needed=store.packages.needed(app, version))


@router.delete("/apps/{app}/packages/{version}", tags=["packages"])
def delete_package(app: str, version: str, store: Bound, request: Request) -> PackageShown:
    """Remove a package that nothing runs or needs."""
    return package_shown(store.packages.delete(app, version), request)


@router.post("/apps/{app}/packages/{version}/resolve", tags=["packages"])
def resolve_package(app: str, version: str, new: NewDigest, store: Bound, ours: Ours, request: Request) -> PackageShown:
    """Give the image of a package its digest, which the registry says, or the request."""
    package = store.packages.get(app, version)
    if not package.image:
        raise Conflict(f"package {version} is a file, not a container image; there is nothing to resolve")
    known = package.image_digest
    if not (known and new.digest in (None, known)):
        package = resolve(store, ours.payloads, ours.registries, package, new.digest or "")
    return package_shown(package, request, store)


@router.get("/apps/{app}/instances", tags=["instances"])
def list_instances(
    app: str,
    store: Bound,
    group: OfGroup = None,
    status: Annotated[
        str | None, Query(description="Only instances with this status: complete, error, on-hold...")
    ] = None,
    version: OfVersion = None,
    seen_since: Annotated[UtcTime | None, Query(description="Only instances that have checked in since.")] = None,
    text: Annotated[
        str | None,
        Query(description="Only instances with this text in id, alias, address or OEM; case does not matter."),
    ] = None,
    selector: OfSelector = "",
    limit: Limit = DEFAULT_LIMIT,
    after: After = None,
) -> Items[InstanceShown]:
    """List the instances as of their last check-in, by id."""
    wanted = text.casefold() if text else ""
    chosen = parse_selector(selector)

    def is_wanted(row: Instance) -> bool:
        return (
            (status is None or row.status == status)
            and (version is None or _begins(row.version, version))
            and chosen.selects(row.labels)
            and (seen_since is None or row.last_seen >= seen_since)
            and any(wanted in said.casefold() for said in (row.id, row.alias, row.address, row.oem))
        )

    rows: Iterable[Instance] = store.fleet.instances(app, group)
    page, following = page_of(filter(is_wanted, rows), limit=limit, after=after, name=lambda row: row.id)
    return Items(items=[InstanceShown.model_validate(row) for row in page], next=following)


@router.get("/apps/{app}/instances/{instance}", tags=["instances"])
def get_instance(app: str, instance: str, store: Bound) -> InstanceShown:
    """Show one instance."""
    return InstanceShown.model_validate(store.fleet.instance(app, instance))


@router.delete("/apps/{app}/instances/{instance}", tags=["instances"])
def forget_instance(
    app: str,
    instance: str,
    store: Bound,
    asked: Asked,
    machine_off: Annotated[
        bool, Query(description="The machine is surely off: a turn that it holds is freed.")
    ] = False,
) -> InstanceShown:
    """Remove an instance without a running sidekick for good, with everything that it left."""
    by = asked.speaker("")
    return InstanceShown.model_validate(store.fleet.forget(app, instance, by=by, machine_off=machine_off))


@router.post("/apps/{app}/instances/{instance}/admit", tags=["instances"])
def admit_instance(app: str, instance: str, store: Bound) -> GoneShown:
    """Let an instance come back that was removed for good; it is known again at its next check-in."""
    return GoneShown.model_validate(store.fleet.admit(app, instance))


@router.post("/apps/{app}/instances/{instance}/command", status_code=202, tags=["instances"])
def command_instance(app: str, instance: str, new: NewCommand, store: Bound, asked: Asked) -> CommandShown:
    """Send a command to an instance; it takes effect when its sidekick connects."""
    by = asked.speaker(new.by)
    left = store.fleet.command(
        app, instance, new.verb, by, version=new.version, for_s=new.for_s, until_reboot=new.until_reboot
    )
    return CommandShown.model_validate(left)


@router.get("/apps/{app}/presence", tags=["instances"])
def list_presence(
    app: str, store: Bound, group: OfGroup = None, limit: Limit = DEFAULT_LIMIT, after: After = None
) -> Items[PresenceShown]:
    """List the living sidekicks and their states, by group and instance."""
    page, following = page_of(
        store.fleet.presences(app, group),
        limit=limit,
        after=after,
        # etcd sorts by key, and the key has the slash too.
        name=lambda one: f"{one.group}/{one.instance}",
    )
    return Items(items=[PresenceShown.model_validate(one) for one in page], next=following)


@router.get("/apps/{app}/blocks", tags=["releases"])
def list_blocks(app: str, store: Bound, limit: Limit = DEFAULT_LIMIT, after: After = None) -> Items[BlockShown]:
    """List the blocked releases, by version as text."""
    page, following = page_of(store.fleet.blocks(app), limit=limit, after=after, name=lambda one: one.key)
    return Items(items=[BlockShown.model_validate(block) for block in page], next=following)


@router.delete("/apps/{app}/blocks/{version}", tags=["releases"])
def unblock_release(app: str, version: str, store: Bound) -> BlockShown:
    """Unblock a release, by the key of its block, and wake the sidekicks that wait for it."""
    unblocked = store.fleet.unblock(app, version)
    aimed = {channel.name for channel in store.channels.list(app) if channel.version == unblocked.version}
    notes = _effects_on(store, app, aimed)
    return BlockShown.model_validate(unblocked).model_copy(update={"notes": list(notes)})


def _effects_on(store: Store, app: str, channels: set[str]) -> tuple[str, ...]:
    """What the groups on these channels do now."""
    groups = [group for group in store.groups.list(app) if group.channel in channels] if channels else []
    return effects(store.context, app_id_of(app), groups)


def _begins(version: str, prefix: str) -> bool:
    """By whole numbers: ``1.2`` matches 1.2.3 and 1.2.0-rc, but not 1.20.0."""
    rest = version.removeprefix(prefix) if version.startswith(prefix) else "x"
    return not rest or not rest[0].isalnum() or prefix.endswith(".")


def _payload(new: NewPackage, ours: Context) -> Payload:
    if sum(source is not None for source in (new.url, new.stored, new.image)) > 1:
        raise ConfigError("url, stored and image: give only one of them")
    if new.image is not None:
        if new.size_bytes is not None or new.sha256 is not None or new.sha1 or new.name is not None:
            raise ConfigError("image: leave out size, digests and name; the service measures the image's descriptor")
        return image_payload(ours.payloads, new.image, ours.registries, new.digest or "")
    if new.digest is not None:
        raise ConfigError("digest: is for an image; a file's is sha256")
    if new.stored is not None:
        if new.name is None:
            raise ConfigError("name: missing; give the file name of the stored payload")
        return ours.payloads.describe(sha256_hex(new.stored), new.name)
    if new.url is None or new.size_bytes is None or new.sha256 is None:
        raise ConfigError(
            "a package needs url with size_bytes and sha256, or stored, or image; clients cannot verify it otherwise"
        )
    sha1 = new.sha1 or ours.payloads.sha1_of(sha256_hex(new.sha256))
    return Payload(url=new.url, size_bytes=new.size_bytes, sha256=new.sha256, sha1=sha1)


def _group(group: Group, store: Store) -> GroupShown:
    """With the percentage that active frames say."""
    shown = GroupShown.model_validate(group)
    if group.frames_since is None:
        return shown
    now = store.frames.of(group)
    return shown.model_copy(update={"percent": now.percent, "rollout_active": now.active})


def package_shown(package: Package, request: Request, store: Store | None = None) -> PackageShown:
    """A package as answers show it.

    ``store``: where the reason stands why an image has no digest; None: leave it out.
    """
    unresolved = store.packages.unresolved(package.app, package.version) if store and package.is_unresolved else None
    where = codebase_of(package, package.app, base_url_of(request)) + package.name
    return PackageShown.model_validate(package).model_copy(
        update={"download_url": where, "notes": image_notes(package, unresolved)}
    )
