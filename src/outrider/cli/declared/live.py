"""What the update service has of the apps that a file names, in the shapes of ``state``; with tags for conditions."""

from collections.abc import Iterable, Mapping

from outrider.cli.declared.environments import of_service
from outrider.cli.declared.extra_files import files_of_service
from outrider.cli.declared.policies import DEFAULT
from outrider.cli.declared.state import (
    AppState,
    ChannelState,
    GroupState,
    PackageState,
    Payload,
    State,
    WebhookState,
)
from outrider.cli.declared.tasks import tasks_of_service
from outrider.cli.rest_client import Json, ServiceClient
from outrider.core.errors import NotFound


def read_live(service: ServiceClient, apps: Iterable[str], *, with_webhooks: bool = True) -> State:
    """Read these apps; one that the service doesn't have is left out.

    A tag is read before what it stands for, so that whatever another user changes in between is noticed.
    """
    found: dict[str, AppState] = {}
    for app in apps:
        try:
            head, etag = service.get_with_etag("apps", app)
        except NotFound:
            continue
        found[head["id"]] = _app(service, head, etag)
    return State(apps=found, webhooks=_webhooks(service) if with_webhooks else {})


def _app(service: ServiceClient, head: Json, etag: str | None) -> AppState:
    app = head["id"]
    channels = {}
    for one in service.get_all("apps", app, "channels"):
        shown, tag = service.get_with_etag("apps", app, "channels", one["name"])
        channels[one["name"]] = _channel(service, app, shown, tag)
    groups = {}
    for one in service.get_all("apps", app, "groups"):
        shown, tag = service.get_with_etag("apps", app, "groups", one["id"])
        policy = service.get("apps", app, "groups", one["id"], "policy")
        environment = service.get("apps", app, "groups", one["id"], "environment")
        groups[one["id"]] = _group(shown, policy, environment, tag)
    alive = [(one["group"], one["instance"]) for one in service.get_all("apps", app, "presence")]
    seen = [(one["group"], one["id"]) for one in service.get_all("apps", app, "instances")]
    return AppState(
        name=app,
        id=app,
        label=head["label"],
        description=head["description"],
        product_id=head["product_id"] or "",
        packages={one["version"]: _package(one) for one in service.get_all("apps", app, "packages")},
        channels=channels,
        groups=groups,
        instances=_by_group([*seen, *alive]),
        living=_by_group(alive),
        etag=etag,
    )


def _channel(service: ServiceClient, app: str, shown: Json, etag: str | None) -> ChannelState:
    place = ("apps", app, "channels", shown["name"])
    return ChannelState(
        name=shown["name"],
        version=shown["version"],
        publish=shown["publish"],
        follow=shown["follow"],
        follow_moves=shown["follow_moves"],
        floors={one["version"]: one["reason"] for one in service.get_all(*place, "floors")},
        excluded=frozenset(one["version"] for one in service.get_all(*place, "excluded")),
        etag=etag,
    )


def _group(shown: Json, policy: Json, environment: Json, etag: str | None) -> GroupState:
    return GroupState(
        name=shown["id"],
        channel=shown["channel"],
        label=shown["label"],
        slots=shown["slots"],
        paused=shown["paused"],
        identity=shown.get("identity", "auto"),
        policy={name: policy[name] for name in DEFAULT},
        environment=of_service(environment),
        pinned=shown["undo"]["version"] if shown.get("undo") else "",
        etag=etag,
    )


def _package(one: Json) -> PackageState:
    if one["image"]:
        payload = Payload(kind="image", where=one["image"], digest=one["digest"], sha256=one["sha256"])
    elif one["url"] is not None:
        payload = Payload(
            kind="url",
            where=f"{one['url']}",
            size_bytes=one["size_bytes"],
            sha256=one["sha256"],
            sha1=one["sha1"],
        )
    else:
        payload = Payload(kind="stored", where=one["name"], size_bytes=one["size_bytes"], sha256=one["sha256"])
    return PackageState(
        version=one["version"],
        payload=payload,
        arch=one["arch"],
        required=one["required"],
        release_notes=one["release_notes"],
        tasks=tasks_of_service(one.get("tasks", ())),
        extra_files=files_of_service(one.get("files", ()), has_address=one["url"] is not None),
    )


def _by_group(found: Iterable[tuple[str, str]]) -> Mapping[str, frozenset[str]]:
    pairs = tuple(found)
    return {group: frozenset(name for other, name in pairs if other == group) for group, _ in pairs}


def _webhooks(service: ServiceClient) -> dict[str, WebhookState]:
    found = {}
    for each in service.get_all("webhooks"):
        if each.get("kind", "webhook") != "webhook":  # its address is shown to nobody, so no file can have it
            continue
        one, etag = service.get_with_etag("webhooks", each["name"])
        found[one["name"]] = WebhookState(
            name=one["name"],
            url=one["url"],
            app=one["app"],
            least=one["least"],
            fingerprint=one.get("fingerprint", ""),
            etag=etag,
        )
    return found
