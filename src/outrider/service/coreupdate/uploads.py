"""What updateservicectl calls outside the base of CoreUpdate's API: upload, backup, and the database's beginning."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import PlainTextResponse
from starlette.concurrency import run_in_threadpool

from outrider.core.errors import ConfigError, Conflict, Forbidden
from outrider.service.api.payloads import record_upload
from outrider.service.context import Asked, Context, context_of, request_context_of
from outrider.service.coreupdate.auth import BACKUP, INIT, UPLOAD, is_near
from outrider.service.coreupdate.multipart import FilePart
from outrider.service.coreupdate.routes import CoreUpdateRoute
from outrider.service.operations.database import backup_database
from outrider.service.payloads.folder import CHUNK_BYTES

router = APIRouter(route_class=CoreUpdateRoute, include_in_schema=False)
Ours = Annotated[Context, Depends(context_of)]


@router.post(UPLOAD)
async def upload(request: Request, ours: Ours, asked: Asked) -> Response:
    """Store the form's file; `package create` finds it by its digest, or by an address of this service."""
    part = FilePart(request.headers.get("content-type", ""))
    with ours.payloads.receive() as arriving:
        waiting = bytearray()
        async for chunk in request.stream():
            waiting += part.feed(chunk)
            if len(waiting) >= CHUNK_BYTES:
                await run_in_threadpool(arriving.write, bytes(waiting))
                waiting.clear()
        if not part.is_whole:
            raise ConfigError("package-upload: the form ends within the file; upload it again")
        await run_in_threadpool(arriving.write, bytes(waiting))
        stored = await run_in_threadpool(arriving.finish)
    await run_in_threadpool(record_upload, ours, asked, stored)
    return PlainTextResponse(f"{stored.sha256}\n")


@router.get(BACKUP, dependencies=[Depends(request_context_of)])
def backup(ours: Ours) -> Response:
    """As `outrider database backup` without a passphrase."""
    return backup_database(ours, without_secrets=False)


@router.get(INIT)
def init(request: Request, ours: Ours) -> Response:
    """There is nothing to prepare in etcd, so this only says whether the first user may be made: `ok`, and no more.

    It gives no key away: what reaches a port of this machine may be anybody's (a browser, another user's program).
    """
    if not is_near(request.scope):
        raise Forbidden("the database is initialized on the service's own machine: `outrider database init` there")
    if not ours.known_users.loaded:
        ours.known_users.load()
    if ours.known_users.ever_existed:
        raise Conflict("the database is initialized already: there are users")
    return PlainTextResponse("ok")
