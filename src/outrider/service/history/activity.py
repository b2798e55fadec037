"""Turns a change of a stored document, before and after, into activity events. Pure.

``before`` is None when the document is new, or when its old value is unknown because this process has just started. An
unknown old value gives only the events that the document itself proves.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, assert_never

from outrider.core.omaha import FailureCode, failure_text
from outrider.core.rollout.rollout import AnalysisState, Approval, Progress, WaveState
from outrider.model.activity import Activity, Severity
from outrider.model.documents import App, Block, Channel, Command, Document, Group, Instance, Package, Rollout
from outrider.model.identity import UnprovedCheckins
from outrider.model.tasks import Task

AWAITS_APPROVAL = "rollout-awaits-approval"
"""The kind of the event that asks a person for a word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """A change of one document.

    Attributes:
        app: The app in its key.
        name: The last part of its key.
        before: None when it is new, or its old value is unknown.
        after: None when it was removed.
        known: Whether ``before`` is the old value; False when this process was not watching then.
        at: When it was seen, for documents without a time of their own.
    """

    app: str
    name: str
    before: Document | None
    after: Document | None
    known: bool
    at: datetime


def tell(shift: Shift) -> tuple[Activity, ...]:
    """The events of one change; often none."""
    for kind, describe in _DESCRIBERS.items():
        if isinstance(shift.after if shift.after is not None else shift.before, kind):
            return tuple(describe(shift))
    return ()


def _line(shift: Shift, severity: Severity, kind: str, text: str, **about: Any) -> Activity:
    at = about.pop("at", shift.at)
    return Activity(at=at, severity=severity, kind=kind, app=shift.app, text=text, **about)


def _app(shift: Shift) -> Iterator[Activity]:
    match shift.before, shift.after:
        case None, App() as new if shift.known:
            yield _line(shift, "info", "app-created", f"app {new.label or new.id} was added")
        case App() as old, None:
            yield _line(shift, "warning", "app-deleted", f"app {old.label or old.id} was removed")


def _package(shift: Shift) -> Iterator[Activity]:
    match shift.before, shift.after:
        case None, Package() as new if shift.known:
            yield _line(shift, "info", "package-created", f"package {new.version} was added", version=new.version)
        case Package() as old, None:
            yield _line(shift, "info", "package-deleted", f"package {old.version} was removed", version=old.version)


def _channel(shift: Shift) -> Iterator[Activity]:
    match shift.before, shift.after:
        case Channel() as old, None:
            yield _line(shift, "warning", "channel-deleted", f"channel {old.name} was removed")
        case before, Channel() as new:
            old_version = before.version if isinstance(before, Channel) else None
            if new.version is not None and new.version != old_version:
                instead = f" instead of {old_version}" if old_version else ""
                text = f"channel {new.name} points at {new.version}{instead}"
                yield _line(shift, "info", "channel-moved", text, version=new.version, facts={"channel": new.name})


def _group(shift: Shift) -> Iterator[Activity]:
    match shift.before, shift.after:
        case Group() as old, None:
            yield _line(shift, "warning", "group-deleted", f"group {old.id} was removed", group=old.id)
        case None, Group() as new if shift.known:
            yield _line(shift, "info", "group-created", f"group {new.id} follows channel {new.channel}", group=new.id)
        case Group() as old, Group() as new:
            if new.paused != old.paused:
                word, kind = ("paused", "group-paused") if new.paused else ("no longer paused", "group-resumed")
                yield _line(shift, "warning" if new.paused else "info", kind, f"group {new.id} is {word}", group=new.id)
            if new.channel != old.channel:
                text = f"group {new.id} follows channel {new.channel} instead of {old.channel}"
                yield _line(shift, "info", "group-moved", text, group=new.id)
            if new.requires_identity != old.requires_identity:
                text = f"group {new.id} {'asks' if new.requires_identity else 'no longer asks'} for proved check-ins"
                yield _line(shift, "info", "group-identity", text, group=new.id)
            if new.slots != old.slots:
                text = f"group {new.id} may swap {new.slots} instances at once instead of {old.slots}"
                yield _line(shift, "info", "group-slots", text, group=new.id)

            if new.environments != old.environments:
                text = f"group {new.id} has a new environment: number {new.environment}"
                yield _line(shift, "info", "group-environment", text, group=new.id)
            if new.restarted is not None and new.generations != old.generations:
                told = new.restarted
                text = f"group {new.id} is restarted, generation {told.generation}"
                text += (f", by {told.by}" if told.by else "") + (f": {told.why}" if told.why else "")
                yield _line(shift, "info", "group-restarted", text, group=new.id, by=told.by)

            was = asdict(old.policy)
            policy = [f"{name} {json.dumps(now)}" for name, now in asdict(new.policy).items() if now != was[name]]
            if policy:
                text = f"group {new.id} has a new policy: {', '.join(policy)}"
                yield _line(shift, "info", "group-policy", text, group=new.id)


def _rollout(shift: Shift) -> Iterator[Activity]:
    before, after = shift.before, shift.after
    if not isinstance(after, Rollout) or after.progress.version is None:
        return
    new = after.progress
    about: Mapping[str, Any] = {"group": shift.name, "version": new.version}
    if before is None and not shift.known:
        if new.state == "halted":
            yield _halted(shift, new, about)
        return
    old = before.progress if isinstance(before, Rollout) and before.progress.version == new.version else None
    if old is None:
        text = f"the rollout of {new.version} to group {shift.name} began"
        yield _line(shift, "info", "rollout-started", text, **about, at=new.started)
    state = "running" if old is None else old.state
    by = f" by {new.by}" if new.by else ""
    if new.state != state:
        match new.state:
            case "halted":
                yield _halted(shift, new, about)
            case "paused":
                text = f"the rollout of {new.version} to group {shift.name} was paused{by}"
                text += f": {new.why}" if new.why else ""
                yield _line(shift, "warning", "rollout-paused", text, **about, by=new.by, at=new.since)
            case "running":
                text = f"the rollout of {new.version} to group {shift.name} was resumed{by}"
                yield _line(shift, "info", "rollout-resumed", text, **about, by=new.by, at=new.since)
            case _:
                assert_never(new.state)
    yield from _judged(shift, None if old is None else old.approval, new.approval, about)
    yield from _waved(shift, None if old is None else old.wave, new.wave, about)
    if new.override is not None and (old is None or old.override != new.override):
        over = new.override
        what = f"goes on until {over.until:%Y-%m-%d %H:%M} UTC whatever windows and freezes say"
        text = f"the rollout of {new.version} to group {shift.name} {what}, by {over.by or 'somebody'}: {over.why}"
        if over.until <= over.at:
            text = f"the rollout of {new.version} to group {shift.name} heeds windows and freezes again"
        yield _line(shift, "warning", "rollout-overridden", text, **about, by=over.by, at=over.at)
    if new.finished is not None and (old is None or old.finished is None):
        text = f"the rollout of {new.version} to group {shift.name} is finished: {new.succeeded} updated"
        yield _line(shift, "success", "rollout-finished", text, **about, at=new.finished)


def _judged(shift: Shift, old: Approval | None, new: Approval | None, about: Mapping[str, Any]) -> Iterator[Activity]:
    """A rollout waits for a person's word, or one has given it."""
    if new is None or new == old:
        return
    of = f"the rollout of {about['version']} to group {shift.name}"
    match new.verdict:
        case None:
            text = f"{of} waits for an approval: outrider rollout approve {shift.app}/{shift.name}"
            yield _line(shift, "warning", AWAITS_APPROVAL, text, **about, at=new.asked)
        case "approved":
            yield _line(shift, "info", "rollout-approved", f"{of} was {new.words}", **about, by=new.by, at=new.at)
        case "rejected":
            yield _line(shift, "warning", "rollout-rejected", f"{of} was {new.words}", **about, by=new.by, at=new.at)
        case _:
            assert_never(new.verdict)


def _waved(shift: Shift, old: WaveState | None, new: WaveState | None, about: Mapping[str, Any]) -> Iterator[Activity]:
    """A wave has begun or is complete, or a person has approved what follows it."""
    if new is None:
        return
    is_same = old is not None and old.number == new.number
    of = f"wave {new.number} of the rollout of {about['version']} to group {shift.name}"
    if not is_same and new.number > 1:
        text = (
            f"what follows wave {new.number - 1} of the rollout of {about['version']} to group {shift.name} may begin"
        )
        yield _line(shift, "info", "wave-started", text, **about, at=new.began)
    if new.proved is not None and (old is None or not is_same or old.proved is None):
        text = f"{of} succeeded: {new.there + new.succeeded} of {new.size}"
        yield _line(shift, "info", "wave-succeeded", text, **about, at=new.proved)
    yield from _analysed(shift, old.analysis if old is not None and is_same else None, new.analysis, of, about)
    asked = old.approval if old is not None and is_same else None
    if new.approval is not None and new.approval != asked:
        if new.approval.verdict is None:
            text = f"{of} succeeded, and what follows waits: outrider rollout approve {shift.app}/{shift.name}"
            yield _line(shift, "warning", AWAITS_APPROVAL, text, **about, at=new.approval.asked)
        else:
            text, by = f"what follows {of} was {new.approval.words}", new.approval.by
            yield _line(shift, "info", "rollout-approved", text, **about, by=by, at=new.approval.at)


def _analysed(
    shift: Shift, old: AnalysisState | None, new: AnalysisState | None, of: str, about: Mapping[str, Any]
) -> Iterator[Activity]:
    """An analysis at the end of a wave answers otherwise than before, or is decided."""
    if new is None:
        return
    before = {one.name: one.result for one in old.answers} if old is not None else {}
    for one in new.answers:
        if before.get(one.name) != one.result:
            severity: Severity = "info" if one.result == "pass" else "warning"
            text = f"analysis after {of}: {one.name}: {one.words}"
            facts = {"analysis": one.name, "result": one.result}
            yield _line(shift, severity, "wave-analysed", text, **about, at=one.at, facts=facts)
    if new.verdict is not None and (old is None or old.verdict is None):
        passed = new.verdict == "pass"
        text = f"the analysis after {of} {f'passed: {new.words}' if passed else new.words}"
        facts = {"verdict": new.verdict}
        yield _line(
            shift, "success" if passed else "warning", "wave-analysis-ended", text, **about, at=new.at, facts=facts
        )


def _halted(shift: Shift, progress: Progress, about: Mapping[str, Any]) -> Activity:
    by, why = f" by {progress.by}" if progress.by else "", f": {progress.why}" if progress.why else ""
    text = f"the rollout of {progress.version} to group {shift.name} was halted{by}{why}"
    return _line(
        shift, "error", "rollout-halted", text, **about, by=progress.by, at=progress.since,
        facts={"why": progress.why},
    )  # fmt: skip


def _instance(shift: Shift) -> Iterator[Activity]:
    match shift.before, shift.after:
        case Instance() as old, None:
            text = f"instance {old.id} was removed from the list"
            yield _line(shift, "info", "instance-forgotten", text, group=old.group, instance=old.id)
        case before, Instance() as new:
            old_row = before if isinstance(before, Instance) else None
            about: Mapping[str, Any] = {"group": new.group, "instance": new.id, "at": new.last_seen}
            if old_row is None and shift.known:
                text = f"{new.id} checked in for the first time; it runs {new.version or 'no version'}"
                yield _line(shift, "info", "instance-appeared", text, **about, version=new.version)
            if old_row is None and not shift.known:
                return  # every event would need the old value
            yield from _row(shift, old_row, new, about)


def _row(shift: Shift, old: Instance | None, new: Instance, about: Mapping[str, Any]) -> Iterator[Activity]:
    status = old.status if old is not None else "undefined"
    granted = old.granted if old is not None else None
    if new.status == "error" and (status != "error" or (old is not None and new.error_code != old.error_code)):
        what = "refused" if new.error_code == FailureCode.UNSUPPORTED else "failed"
        text = f"{new.id}: update to {granted or 'a new version'} {what}: {failure_text(new.error_code or 0)}"
        yield _line(
            shift, "error", "instance-failed", text, **about, version=granted or "",
            facts={"error_code": str(new.error_code)},
        )  # fmt: skip
    elif new.granted_version is not None and new.granted != granted:
        text = f"{new.id}: update to {new.granted} granted"
        yield _line(shift, "info", "update-granted", text, **about, version=new.granted_version)
    is_news = old is not None and (new.version != old.version or (old.release and new.release != old.release))
    if old is not None and is_news and old.version:
        text = f"{new.id} runs {new.runs} instead of {old.runs}"
        yield _line(shift, "success", "instance-updated", text, **about, version=new.version)


def _block(shift: Shift) -> Iterator[Activity]:
    match shift.before, shift.after:
        case None, Block() as new:
            text = f"release {new.release.label} is blocked by {new.instance}: {new.why}"
            yield _line(shift, "error", "release-blocked", text, instance=new.instance, version=new.version, at=new.at)
        case Block() as old, None:
            text = f"release {old.release.label} is no longer blocked"
            yield _line(shift, "warning", "release-unblocked", text, version=old.version)


def _task(shift: Shift) -> Iterator[Activity]:
    match shift.before, shift.after:
        case old, Task() as new if old is None or not isinstance(old, Task) or old.state != new.state:
            said = _TASK_EVENTS.get(new.state)
            if said is None:
                return
            severity, kind = said
            at = new.ended or (new.started if new.state == "running" else shift.at)
            about: dict[str, Any] = {"instance": new.instance, "group": new.group, "version": new.version, "at": at}
            yield _line(shift, severity, kind, new.words, **about)


_TASK_EVENTS: Mapping[str, tuple[Severity, str]] = {
    "running": ("info", "task-started"),
    "done": ("success", "task-done"),
    "failed": ("error", "task-failed"),
    "unknown": ("error", "task-unknown"),
}
"""State that a task comes to -> severity and kind of the event."""


def _command(shift: Shift) -> Iterator[Activity]:
    if isinstance(shift.after, Command) and shift.after != shift.before:
        said = shift.after
        text = f"{said.verb} requested for {shift.name} by {said.by or 'an operator'}"
        yield _line(shift, "info", "command-given", text, instance=shift.name, by=said.by, at=said.at)


def _unproved(shift: Shift) -> Iterator[Activity]:
    before, after = shift.before, shift.after
    if not isinstance(after, UnprovedCheckins) or (before is None and not shift.known):
        return
    if isinstance(before, UnprovedCheckins) and before.told_at == after.told_at:
        return
    newest = max((*after.known, *after.others), key=lambda one: one.last, default=None)
    if newest is not None:
        text = f"unproved check-ins in group {after.group}, the last as {newest.instance} from {newest.address}"
        about: Mapping[str, Any] = {"group": after.group, "instance": newest.instance, "at": newest.last}
        yield _line(shift, "warning", "checkins-unproved", f"{text}; they changed nothing", **about)


_DESCRIBERS: dict[type[Document], Callable[[Shift], Iterator[Activity]]] = {
    App: _app,
    Package: _package,
    Channel: _channel,
    Group: _group,
    Rollout: _rollout,
    Instance: _instance,
    Block: _block,
    Command: _command,
    Task: _task,
    UnprovedCheckins: _unproved,
}
