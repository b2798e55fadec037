"""A new package from a file: a plain form, which works without JavaScript; with it one sees how far it is."""

import re

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from outrider.core.architectures import ANY
from outrider.core.errors import ConfigError
from outrider.service.api.auth import request_id_of
from outrider.service.api.payloads import record_upload
from outrider.service.payloads.folder import CHUNK_BYTES, StoredFile
from outrider.service.store.effects import effects
from outrider.service.store.request import RequestContext
from outrider.service.web.desk import Desk
from outrider.service.web.doors import Visitor, check_csrf, check_origin
from outrider.service.web.pages.packages import API_PACKAGES, PATH
from outrider.service.web.upload_forms import UploadForm

_STRANGE = re.compile(r"[^A-Za-z0-9._+@-]+")


class UploadRequests:
    """Takes uploads."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def upload(self, request: Request) -> Response:
        """Store the file, then make the package of it; both are audited, as those of the API are."""
        visitor = await run_in_threadpool(self._desk.visitor, request)
        app = request.path_params["app"]
        visitor.check("POST", API_PACKAGES.format(app=app))
        visitor.check("POST", "/api/v1/payloads")
        check_origin(request.headers, self._desk.context.public_url)
        form = UploadForm(request.headers.get("content-type", ""))
        stored = await self._receive(request, form, visitor)
        return await run_in_threadpool(self._make, request, visitor, app, form, stored)

    async def _receive(self, request: Request, form: UploadForm, visitor: Visitor) -> StoredFile:
        is_checked = False
        with self._desk.context.payloads.receive() as arriving:
            waiting = bytearray()
            async for chunk in request.stream():
                waiting += form.feed(chunk)
                if form.filename is not None and not is_checked:
                    check_csrf(visitor, form.fields.get("csrf", ""))
                    if not form.filename:
                        raise ConfigError("choose a file first")
                    is_checked = True
                if len(waiting) >= CHUNK_BYTES:
                    await run_in_threadpool(arriving.write, bytes(waiting))
                    waiting.clear()
            if not form.is_whole:
                raise ConfigError("the form ends within the file; upload it again")
            await run_in_threadpool(arriving.write, bytes(waiting))
            return await run_in_threadpool(arriving.finish)

    def _make(self, request: Request, visitor: Visitor, app: str, form: UploadForm, stored: StoredFile) -> Response:
        ours, fields = self._desk.context, form.fields
        asked = RequestContext(
            principal=visitor.principal,
            did=f"POST {request.url.path}"[:1000],
            request_id=request_id_of(request.headers),
        )
        record_upload(ours, asked, stored)
        store = ours.stores.on_behalf_of(asked)
        made = store.packages.create(
            app,
            fields.get("version", "").strip(),
            ours.payloads.describe(stored.sha256, payload_name(form.filename or "")),
            release_notes=fields.get("release_notes", "").replace("\r\n", "\n").strip(),
            arch=fields.get("arch", "").strip() or ANY,
        )
        channels = {one.name for one in store.channels.list(made.app) if one.version == made.version}
        groups = [group for group in store.groups.list(made.app) if group.channel in channels]
        notes = [f"package {made.version}: {made.name}, {made.size_bytes} bytes, sha256 {made.sha256}"]
        notes += effects(store.context, made.app, groups) if groups else ["no channel points at it yet"]
        return self._desk.done(request, visitor, PATH.format(app=app), f"Package {made.version}", tuple(notes))


def payload_name(filename: str) -> str:
    """A file's name as the last part of an address, from what a browser says: some send a whole path."""
    last = re.split(r"[\\/]", filename)[-1]
    return _STRANGE.sub("-", last).lstrip("._+@-")[:200] or "payload"
