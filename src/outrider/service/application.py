"""The service as one ASGI application without state of its own: any number of processes can run side by side."""

from typing import Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import PlainTextResponse

from outrider import __version__
from outrider.core.errors import OutriderError
from outrider.etcd.seam import Cluster
from outrider.model.keys import DEFAULT_PREFIX
from outrider.oidc.tokens import Tokens
from outrider.service import problems
from outrider.service.api import activity as rest_activity
from outrider.service.api import audit as rest_audit
from outrider.service.api import client_tokens as rest_client_tokens
from outrider.service.api import environment as rest_environment
from outrider.service.api import history as rest_history
from outrider.service.api import identity_provider as rest_identity_provider
from outrider.service.api import openapi, rest
from outrider.service.api import page_links as rest_page_links
from outrider.service.api import payloads as payload_endpoint
from outrider.service.api import policy as rest_policy
from outrider.service.api import signing as rest_signing
from outrider.service.api import tasks as rest_tasks
from outrider.service.api import users as rest_users
from outrider.service.api.auth import AccessRules, AuthMiddleware
from outrider.service.api.hosts import own_hosts
from outrider.service.context import Context, request_context_of
from outrider.service.coreupdate import figures as coreupdate_figures
from outrider.service.coreupdate import uploads as coreupdate_uploads
from outrider.service.coreupdate import verbs as coreupdate_verbs
from outrider.service.coreupdate.auth import HawkMiddleware
from outrider.service.cup import CupSigner
from outrider.service.destinations import ANALYSES, Destinations
from outrider.service.inlet import ClientRules, Inlet
from outrider.service.limits import Limits, Network, checkin_buckets
from outrider.service.omaha import endpoint as omaha_endpoint
from outrider.service.omaha.quick import QuickEndpoint
from outrider.service.operations import database as rest_database
from outrider.service.operations import metrics
from outrider.service.operations import status as rest_status
from outrider.service.operations.readiness import Readiness
from outrider.service.payloads.folder import PayloadFolder
from outrider.service.payloads.registry import NoRegistries, Registries
from outrider.service.problems import RETRY_HEADERS
from outrider.service.rollouts.batches import Batches
from outrider.service.rollouts.checkins import Checkins
from outrider.service.rollouts.misaddressed import Misaddressed
from outrider.service.rollouts.quick import QuickCheckins
from outrider.service.rollouts.room import GroupRoom
from outrider.service.rollouts.touches import Touches
from outrider.service.shortcut import ROUTE, CheckinShortcut
from outrider.service.store.audit import KEPT_DAYS
from outrider.service.store.context import Clock
from outrider.service.store.read_model import NotingCluster, ReadModel
from outrider.service.store.store import open_stores, utc_now
from outrider.service.store.users import KnownUsers
from outrider.service.web.application import Pages, Web


def create_application(
    cluster: Cluster,
    payloads: PayloadFolder,
    *,
    prefix: str = DEFAULT_PREFIX,
    public_url: str | None = None,
    own_url: str | None = None,
    open_to_all: bool = False,
    allowed_hosts: tuple[str, ...] = (),
    protect_metrics: bool = False,
    audit_days: int = KEPT_DAYS,
    omaha_secret: str | None = None,
    cup: CupSigner | None = None,
    tokens: Tokens | None = None,
    coreupdate_api: bool = False,
    registries: Registries | None = None,
    destinations: Destinations | None = None,
    analysis_destinations: Destinations = ANALYSES,
    limits: Limits | None = None,
    trusted_proxies: tuple[Network, ...] = (),
    now: Clock = utc_now,
) -> FastAPI:
    """Build the application; it works as soon as etcd does, and answers 503 until then.

    Args:
        public_url: The address for clients; None: each request's own Host.
        own_url: Where this process listens, for links that are made at its Unix socket.
        open_to_all: While there never was a user, the network may do everything too.
        allowed_hosts: Further names by which clients call the service, as ``Host`` has them.
        protect_metrics: ``/metrics`` asks for a token, too.
        audit_days: Days for which entries of the audit log are kept.
        omaha_secret: Last part of the Omaha address.
        cup: Signs Omaha answers for clients that ask for it.
        tokens: Of an identity provider; None: there is none.
        coreupdate_api: Serve CoreUpdate's REST API, too.
        registries: Where it asks which image a tag names; None: nowhere.
        destinations: Where webhooks may lead; None: to public addresses.
        analysis_destinations: Where the analyses at the end of a wave may lead.
        limits: What it takes; None: the defaults.
        trusted_proxies: Whose word about a client's address counts.

    Raises:
        ConfigError: ``omaha_secret`` is invalid.
    """
    application = FastAPI(
        title="outrider update service",
        version=__version__,
        summary="Apps, channels, groups, packages and the instances that follow them.",
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=openapi.operation_id,
    )
    limits = limits or Limits()
    noting = NotingCluster(cluster)
    stores = open_stores(noting, prefix, now, audit_days=audit_days)
    read_model = noting.model = ReadModel(cluster, stores.context.keys)
    known_users = KnownUsers(cluster, stores.context.keys)
    application.state.metrics = metrics.Metrics(stores.context)
    application.state.readiness = Readiness(stores.context)
    application.state.context = Context(
        stores=stores,
        checkins=Checkins(
            context=stores.context,
            on_verdict=application.state.metrics.note_verdict,
            batches=Batches(read_model),
            room=GroupRoom(stores.context, limits, model=read_model),
            history=(limits.max_history, max(limits.max_history // 5, 1)),
            on_misaddressed=Misaddressed(stores.context),
        ),
        known_users=known_users,
        payloads=payloads,
        public_url=public_url.rstrip("/") if public_url else None,
        own_url=own_url,
        omaha_secret=omaha_endpoint.checked_secret(omaha_secret),
        cup=cup,
        tokens=tokens,
        registries=registries or NoRegistries(),
        destinations=destinations or Destinations(),
        analysis_destinations=analysis_destinations,
        limits=limits,
        checkin_buckets=checkin_buckets(limits),
        read_model=read_model,
    )
    problems.install(application)
    openapi.install(application)
    application.include_router(omaha_endpoint.router)
    application.include_router(payload_endpoint.router)
    application.include_router(rest.router, dependencies=[Depends(request_context_of)])
    application.include_router(rest_policy.router, dependencies=[Depends(request_context_of)])
    application.include_router(rest_environment.router, dependencies=[Depends(request_context_of)])
    application.include_router(rest_tasks.router, dependencies=[Depends(request_context_of)])
    application.include_router(rest_signing.router, dependencies=[Depends(request_context_of)])
    application.include_router(rest_client_tokens.router, dependencies=[Depends(request_context_of)])
    application.include_router(rest_users.router, dependencies=[Depends(request_context_of)])
    application.include_router(rest_identity_provider.router)
    application.include_router(rest_page_links.router, dependencies=[Depends(request_context_of)])
    application.include_router(rest_audit.router, dependencies=[Depends(request_context_of)])
    application.include_router(rest_activity.router, dependencies=[Depends(request_context_of)])
    application.include_router(rest_history.router, dependencies=[Depends(request_context_of)])
    application.include_router(rest_status.router, dependencies=[Depends(request_context_of)])
    application.include_router(metrics.router)
    application.include_router(rest_database.router, dependencies=[Depends(request_context_of)])
    for router in (coreupdate_verbs.router, coreupdate_figures.router, coreupdate_uploads.router):
        application.include_router(router)
    application.add_api_route("/healthz", healthz, tags=["operation"], response_class=PlainTextResponse)
    not_ready: dict[int | str, dict[str, Any]] = {
        503: {"description": "The reason, in one line", "content": {"text/plain": {}}}
    }
    application.add_api_route(
        "/readyz", readyz, tags=["operation"], response_class=PlainTextResponse, responses=not_ready
    )
    rules = AccessRules(
        open_to_all=open_to_all,
        hosts=own_hosts(public_url, allowed_hosts),
        protect_metrics=protect_metrics,
        tokens=tokens,
    )
    application.add_middleware(AuthMiddleware, known=known_users, keys=stores.context.keys, rules=rules)
    application.add_middleware(
        HawkMiddleware,
        known=known_users,
        cluster=noting,
        keys=stores.context.keys,
        rules=rules,
        enabled=coreupdate_api,
        now_s=lambda: now().timestamp(),
    )
    context: Context = application.state.context
    web = application.state.web = Web(context, rules, application.state.readiness)
    application.add_middleware(Pages, web=web)
    touches = application.state.touches = Touches(noting)
    quick = QuickEndpoint(context, QuickCheckins(context.checkins, read_model, touches))
    client_rules = ClientRules(limits, trusted_proxies)
    requests = application.state.metrics.requests

    def observe(status: int, seconds: float) -> None:
        requests.labels("POST", ROUTE, str(status)).observe(seconds)

    application.state.shortcut = CheckinShortcut(client_rules, quick, observe)
    application.add_middleware(Inlet, limits=limits, rules=client_rules, quick=quick)
    application.add_middleware(metrics.MeasureRequests, metrics=application.state.metrics)
    return application


async def healthz() -> Response:
    """Tell whether the process is alive."""
    return PlainTextResponse("ok\n")


def readyz(request: Request) -> Response:
    """Tell whether the service can answer: 200, or 503 with the reason."""
    readiness: Readiness = request.app.state.readiness
    try:
        problems = readiness.problems()
    except OutriderError as error:
        problems = (str(error),)
    if problems:
        return PlainTextResponse("; ".join(problems) + "\n", status_code=503, headers=RETRY_HEADERS)
    return PlainTextResponse("ready\n")
