"""Applications of the update service for tests: one for each test, all with the same routes."""

from typing import Any

from fastapi import FastAPI
from starlette.routing import BaseRoute

from outrider.etcd.seam import Cluster
from outrider.service.application import create_application
from outrider.service.payloads.folder import PayloadFolder

_routes: list[BaseRoute] = []


def new_application(cluster: Cluster, payloads: PayloadFolder, **options: Any) -> FastAPI:
    """As ``create_application``, with the routes of the first application of this test run.

    FastAPI 0.165 works out what each route takes at an application's first request, 0.2 s of CPU; a service does that
    once, and hundreds of tests would. Routes find all that differs (store, payloads, users, clock) by ``request.app``.
    """
    application = create_application(cluster, payloads, **options)
    if not _routes:
        _routes.extend(application.router.routes)
    application.router.routes[:] = _routes
    return application
