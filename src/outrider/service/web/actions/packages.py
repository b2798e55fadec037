"""Removing a package that nothing needs."""

from collections.abc import Mapping, Sequence

from outrider.service.web.pages.packages import API_PACKAGES, PATH, packages_of
from outrider.service.web.site import Action, Doing, Effect, Visit


def _effect(visit: Visit, form: Mapping[str, str]) -> Effect:
    packages = packages_of(visit)
    package = packages.get(visit.names["app"], visit.names["version"])
    lines = (
        f"package {package.version} ({package.name}, {package.size_bytes} bytes) is removed; no instance needs it",
        "a stored file stays in the service's payload folder",
    )
    needed = packages.needed(package.app, package.version)
    return Effect(instances=0, lines=() if needed else lines, refused=needed)


def _do(doing: Doing) -> Sequence[str]:
    gone = doing.store.packages.delete(doing.names["app"], doing.names["version"])
    return (f"package {gone.version} is removed",)


DELETE = Action(
    path=f"{PATH}/{{version}}/delete",
    operation=f"DELETE {API_PACKAGES}/{{version}}",
    title="Delete package {version}",
    button="Delete",
    back=PATH,
    effect=_effect,
    do=_do,
    danger=True,
)
ACTIONS = (DELETE,)
