"""The OpenAPI document: FastAPI describes routes and models, and this module adds the auth middleware's part.

The middleware, not the endpoints, handles tokens, conditions and entity tags, so no signature has them. This module
writes them into the document from the middleware's own tables.
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
    "description": "The `ETag` that you have read. The answer is 412, with the last change, when the resource has "
    "changed since. "
    "Without this header the last write wins.",
}
_IF_NONE_MATCH: Json = {
    "name": "If-None-Match",
    "in": "header",
    "required": False,
    "schema": {"type": "string"},
    "description": "The `ETag` that you have: 304 while it is unchanged.",
}
_IF_ABSENT: Json = _IF_NONE_MATCH | {
    "schema": {"type": "string", "enum": ["*"]},
    "description": "`*`: only when the resource does not exist yet, else 412.",
}
_ETAG: Json = {"description": "Changes when the answer does.", "schema": {"type": "string"}}


def operation_id(route: APIRoute) -> str:
    """The endpoint's own name: it is unique, and generated clients use it."""
    return route.name


def install(application: FastAPI) -> None:
    """Add the auth middleware's part to the application's OpenAPI document."""
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
    # The docstring's first line is the summary; FastAPI would show the function's name.
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
            responses["304"] = {"description": "Unchanged: you have it already", "headers": {"ETag": _ETAG}}
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
    """Remove plain JSON, which FastAPI adds beside the problem."""
    content: Json = response.get("content", {})
    if MEDIA_TYPE in content and "application/json" in content:
        content[MEDIA_TYPE] = content.pop("application/json")
