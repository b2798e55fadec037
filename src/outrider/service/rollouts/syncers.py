"""Answers for another update service that copies from this one, such as Nebraska's syncer.

A syncer is no machine: it gets no row, no grant and no place in a limit. One answer tells it the whole way of its
group's channel: the floors above the version that it has, oldest first, and the target. It sees what machines may get:
nothing of a paused group, of a rollout that stands still, or of a blocked release.

All files of such an answer share one address, ``packages/APP/all/``, because an answer has one list of addresses.
Source: Nebraska pkg/omaha/omaha.go and pkg/syncer/syncer.go.
"""

from dataclasses import dataclass
from urllib.parse import quote

from outrider.core import versions
from outrider.core.architectures import ANY, architecture_of
from outrider.core.errors import ConfigError
from outrider.core.omaha import AppRequest, NoUpdate, Offer, OmahaRequest, Step
from outrider.core.rollout.policy import standstill_of
from outrider.model.documents import Package
from outrider.service.rollouts.offers import offered
from outrider.service.store.changes import Change
from outrider.service.store.context import StoreContext
from outrider.service.store.snapshot import GroupSnapshot, read_snapshot

MOST_FLOORS = 5
"""Of one answer, as Nebraska has it; a syncer that has got floors alone asks again from the last of them."""
NO_REASON = "Required intermediate version"
SEPARATOR = "@"
"""Between version and file name; no version has one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stop:
    reason: str


def answer_syncer(
    context: StoreContext, app_id: str, group_id: str, request: OmahaRequest, app: AppRequest, base_url: str
) -> Offer | NoUpdate | None:
    """The answer to its update check; None when there is no such group."""
    snapshot = read_snapshot(context, Change(context.cluster), app_id, group_id, checking=None)
    if snapshot is None:
        return None
    arch = architecture_of(app.board, request.arch)
    steps = _steps(snapshot, app.version, arch)
    if isinstance(steps, _Stop):
        return NoUpdate(reason=steps.reason)
    if not app.multi_manifest_ok:
        if steps[0].is_floor and not steps[0].is_target:
            return NoUpdate(reason=f"{steps[0].version} is a floor; this client doesn't say multi_manifest_ok")
        steps = steps[:1]
    return Offer(
        version=steps[0].version,
        codebases=(f"{base_url}/packages/{quote(app_id, safe='@:+')}/all/",),
        packages=steps[0].packages,
        steps=tuple(steps),
    )


def _steps(snapshot: GroupSnapshot, running: str, arch: str) -> list[Step] | _Stop:
    target = None if snapshot.target is None else snapshot.target.version
    if target is None:
        return _Stop(reason=f"channel {snapshot.group.channel!r} offers nothing yet")
    if snapshot.paused:
        return _Stop(reason="group is paused")
    if snapshot.standstill is not None:
        return _Stop(reason=f"{target} is blocked: {snapshot.standstill}")
    if (stands := standstill_of(snapshot.progress, snapshot.policy)) is not None:
        return _Stop(reason=stands)
    if snapshot.waits_for_approval:
        return _Stop(reason=f"{target} waits for an approval")
    try:
        if not versions.is_newer(target, running):
            return _Stop(reason="up to date")
    except ConfigError:
        return _Stop(reason=f"reported version {running!r} is not semver")
    floors = {} if snapshot.channel is None else {one.version: one.reason for one in snapshot.channel.floors}
    ahead = [one for one in floors if versions.is_newer(one, running) and versions.is_newer(target, one)]
    ahead.sort(key=versions.parse)
    chosen = ahead[:MOST_FLOORS] if len(ahead) > MOST_FLOORS else [*ahead, target]
    steps = []
    for version in chosen:
        package = snapshot.package(version)
        why = _obstacle(snapshot, version, package, arch)
        if why:
            return _Stop(reason=why)
        assert package is not None, "an absent package is an obstacle"
        steps.append(
            Step(
                version=version,
                packages=offered(package, f"{version}{SEPARATOR}"),
                is_floor=version in floors,
                floor_reason=floors.get(version, "") or NO_REASON,
                is_target=version == target,
            )
        )
    return steps


def _obstacle(snapshot: GroupSnapshot, version: str, package: Package | None, arch: str) -> str:
    if package is None:
        return f"{version} has no package"
    if ANY not in (package.arch, arch) and arch not in ("", package.arch):
        return f"no package for your architecture: {version} is for {package.arch}"
    blocked = snapshot.block_reason(snapshot.release_of(version))
    return "" if blocked is None else f"{version} is blocked: {blocked}"
