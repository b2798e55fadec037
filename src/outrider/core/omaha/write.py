"""Omaha v3 types -> bytes that every known client and server accepts (rules in ``tests/support/omaha_clients.py``)."""

import base64
import re

from lxml import etree

from outrider.core.omaha.types import (
    PROTOCOL,
    AppAnswer,
    AppRequest,
    CheckError,
    NoUpdate,
    Offer,
    OmahaEvent,
    OmahaRequest,
    OmahaResponse,
    Step,
    UpdateCheck,
)
from outrider.core.release import ReleaseId

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render_request(request: OmahaRequest) -> bytes:
    """Write a request as a v3 client does, UTF-8 with a declaration; what is empty is left out.

    Characters that XML can't hold become U+FFFD.
    """
    root = _element(
        None,
        "request",
        protocol=request.protocol,
        version=request.updater,
        updaterversion=request.updater_version,
        installsource=request.install_source,
        sessionid=request.session_id,
        userid=request.user_id,
        requestid=request.request_id,
        seenrevision=str(request.seen_revision) if request.seen_revision else "",
        seenepoch=request.seen_epoch,
    )
    _element(
        root,
        "os",
        platform=request.platform,
        version=request.os_version,
        sp=request.service_pack,
        arch=request.arch,
    )
    for app in request.apps:
        _add_app_request(root, app)
    return _document(root)


def render_response(response: OmahaResponse) -> bytes:
    """Write a response: one ``<app>`` per answer, its children in the order ping, updatecheck, event.

    An offer has all that any client insists on: ``<urls>``, a ``<manifest>``, sizes, SHA-1 in base64 where known,
    ``hash_sha256`` in hex (ue-rs), and for every kind of package a postinstall action with the payload's SHA-256 in
    base64 (update_engine). Characters that XML can't hold become U+FFFD.

    Raises:
        ValueError: an offer without address or package, with a size below 1 or a payload without SHA-256.
    """
    root = _element(None, "response", protocol=PROTOCOL, server=response.server)
    _element(root, "daystart", elapsed_seconds=str(response.elapsed_seconds))
    for answer in response.apps:
        _add_app_answer(root, answer)
    return _document(root)


def _add_app_request(root: etree._Element, app: AppRequest) -> None:
    element = _element(
        root,
        "app",
        appid=app.app_id,
        # Always there, as from every client: Nebraska refuses an app without a version rather than guess.
        _always={"version": app.version},
        track=app.track,
        bootid=app.boot_id,
        machineid=app.machine_id,
        machinealias=app.alias,
        oem=app.oem,
        board=app.board,
        release=_word(app.release),
        multi_manifest_ok="true" if app.multi_manifest_ok else "",
    )
    if app.ping:
        _element(element, "ping", active="1")
    if app.update_check:
        allowed = "true" if app.rollback_allowed else "false" if app.rollback_forbidden else ""
        _element(
            element,
            "updatecheck",
            targetversionprefix=app.target_version_prefix,
            rollback_allowed=allowed,
            takes_turns="true" if app.takes_turns else "",
        )
    for event in app.events:
        _add_event(element, event)


def _add_event(app: etree._Element, event: OmahaEvent) -> None:
    _element(
        app,
        "event",
        eventtype=str(event.type),
        eventresult=str(event.result),
        errorcode=str(event.error_code) if event.error_code else "",
        previousversion=event.previous_version,
        nextversion=event.next_version,
        release=_word(event.release),
    )


def _add_app_answer(root: etree._Element, answer: AppAnswer) -> None:
    element = _element(root, "app", appid=answer.app_id, status=answer.status)
    if answer.ping:
        _element(element, "ping", status="ok")
    if answer.update_check is not None:
        _add_check(element, answer.update_check)
    for _ in range(answer.events):
        _element(element, "event", status="ok")


def _add_check(app: etree._Element, check: UpdateCheck) -> None:
    match check:
        case NoUpdate(reason=reason, poll_interval_s=interval):
            seconds = "" if interval is None else str(interval)
            _element(app, "updatecheck", status="noupdate", info=reason, PollInterval=seconds)
        case CheckError(status=status):
            _element(app, "updatecheck", status=status)
        case Offer():
            _add_offer(_element(app, "updatecheck", status="ok"), check)


def _add_offer(check: etree._Element, offer: Offer) -> None:
    if not offer.codebases or not offer.packages or not offer.sha256:
        raise ValueError(f"offer of {offer.version!r}: name an address, a package and the payload's SHA-256")
    urls = _element(check, "urls")
    for codebase in offer.codebases:
        # With its slash: update_engine would add it, a client that merely concatenates would not.
        _element(urls, "url", codebase=codebase.rstrip("/") + "/")
    for step in offer.steps or (Step(version=offer.version, packages=offer.packages),):
        _add_manifest(check, step, "" if offer.steps else _word(offer.release))


def _add_manifest(check: etree._Element, step: Step, release: str) -> None:
    manifest = _element(
        check,
        "manifest",
        version=step.version,
        release=release,
        is_floor="true" if step.is_floor else "",
        floor_reason=step.floor_reason if step.is_floor else "",
        is_target="true" if step.is_target else "",
    )
    packages = _element(manifest, "packages")
    for package in step.packages:
        if package.size_bytes < 1:
            raise ValueError(f"package {package.name!r}: {package.size_bytes} bytes; update_engine refuses below 1")
        _element(
            packages,
            "package",
            name=package.name,
            hash=package.sha1,
            # Either, not both: go-omaha verifies it in base64, ue-rs in hex, and all of them take ``hash`` alone.
            hash_sha256="" if package.sha1 else package.sha256,
            size=str(package.size_bytes),
            required="true" if package.required else "false",
        )
    _element(
        _element(manifest, "actions"),
        "action",
        event="postinstall",
        sha256=base64.b64encode(bytes.fromhex(step.packages[0].sha256)).decode("ascii"),
        # update_engine would otherwise wait ever longer between attempts, on its own; holding back is our business.
        DisablePayloadBackoff="true",
    )


def _word(release: ReleaseId | None) -> str:
    return "" if release is None else release.as_word()


def _element(
    parent: etree._Element | None, tag: str, _always: dict[str, str] | None = None, **attributes: str
) -> etree._Element:
    element = etree.Element(tag) if parent is None else etree.SubElement(parent, tag)
    for name, value in attributes.items():
        if value:
            element.set(name, _NOT_XML.sub("\ufffd", value))
    for name, value in (_always or {}).items():
        element.set(name, _NOT_XML.sub("\ufffd", value))
    return element


def _document(root: etree._Element) -> bytes:
    return b'<?xml version="1.0" encoding="UTF-8"?>\n' + etree.tostring(root, encoding="utf-8", xml_declaration=False)
