"""What the REST API gives of the audit log."""

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from outrider.model.documents import Role
from outrider.service.api.models import Shown


class AuditShown(Shown):
    """One change of one document."""

    id: str = Field("", description="Ascends with time.")
    at: datetime
    who: str = Field(description="The user; in parentheses who acted without one.", examples=["ann"])
    role: Role
    address: str = Field(description="Where the request came from.")
    did: str = Field(
        description="The request, or the command that was typed.", examples=["PATCH /api/v1/apps/web/groups/beta"]
    )
    request_id: str = Field(description="`X-Request-ID` of the request: what has the same happened at once.")
    verb: Literal["create", "update", "delete"]
    noun: str = Field(examples=["group"])
    name: str = Field(examples=["beta"])
    app: str = Field(description="Empty for users.")
    key: str = Field(description="Where the document is in etcd, below the prefix.")
    before: dict[str, Any] | None = Field(description="The document; null when there was none. Secrets are left out.")
    after: dict[str, Any] | None = Field(description="The document; null when there is none any more.")
