"""The parts that every endpoint needs, kept on the application: none of them changes while it serves."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Query, Request
from starlette.datastructures import Headers
from starlette.types import Scope

from outrider.core.errors import Unauthorized
from outrider.core.rollout.policy_settings import Policy
from outrider.oidc.tokens import Tokens
from outrider.service.admission import AdmissionControl
from outrider.service.cup import CupSigner
from outrider.service.destinations import ANALYSES, Destinations
from outrider.service.limits import Buckets, Limits, checkin_buckets
from outrider.service.payloads.folder import PayloadFolder
from outrider.service.payloads.registry import NoRegistries, Registries
from outrider.service.rollouts.checkins import Checkins
from outrider.service.store.read_model import ReadModel
from outrider.service.store.request import RequestContext
from outrider.service.store.store import Store, Stores
from outrider.service.store.users import KnownUsers

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(:[0-9]{1,5})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The service's parts.

    Attributes:
        public_url: The address for clients, without a slash at the end; None: each request's own Host.
        own_url: Where this process itself listens, for who is on its machine; None: nobody said.
        omaha_secret: Last part of the Omaha address; None: no secret.
        cup: Signs Omaha answers for clients that ask for it; None: nobody does.
        tokens: Of an identity provider; None: there is none.
        registries: Where it asks which image a tag names.
        limits: What it takes.
        destinations: Where webhooks may lead.
        analysis_destinations: Where the analyses at the end of a wave may lead.
        checkin_buckets: How often each instance may check in.
        read_model: Answers what needs no transaction, while it runs.
    """

    stores: Stores
    checkins: Checkins
    known_users: KnownUsers
    payloads: PayloadFolder
    public_url: str | None = None
    own_url: str | None = None
    omaha_secret: str | None = None
    cup: CupSigner | None = None
    tokens: Tokens | None = None
    registries: Registries = field(default_factory=NoRegistries)
    limits: Limits = field(default_factory=Limits)
    destinations: Destinations = field(default_factory=Destinations)
    analysis_destinations: Destinations = ANALYSES
    checkin_buckets: Buckets = field(default_factory=lambda: checkin_buckets(Limits()))
    admission: AdmissionControl = field(default_factory=AdmissionControl)
    read_model: ReadModel | None = None


def is_wanted_by(request: Request) -> Callable[[], bool]:
    """Whether the client of ``request`` still waits, for threads that work for it."""
    gone = request.scope.get("state", {}).get(GONE)
    return lambda: gone is None or not gone.is_set()


def context_of(request: Request) -> Context:
    """The context of the application that serves ``request``."""
    context: Context = request.app.state.context
    return context


def check_destinations(context: Context, policy: Policy | None) -> None:
    """Refuse a policy whose analyses lead where this service may not send requests.

    Raises:
        ConfigError: with the address, and the option that allows it.
    """
    for one in () if policy is None else policy.analyses:
        try:
            host = urlsplit(one.url).hostname
        except ValueError:
            host = None  # what is wrong with it, the policy's own check says
        if host:
            context.analysis_destinations.check(f"analyses: {one.name}: url", host)


GONE = "outrider_gone"
"""Where the inlet keeps the event that the client is gone, in the state of a request."""
_REQUEST_CONTEXT = "outrider.request_context"


def admit(scope: Scope, asked: RequestContext) -> None:
    """Hand the context of an admitted request on to the endpoint; the auth middleware alone does this."""
    scope[_REQUEST_CONTEXT] = asked


async def request_context_of(request: Request) -> RequestContext:
    """The context of an admitted request.

    Raises:
        Unauthorized: the auth middleware has not admitted it, so there is no principal.
    """
    asked = request.scope.get(_REQUEST_CONTEXT)
    if not isinstance(asked, RequestContext):
        raise Unauthorized("the request has no principal; nothing was done")
    return asked


async def store_of(request: Request) -> Store:
    """The store, bound to the request: every endpoint of the API reads and writes through it.

    Raises:
        Unauthorized: there is no principal.
    """
    return context_of(request).stores.on_behalf_of(await request_context_of(request))


Bound = Annotated[Store, Depends(store_of)]
Asked = Annotated[RequestContext, Depends(request_context_of)]
OfSelector = Annotated[
    str, Query(description="Only instances whose labels it selects: `site=a,rack!=3`, `site in (a,b)`, `!canary`.")
]


def base_url_of(request: Request) -> str:
    """The address by which the client reaches this service: the public URL, else the request's Host."""
    return base_url_in(context_of(request), request.scope, request.headers)


def base_url_in(context: Context, scope: Scope, headers: Headers) -> str:
    """As ``base_url_of``, for a request that has not reached the application."""
    if context.public_url is not None:
        return context.public_url
    host = headers.get("host", "")
    if not _HOST.fullmatch(host):
        server = scope.get("server") or ("127.0.0.1", 80)
        host = f"{server[0]}:{server[1]}"
    return f"{scope['scheme']}://{host}"
