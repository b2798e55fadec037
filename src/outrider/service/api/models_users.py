"""What the REST API takes and gives of users."""

from datetime import datetime

from pydantic import Field

from outrider.model.documents import Role
from outrider.service.api.models import Given, Shown

ROLE = "viewer reads; operator also changes what is rolled out; admin also has users, and removes apps."


class WhoAmI(Shown):
    """Who asked."""

    name: str = Field(description="In parentheses when there are no users yet.", examples=["ann"])
    role: Role = Field(description=ROLE)


class NewUser(Given):
    """A user to be made, or to be given a new token."""

    name: str = Field(description="1 to 64 letters, digits or . _ @ + -", examples=["ann"])
    role: Role | None = Field(None, description=f"{ROLE} Absent: what the user has, else operator.")


class UserShown(Shown):
    """A user, without what proves it."""

    name: str
    role: Role = Field(description=ROLE)
    token_end: str = Field(description="The token's last four characters.", examples=["x7Qa"])
    created: datetime
    token_created: datetime = Field(description="When the present token was made.")


class UserCreated(UserShown):
    """A user with the new token, which is shown this once."""

    token: str = Field(description="Send it as `Authorization: Bearer TOKEN`.")
