"""What /openapi.json says of every route alike: how to log in, what is answered around the routes, and 400 where FastAPI would say 422.

The routes of DICOMweb are not in it: PS3.18 describes them better than OpenAPI can (media types in parameters, wildcards).
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from listener.api_told import Problem

_PROBLEM = {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
#: What is answered around the routes, so that any of them may.
_AROUND: dict[str, dict[str, Any]] = {
    "401": {"description": "Nobody of this name and password, or no such token; see [[user]]", "content": _PROBLEM},
    "403": {"description": "The role is not enough, or a page of another origin asks", "content": _PROBLEM},
    "421": {"description": "The Host header names another machine", "content": _PROBLEM},
    "429": {"description": "Too many requests or wrong passwords; Retry-After says when", "content": _PROBLEM},
    "503": {"description": "The database is busy or away; Retry-After says when to try again", "content": _PROBLEM},
}
_LONG_QUERY = {"414": {"description": "The query is longer than 8192 bytes", "content": _PROBLEM}}
_LARGE_BODY = {"413": {"description": "The body is larger than 1 MiB", "content": {"text/plain": {}}}}
_SCHEMES = {"basic": {"type": "http", "scheme": "basic"}, "bearer": {"type": "http", "scheme": "bearer"}}
#: They are asked without a password.
_OPEN = ("/healthz", "/readyz")


def describe(app: FastAPI) -> None:
    """Let /openapi.json say what is true of every route: how to log in, what is answered around it, and 400 where FastAPI would say 422."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is not None:
            return app.openapi_schema
        described = made()
        parts = described.setdefault("components", {})
        schemas = parts.setdefault("schemas", {})
        schemas.pop("HTTPValidationError", None)
        schemas.pop("ValidationError", None)
        schemas.setdefault("Problem", Problem.model_json_schema())
        parts["securitySchemes"] = _SCHEMES
        for path, operations in described["paths"].items():
            for method, operation in operations.items():
                _say_of(operation, path, method)
        return described

    app.openapi = openapi  # type: ignore[method-assign]


def _say_of(operation: dict[str, Any], path: str, method: str) -> None:
    answers = operation["responses"]
    answers.pop("422", None)
    more = dict(_LONG_QUERY)
    if path not in _OPEN:
        more |= _AROUND
        operation["security"] = [{}, *({name: []} for name in _SCHEMES)]  # {}: where nobody has to log in
    if method == "post":
        more |= _LARGE_BODY
    for status, answer in more.items():
        answers.setdefault(status, answer)
