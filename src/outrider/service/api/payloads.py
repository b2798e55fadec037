"""Payload files over HTTP: upload with ``POST /api/v1/payloads``, download below ``/packages``.

Downloads honour ranges, so a client can resume an interrupted download.
"""

import json
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse
from starlette.concurrency import run_in_threadpool

from outrider.core.errors import NotFound
from outrider.core.images import DESCRIPTOR_MEDIA_TYPE
from outrider.service.api.delivery import PayloadResponse
from outrider.service.api.models import PayloadShown
from outrider.service.context import Asked, Context, context_of
from outrider.service.payloads.folder import CHUNK_BYTES, StoredFile
from outrider.service.payloads.images import restored_descriptor
from outrider.service.problems import RESPONSES
from outrider.service.rollouts.syncers import SEPARATOR
from outrider.service.store.packages import absent_package
from outrider.service.store.request import Edit, RequestContext

router = APIRouter(responses=RESPONSES)
Ours = Annotated[Context, Depends(context_of)]


@router.post(
    "/api/v1/payloads",
    status_code=201,
    tags=["packages"],
    openapi_extra={"requestBody": {"required": True, "content": {"application/octet-stream": {}}}},
)
async def upload(request: Request, ours: Ours, asked: Asked) -> PayloadShown:
    """Store the request's body as a file; name its SHA-256 as ``stored`` when you add the package."""
    with ours.payloads.receive() as arriving:
        waiting = bytearray()
        async for chunk in request.stream():
            waiting += chunk
            # Another thread hashes and writes, in pieces that are worth the change of thread.
            if len(waiting) >= CHUNK_BYTES:
                await run_in_threadpool(arriving.write, bytes(waiting))
                waiting.clear()
        await run_in_threadpool(arriving.write, bytes(waiting))
        stored = await run_in_threadpool(arriving.finish)
    # The file comes first: a client repeats an upload that etcd could not record, and the repeat is recorded.
    await run_in_threadpool(record_upload, ours, asked, stored)
    return PayloadShown.model_validate(stored)


def record_upload(ours: Context, asked: RequestContext, stored: StoredFile) -> None:
    """Record an upload in the audit log.

    Raises:
        Unknown: etcd gives no answer; the client uploads the file again.
    """
    facts = {"sha256": stored.sha256, "size_bytes": stored.size_bytes}
    key = f"{ours.stores.context.keys.prefix}/payloads/{stored.sha256}"
    ours.stores.audit_log.record(asked, Edit(key=key, before=None, after=json.dumps(facts).encode()))


@router.head("/packages/{app}/{version}/{name}", include_in_schema=False)
@router.get(
    "/packages/{app}/{version}/{name}",
    tags=["packages"],
    response_class=Response,
    responses={
        200: {"description": "The file", "content": {"application/octet-stream": {}, DESCRIPTOR_MEDIA_TYPE: {}}},
        206: {"description": "The part that `Range` names", "content": {"application/octet-stream": {}}},
        304: {"description": "Unchanged: you have it already"},
        416: {"description": "`Range` is beyond the end of the file", "content": {"text/plain": {}}},
    },
)
def download(app: str, version: str, name: str, ours: Ours, request: Request) -> Response:
    """Download the payload of a package; ``Range`` and ``If-None-Match`` are honoured."""
    is_of_all, wanted = version == "all", f"{version}/{name}"
    if is_of_all:  # what another update service copies: the files of all versions in one folder
        version, _, name = name.partition(SEPARATOR)
    package = ours.stores.unaudited("download: a client without a token reads a package").packages.get(app, version)
    digests = {package.name: package.sha256} | {one.name: one.sha256 for one in package.files}
    sha256 = digests.get(name)
    if sha256 is None or (package.url is not None and not is_of_all):
        raise NotFound(absent_package(app, wanted))
    if package.url is not None:
        return RedirectResponse(package.url.removesuffix(package.name) + quote(name), status_code=302)
    path = ours.payloads.find(sha256) or (restored_descriptor(ours.payloads, package) if name == package.name else None)
    if path is None:
        raise NotFound(
            f"package {version}: its file {sha256} is not in this service's payload folder "
            "(--payload-dir); copy or upload it again"
        )
    headers = {"ETag": f'"{sha256}"', "Cache-Control": "public, max-age=31536000, immutable"}
    known = request.headers.get("if-none-match", "")
    if any(tag.strip().removeprefix("W/") in ("*", headers["ETag"]) for tag in known.split(",")):
        return Response(status_code=304, headers=headers)
    media_type = DESCRIPTOR_MEDIA_TYPE if package.image else "application/octet-stream"
    return PayloadResponse(path, media_type=media_type, headers=headers)
