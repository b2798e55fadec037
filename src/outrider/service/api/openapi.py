"""The API's description of itself: what FastAPI makes of routes and models, and what the auth middleware adds to every
one.

Tokens, conditions and entity tags are the auth middleware's business and no endpoint's, so they stand in no signature;
they are written into the document here, by the same tables that the middleware goes by.
"""

import re
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from outrider.model.keys import Keys
from outrider.service.api.auth import API, OPEN, role_needed
from outrider.service.api.resources import resource_of
from outrider.service.problems import MEDIA_TYPE

Json = dict[str, Any]

SECURITY_SCHEMES: Json = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A user's token."},
    "basic": {"type": "http", "scheme": "basic", "description": "A user's name, and the token as the password."},
}
_MIDDLEWARE_ALONE = ("401", "403", "412")
_IF_MATCH: Json = {
    "name": "If-Match",
    "in": "header",
    "required": False,
    "schema": {"type": "string"},
    "description": "The `ETag` of what you have read: 412 when somebody has changed it meanwhile, and who. "
    "Without it the last one wins.",
}
_IF_NONE_MATCH: Json = {
    "name": "If-None-Match",
    "in": "header",
    "required": False,
    "schema": {"type": "string"},
    "description": "The `ETag` of what you have: 304 while it is the same.",
}
_IF_ABSENT: Json = _IF_NONE_MATCH | {
    "schema": {"type": "string", "enum": ["*"]},
    "description": "`*`: only when there is none yet, else 412.",
}
_ETAG: Json = {"description": "Changes when the answer does.", "schema": {"type": "string"}}


def operation_id(route: APIRoute) -> str:
    """The endpoint's own name: there is one of each, and clients are made with it."""
    return route.name


def install(application: FastAPI) -> None:
    """Make the application describe what the auth middleware does, too."""
    plain = application.openapi

    def described() -> Json:
        if application.openapi_schema is None:
            document = plain()
            document.setdefault("components", {})["securitySchemes"] = SECURITY_SCHEMES
            for name, schema in document["components"].get("schemas", {}).items():
                if name.startswith("Items_"):
                    schema.setdefault("description", "A page of a list.")
            for path, methods in document["paths"].items():
                for method, operation in methods.items():
                    _complete(path, method.upper(), operation)
            application.openapi_schema = document
        return application.openapi_schema

    application.openapi = described  # type: ignore[method-assign]


def _complete(path: str, method: str, operation: Json) -> None:
    # A docstring's first line is what it does; FastAPI would show the function's name.
    summary, _, more = operation.get("description", "").partition("\n")
    operation["summary"] = summary.strip().rstrip(".")
    operation["description"] = more.strip()
    responses: Json = operation["responses"]
    for status, response in responses.items():
        _show_problem_once(status, response)
    if not path.startswith(API) or path in OPEN:
        operation["security"] = []
        for status in _MIDDLEWARE_ALONE:
            responses.pop(status, None)
        return
    operation["security"] = [{"bearer": []}, {"basic": []}]
    role = f"Needs the role `{role_needed(method, path)}`."
    operation["description"] = "\n\n".join(filter(None, (operation["description"], role)))
    is_document = resource_of(Keys(), re.sub(r"\{[a-z_]+\}", "x", path)) is not None
    if method == "GET":
        if "application/json" in responses["200"].get("content", {}):
            operation.setdefault("parameters", []).append(_IF_NONE_MATCH)
            responses["200"]["headers"] = {"ETag": _ETAG}
            responses["304"] = {"description": "You have it already", "headers": {"ETag": _ETAG}}
        responses.pop("412", None)
    elif is_document:
        operation.setdefault("parameters", []).append(_IF_MATCH)
        if method == "PUT":
            operation["parameters"].append(_IF_ABSENT)
        for status in {"200", "201"} & set(responses) if method != "DELETE" else ():
            responses[status]["headers"] = {"ETag": _ETAG}
    else:
        responses.pop("412", None)


def _show_problem_once(status: str, response: Json) -> None:
    """A problem is not also plain JSON, as FastAPI has it."""
    content: Json = response.get("content", {})
    if MEDIA_TYPE in content and "application/json" in content:
        content[MEDIA_TYPE] = content.pop("application/json")
