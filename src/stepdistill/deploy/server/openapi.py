"""What a server publishes of its routes: bodies, answers, every status, the key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from stepdistill.deploy.server.schema import AnswersOut, ErrorOut

REASONS = {
    400: "The body is not JSON",
    401: "The key is missing or wrong",
    404: "There is no such path",
    405: "The path does not take this method",
    408: "The body was too slow",
    413: "The body is too large",
    415: "The body is not sent as JSON",
    421: "Without a key: the host is not this machine by name",
    422: "The body has not the form of a request, or the student cannot take a text",
    429: "Too many texts wait; ask again after Retry-After seconds",
    500: "The server failed",
    503: "The model is not loaded yet, or the server is stopping",
}
_KEYS: list[dict[str, list[str]]] = [{"bearer": []}, {"header": []}]
_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
_OPEN = "x-open"


def get(answer: type[BaseModel] | None, *statuses: int, open_: bool = False) -> dict[str, Any]:
    """What a route that is read publishes; `answer` None: plain text. `open_`: it needs no key."""
    plain = {"description": "Counts", "content": {"text/plain": {"schema": {"type": "string"}}}}
    good = plain if answer is None else {"description": "The answer", "model": answer}
    return _published(good, (421, 500, *statuses) if open_ else (401, 421, 500, *statuses), {_OPEN: open_})


def post(body: Mapping[str, Any]) -> dict[str, Any]:
    """What a route that answers texts publishes; `body` is the JSON Schema of requests."""
    content = {"application/json": {"schema": body}}
    good = {"description": "The answers, in order", "model": AnswersOut}
    statuses = (400, 401, 408, 413, 415, 421, 422, 429, 500, 503)
    return _published(good, statuses, {"requestBody": {"required": True, "content": content}})


def described(app: FastAPI, keyed: bool) -> dict[str, Any]:
    """What the application publishes of itself; `keyed`: with the key that routes need."""
    spec = get_openapi(title=app.title, version=app.version, routes=app.routes)
    for operation in (one for path in spec["paths"].values() for one in path.values()):
        is_open = operation.pop(_OPEN, False)
        if keyed and not is_open:
            operation["security"] = _KEYS
        for status in ("421",) if keyed else ("401",):
            operation["responses"].pop(status, None)
    if keyed:
        spec["components"]["securitySchemes"] = _SCHEMES
    return spec


def _published(good: Mapping[str, Any], statuses: tuple[int, ...], more: Mapping[str, Any]) -> dict[str, Any]:
    bad = {status: _reason(status) for status in sorted(statuses)}
    return {"response_model": None, "responses": {200: dict(good), **bad}, "openapi_extra": dict(more)}


def _reason(status: int) -> dict[str, Any]:
    made: dict[str, Any] = {"description": REASONS[status], "model": ErrorOut}
    if status in (429, 503):
        about = "Seconds after which to ask again"
        made["headers"] = {
            "Retry-After": {"description": about, "schema": {"type": "integer"}, "required": status == 429}
        }
    return made
