"""Bodies of the REST API's audit log."""

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from outrider.model.documents import Role
from outrider.service.api.models import Shown


class AuditShown(Shown):
    """One change of one document."""

    id: str = Field("", description="Ascends with time.")
    at: datetime
    who: str = Field(description="The user; a name in parentheses is not a user.", examples=["ann"])
    role: Role
    address: str = Field(description="The client's address.")
    did: str = Field(
        description="The request, or the command of the command line.", examples=["PATCH /api/v1/apps/web/groups/beta"]
    )
    request_id: str = Field(description="`X-Request-ID` of the request; all changes of one request have the same.")
    verb: Literal["create", "update", "delete"]
    noun: str = Field(examples=["group"])
    name: str = Field(examples=["beta"])
    app: str = Field(description="Empty for users, webhooks and payloads.")
    key: str = Field(description="Key of the document in etcd, below the prefix.")
    before: dict[str, Any] | None = Field(
        description="The document before; null: it did not exist. Secrets are left out."
    )
    after: dict[str, Any] | None = Field(description="The document afterwards; null: it was removed.")
