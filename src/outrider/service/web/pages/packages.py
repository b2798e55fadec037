"""The packages of an app: what each is, where it is needed, and a new one from a file."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from outrider.model.documents import Channel, Group, Package, Target
from outrider.service.api.pagination import page_of
from outrider.service.store.changes import Unaudited
from outrider.service.store.context import app_id_of
from outrider.service.store.packages import Packages
from outrider.service.web.site import Page, Visit

PATH = "/apps/{app}/packages"
API_PACKAGES = "/api/v1/apps/{app}/packages"
ON_A_PAGE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A package as a line.

    Attributes:
        channels, floors: Which point at it, or have it as a floor.
        groups: Whose target it is: the id of each, and its name for people.
    """

    package: Package
    channels: tuple[str, ...]
    floors: tuple[str, ...]
    groups: tuple[tuple[str, str], ...]

    @property
    def kind(self) -> str:
        return "image" if self.package.image else "stored here" if self.package.url is None else "at an address"

    @property
    def digest(self) -> str:
        """What proves its content."""
        return self.package.image_digest or f"sha256:{self.package.sha256}"


def packages_of(visit: Visit) -> Packages:
    """The packages of the copy that a page is made from."""
    return Packages(context=visit.context, auditing=Unaudited("a page reads"))


def view(visit: Visit) -> Mapping[str, Any]:
    """The packages of the app that the path names, the newest version first."""
    app_id, keys, context = app_id_of(visit.names["app"]), visit.keys, visit.context
    found = packages_of(visit).list(app_id)
    order = {package.version: number for number, package in enumerate(found)}
    page, following = page_of(
        found,
        limit=ON_A_PAGE,
        after=visit.query.get("after") or None,
        name=lambda package: package.version,
        rank=lambda version: order.get(version, -1),
    )
    channels = context.children(Channel, keys.channels(app_id))
    targets = {
        (group.id, group.label or group.id): target.version
        for group in context.children(Group, keys.groups(app_id))
        if (target := context.get_or_none(Target, keys.target(app_id, group.id))) is not None
    }
    one = API_PACKAGES.format(app=visit.names["app"])
    return {
        "app": visit.names["app"],
        "label": visit.app_label(app_id),
        "rows": [
            Row(
                package=package,
                channels=tuple(one.name for one in channels if one.version == package.version),
                floors=tuple(
                    one.name for one in channels if any(floor.version == package.version for floor in one.floors)
                ),
                groups=tuple(name for name, version in targets.items() if version == package.version),
            )
            for package in page
        ],
        "known": len(found),
        "following": following,
        "is_first": not visit.query.get("after"),
        "may_upload": visit.may("POST", one) and visit.may("POST", "/api/v1/payloads"),
        "may_delete": visit.may("DELETE", f"{one}/x"),
    }


PAGE = Page(path=PATH, template="packages.html", reads=f"GET {API_PACKAGES}", view=view, title="Packages of {app}")
