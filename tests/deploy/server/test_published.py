"""What a server publishes of itself is what it does, with the key and without."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

import stepdistill
from stepdistill.deploy.server.app import make_app
from stepdistill.deploy.server.limits import ServeConfig
from stepdistill.deploy.server.service import Service

OPEN = ("/healthz", "/readyz")


def published(light: Path, keyed: bool) -> Any:
    """The specification as a client gets it."""
    sent: list[Any] = []

    async def work() -> None:
        service = Service(stepdistill.load(light), ServeConfig())

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            return {"type": "http.request"}

        scope = {"type": "http", "method": "GET", "path": "/openapi.json", "headers": [], "query_string": b""}
        await make_app(service, keyed)(scope, receive, send)
        service.close()

    asyncio.run(work())
    return json.loads(b"".join(message.get("body", b"") for message in sent))


@pytest.mark.parametrize("keyed", [True, False])
def test_the_key_is_published_where_one_is_asked_for(light: Path, keyed: bool) -> None:
    spec = published(light, keyed)
    assert ("securitySchemes" in spec["components"]) == keyed
    assert "x-open" not in json.dumps(spec)
    for path, methods in spec["paths"].items():
        for operation in methods.values():
            assert ("security" in operation) == (keyed and path not in OPEN)
            assert ("401" in operation["responses"]) == (keyed and path not in OPEN)
            assert ("421" in operation["responses"]) == (not keyed)


def test_what_a_running_server_publishes_names_its_key(server: Any) -> None:
    spec = server.request("GET", "/openapi.json")[2]
    assert set(spec["components"]["securitySchemes"]) == {"bearer", "header"}
    assert spec["paths"]["/v1/predict"]["post"]["security"]
