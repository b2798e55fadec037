"""Bodies of the REST API for users."""

from datetime import datetime

from pydantic import Field

from outrider.model.documents import Role
from outrider.service.api.models import Given, Shown

ROLE = (
    "A viewer reads. An approver also judges releases that wait for it. An operator also changes rollouts. "
    "An admin also manages users and removes apps."
)


APPS = "The role holds for these apps alone; empty: for all."


class WhoAmI(Shown):
    """The user behind the request's token."""

    name: str = Field(description="A name in parentheses: there are no users yet.", examples=["ann"])
    role: Role = Field(description=ROLE)
    apps: list[str] = Field(description=APPS)


class NewUser(Given):
    """A new user, or a user that gets a new token."""

    name: str = Field(description="1 to 64 letters, digits or . _ @ + -", examples=["ann"])
    role: Role | None = Field(None, description=f"{ROLE} Default: the present role; for a new user, operator.")
    apps: list[str] | None = Field(None, description=f"{APPS} Default: as before; for a new user, all.")
    hawk: bool = Field(False, description="Make a Hawk key, too: CoreUpdate's clients sign with it. An old one ends.")


class UserShown(Shown):
    """A user, without the token."""

    name: str
    role: Role = Field(description=ROLE)
    apps: list[str] = Field(description=APPS)
    token_end: str = Field(description="The token's last four characters.", examples=["x7Qa"])
    has_hawk_key: bool = Field(description="It may sign requests to CoreUpdate's API.")
    created: datetime
    token_created: datetime = Field(description="When the present token was created.")


class UserCreated(UserShown):
    """A user with the new token, which is shown only once."""

    token: str = Field(description="Send it as `Authorization: Bearer TOKEN`.")
    hawk_key: str = Field("", description="For `updateservicectl --key`; empty: none was asked for.")
