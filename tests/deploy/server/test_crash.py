"""What goes wrong inside is told as a 500 without details, and logged without texts."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import stepdistill
from stepdistill.deploy.answer import Answer
from stepdistill.deploy.bundle import Bundle, seal
from stepdistill.deploy.server.app import make_app
from stepdistill.deploy.server.door import Door
from stepdistill.deploy.server.limits import ServeConfig
from stepdistill.deploy.server.service import Service
from stepdistill.records import Example

SECRET = "a secret of the client"


def crash(examples: Sequence[Example], explain: bool) -> list[Answer]:
    raise ValueError(examples[0].text)


def starve(examples: Sequence[Example], explain: bool) -> list[Answer]:
    raise MemoryError


async def asked(door: Door, path: str, body: bytes) -> tuple[int, bytes]:
    sent: list[Any] = []

    async def receive() -> Any:
        if body and not sent:
            sent.append({"type": "http.request"})
            return {"type": "http.request", "body": body, "more_body": False}
        return await asyncio.get_running_loop().create_future()

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "query_string": b""}
    await door({**scope, "raw_path": path.encode(), "http_version": "1.1", "scheme": "http"}, receive, send)
    start = next(message for message in sent if message["type"] == "http.response.start")
    return start["status"], b"".join(message.get("body", b"") for message in sent)


def test_a_crash_is_a_500_that_tells_and_logs_no_text(light: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> tuple[tuple[int, bytes], ...]:
        running = asyncio.create_task(service.run())
        while not service.loaded:
            await asyncio.sleep(0.01)
        try:
            first = await asked(door, "/v1/predict", json.dumps({"text": SECRET}).encode())
            service.batcher.ask = starve
            second = await asked(door, "/v1/predict", json.dumps({"text": SECRET}).encode())
            service.batcher.ask = service._runtime.predict
            return first, second, await asked(door, "/v1/predict", b'{"text": "Where is the cow?"}')
        finally:
            running.cancel()
            service.close()

    service = Service(stepdistill.load(light), ServeConfig())
    service.batcher.ask = crash
    door = Door(make_app(service, keyed=False), None, service.metrics)
    with caplog.at_level(logging.ERROR):
        (status, body), (starved, _), (later, answer) = asyncio.run(work())
    assert (status, body) == (500, b'{"error":"the server failed; its log says where"}')
    assert starved == 503
    assert b'stepdistill_rejected_total{reason="memory"} 1.0' in service.metrics.text()
    assert (later, json.loads(answer)["answers"][0]["label"]) == (200, "field")
    assert "ValueError in a batch of 1 texts" in caplog.text
    assert "test_crash.py" in caplog.text
    assert SECRET not in caplog.text


def test_a_model_that_cannot_be_loaded_ends_the_server_with_one_line(
    light: Path, starts: Any, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(light, broken)
    (broken / "model.bin").write_bytes((light / "model.bin").read_bytes()[:1000])
    seal(broken, Bundle.model_validate_json((light / "bundle.json").read_text()))
    with starts(broken, ready=False) as served:
        assert served.process.wait(60) == 2
        said = served.log.read_text()
        assert said.startswith("Error: ")
        assert said.count("\n") == 1
