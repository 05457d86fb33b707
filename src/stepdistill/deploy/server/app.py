"""The routes of a server, and what they publish of themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from pydantic_core import to_json
from starlette.exceptions import HTTPException

import stepdistill
from stepdistill.deploy.server import page
from stepdistill.deploy.server.batching import FailedBatchError, QueueFullError, RefusedTextError
from stepdistill.deploy.server.body import ClientGoneError, body_of, unless_gone
from stepdistill.deploy.server.metrics import CONTENT_TYPE
from stepdistill.deploy.server.openapi import described, get, post
from stepdistill.deploy.server.schema import BadRequest, HealthOut, ModelOut, answers_out
from stepdistill.deploy.server.service import Service

_JSON = "application/json"
_REASONS = {
    404: "there is no such path; see /docs",
    405: "the path does not take this method; see /docs",
    500: "the server failed; its log says where",
}
CLIENT_GONE = 499
"""Nginx' status of a request whose client did not wait; it is counted, and nobody gets it."""


def make_app(service: Service, keyed: bool) -> FastAPI:
    """The application of a service; `keyed`: whether what it publishes names a key."""
    app = FastAPI(
        title=f"stepdistill: {service.facts['name']}",
        version=stepdistill.__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        # It would lead to whatever host the request names.
        redirect_slashes=False,
    )
    published: dict[str, Any] = {}
    _pages(app, published)
    _states(app, service)
    _answers(app, service)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(Exception, _refused)
    published.update(described(app, keyed))
    return app


def _pages(app: FastAPI, published: Mapping[str, Any]) -> None:
    @app.get("/", include_in_schema=False)
    async def try_it() -> Response:
        return page.response("index.html")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return page.response("docs.html")

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        return _json(published)


def _states(app: FastAPI, service: Service) -> None:
    @app.get("/healthz", **get(HealthOut, open_=True), summary="Whether the server runs")
    async def healthz() -> Response:
        return _json({"status": "ok"})

    @app.get("/readyz", **get(HealthOut, 503, open_=True), summary="Whether the model is loaded and asked")
    async def readyz() -> Response:
        if not service.ready:
            return _error(503, service.state, retry_after=1)
        return _json({"status": "ready"})

    @app.get("/metrics", **get(None), summary="Counts, for Prometheus")
    async def metrics() -> Response:
        return Response(service.metrics.text(), headers={"content-type": CONTENT_TYPE})

    @app.get("/v1/model", **get(ModelOut), summary="What is served, and its limits")
    async def model() -> Response:
        return _json(service.facts)


def _answers(app: FastAPI, service: Service) -> None:
    form = service.form

    @app.post("/v1/predict", **post(form.published()), summary="Labels for texts, in order")
    async def predict(request: Request) -> Response:
        return await _answered(request, service, explain=False)

    # Where nothing can be explained there is no such path, but a reason.
    about = post(form.published(asks=False)) if form.explains else {"include_in_schema": False}

    @app.post("/v1/explain", **about, summary="Labels for texts, with the student's rationales")
    async def explain(request: Request) -> Response:
        if not form.explains:
            return _error(404, "this student was taught no rationales that explain its answers")
        return await _answered(request, service, explain=True)


async def _answered(request: Request, service: Service, explain: bool) -> Response:
    """Read, queue, wait, answer; every way that this can fail has a status and a reason."""
    if not service.loaded:
        service.metrics.refused("loading")
        return _error(503, service.state, retry_after=1)
    try:
        body = await body_of(request, service.limits)
        examples, wanted = service.form.read(body, asks=not explain)
        del body  # it may be large, and the answer may take a while
        answers = await unless_gone(request, service.ask(examples, explain or wanted))
    except BadRequest as error:
        return _error(error.status, str(error))
    except QueueFullError as error:
        return _error(429, str(error), error.retry_after)
    except RefusedTextError as error:
        return _error(422, f"text {error.place + 1}: {error}")
    except FailedBatchError as error:
        if error.memory:
            service.metrics.refused("memory")
            return _error(503, "the server has no memory for this now; send fewer or shorter texts", 1)
        return _error(500, _REASONS[500])
    except ClientGoneError:
        return Response(status_code=CLIENT_GONE)
    except asyncio.CancelledError:
        service.metrics.refused("stopping")
        return _error(503, "the server has stopped before it came to this request", retry_after=1)
    service.metrics.answered(answers)
    return _json(answers_out(answers))


async def _refused(_: Request, error: Exception) -> Response:
    """Unknown paths, wrong methods and crashes, in the form of all other errors."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    made = _error(status, _REASONS.get(status, "the request cannot be answered"))
    made.headers.update(getattr(error, "headers", None) or {})
    return made


def _json(values: Any) -> Response:
    return Response(to_json(values), headers={"content-type": _JSON, "cache-control": "no-store"})


def _error(status: int, reason: str, retry_after: int | None = None) -> Response:
    made = Response(to_json({"error": reason}), status, headers={"content-type": _JSON})
    if retry_after is not None:
        made.headers["retry-after"] = str(retry_after)
    return made
