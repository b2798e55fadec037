"""The REST API of the whole database: only for admins."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.responses import StreamingResponse

from outrider.service.context import Context, context_of
from outrider.service.operations.backups import backup_lines
from outrider.service.problems import RESPONSES

router = APIRouter(prefix="/api/v1", responses=RESPONSES, tags=["database"])
Ours = Annotated[Context, Depends(context_of)]
MEDIA_TYPE = "application/jsonl"


@router.get(
    "/database/backup",
    response_class=StreamingResponse,
    responses={200: {"description": "JSON lines", "content": {MEDIA_TYPE: {"schema": {"type": "string"}}}}},
)
def backup_database(
    ours: Ours,
    without_secrets: Annotated[
        bool, Query(description="Without users, webhooks, and the values of environments' secrets.")
    ] = False,
) -> StreamingResponse:
    """Download everything that the service keeps in etcd, at one revision.

    The backup names payload files, but does not contain them. Unless it is without secrets it contains those of
    environments, the keys of webhooks, and the digests of the users' tokens: protect it like these.
    """
    headers = {"Content-Disposition": 'attachment; filename="outrider-backup.jsonl"', "Cache-Control": "no-store"}
    lines = backup_lines(ours.stores.context, with_secrets=not without_secrets)
    return StreamingResponse(lines, media_type=MEDIA_TYPE, headers=headers)
