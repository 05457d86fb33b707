"""What a server answers, and what it refuses: always with a status of the client's and one reason."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import stepdistill
from stepdistill.deploy.server.schema import AnswersOut, ModelOut

COW, FISH = "Where is the cow?", "Where is the fish?"


def test_answers_are_those_of_the_student(server: Any, light: Path) -> None:
    status, found = server.ask({"texts": [COW, FISH]})
    assert status == 200
    AnswersOut.model_validate(found, strict=True)
    own = stepdistill.load(light).predict([COW, FISH])
    for told, answer in zip(found["answers"], own, strict=True):
        assert told["label"] == answer.label
        assert told["probabilities"] == pytest.approx(answer.probabilities, abs=1e-4)
        assert (told["rationale"], told["abstained"], told["by"]) == (None, False, "student")
    assert [answer["label"] for answer in found["answers"]] == ["field", "sea"]


def test_one_text_several_or_examples_and_rationales_where_asked(server: Any) -> None:
    alone = server.ask({"text": COW})
    assert alone == server.ask({"texts": [COW]}) == server.ask({"examples": [{"text": f" {COW}\n"}]})
    reasons = server.ask({"text": COW, "explain": True})
    assert reasons == server.ask({"text": COW}, "/v1/explain")
    assert reasons[1]["answers"][0]["rationale"] == "One looks there."


def test_what_is_served_is_told(server: Any) -> None:
    found = server.request("GET", "/v1/model")[2]
    assert ModelOut.model_validate(found).labels == ["sea", "attic", "field"]
    assert (found["format"], found["explains"], found["limits"]["max_texts"]) == ("ctranslate2", True, 8)


def chunks() -> Iterator[bytes]:
    yield from [b" " * 60_000] * 3


BAD: dict[str, tuple[Any, int, str]] = {
    "no JSON": (b'{"text": ', 400, "not JSON"),
    "not UTF-8": (b'{"text": "\xff"}', 400, "not JSON"),
    "nothing": (b"", 400, "not JSON"),
    "NaN": (b"NaN", 400, "not JSON"),
    "half a character": (b'{"text": "a\\ud800"}', 400, "not JSON"),
    "the other half": (b'{"text": "\\udfff!"}', 400, "not JSON"),
    "a raw NUL": (b'{"text": "a\x00"}', 400, "not JSON"),
    "deep": (b"[" * 90_000, 400, "not JSON"),
    "a NUL": ({"text": "a\0"}, 422, "text: the text has a NUL"),
    "a list": ([COW], 422, "a JSON object is expected, not a list"),
    "no text": ({}, 422, "give exactly one of: text, texts, examples"),
    "two ways": ({"text": COW, "texts": [COW]}, 422, "exactly one"),
    "a number": ({"text": 7}, 422, "text: a text is expected, not the number 7"),
    "a large number": (b'{"text": 1' + b"0" * 4000 + b"}", 422, "a text is expected"),
    "null": ({"text": None}, 422, "not null"),
    "an empty text": ({"text": " \t\n"}, 422, "text: the text is empty"),
    "one empty of two": ({"texts": [COW, ""]}, 422, "texts[1]: the text is empty"),
    "no texts": ({"texts": []}, 422, "0 texts, and 1 to 8 are allowed"),
    "too many texts": ({"texts": [COW] * 9}, 422, "9 texts, and 1 to 8 are allowed"),
    "text for texts": ({"texts": COW}, 422, "a list is expected, not a text"),
    "a long text": ({"text": "a" * 20_001}, 422, "20001 characters, and 20000 are allowed"),
    "a misspelt key": ({"txet": COW}, 422, "did you mean 'text'?"),
    "a key twice": (b'{"text": "a", "text": "b"}', 422, "the key 'text' stands there twice"),
    "an inner key twice": (b'{"examples": [{"text": "a", "text": "a"}]}', 422, "'text' stands there twice"),
    "a long key twice": (b'{"%b": 1, "%b": 2}' % (b"k" * 4000, b"k" * 4000), 422, "stands there twice"),
    "explain as text": ({"text": COW, "explain": "yes"}, 422, "explain: true or false"),
    "an example without text": ({"examples": [{}]}, 422, "examples[0]: the key 'text' is missing"),
    "options of nobody": ({"examples": [{"text": COW, "options": ["a"]}]}, 422, "examples[0]: unknown key"),
    "a large body": (b"0" * 100_001, 413, "larger than 100000 bytes"),
    "10 MB": (b'{"text": "' + b"a" * 10_000_000 + b'"}', 413, "larger than 100000 bytes"),
    "100,000 characters": ({"text": "a" * 100_000}, 413, "larger than"),
    "large chunks": (chunks, 413, "larger than 100000 bytes"),
}


@pytest.mark.parametrize("path", ["/v1/predict", "/v1/explain"])
@pytest.mark.parametrize("fault", BAD)
def test_a_faulty_body_is_refused_with_one_reason(server: Any, fault: str, path: str) -> None:
    body, status, reason = BAD[fault]
    found, answer = server.ask(body() if callable(body) else body, path)
    if fault == "explain as text" and path == "/v1/explain":
        reason = "unknown key 'explain'"
    assert (found, list(answer)) == (status, ["error"])
    assert reason in answer["error"]
    assert len(answer["error"]) < 300
    assert "\n" not in answer["error"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_only_json_is_read(server: Any, kind: str) -> None:
    assert server.ask({"text": COW}, **{"Content-Type": kind})[0] == 415
    assert server.ask({"text": COW}, **{"Content-Type": "Application/JSON; charset=utf-8"})[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": ""},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic {key}"},
        {"Authorization": "Bearer {key}x"},
        {"Authorization": "", "X-API-Key": "\xff"},
        {"Authorization": "", "X-API-Key": ""},
    ],
)
def test_without_the_key_nothing_but_health_is_told(server: Any, key: str, headers: dict[str, str]) -> None:
    wrong = {name: value.replace("{key}", key) for name, value in headers.items()}
    for method, path in [("POST", "/v1/predict"), ("GET", "/v1/model"), ("GET", "/metrics"), ("GET", "/x")]:
        status, found, answer = server.request(method, path, {"text": COW}, wrong)
        assert (status, found["www-authenticate"]) == (401, 'Bearer realm="stepdistill"')
        assert int(found["content-length"]) == len(json.dumps(answer, separators=(",", ":")))
        assert "STEPDISTILL_API_KEY" in answer["error"]
    for path in ("/", "/docs", "/healthz", "/readyz", "/openapi.json"):
        assert server.request("GET", path, None, wrong)[0] == 200


def test_the_key_opens_in_either_header(server: Any, key: str) -> None:
    for headers in ({"Authorization": f"bearer  {key}"}, {"Authorization": "", "X-API-Key": key}):
        assert server.ask({"text": COW}, **headers)[0] == 200


def test_wrong_paths_and_methods_are_told(server: Any) -> None:
    assert server.request("GET", "/v2")[0] == 404
    for path in ("/docs/", "/healthz/", "/v1/model/"):
        status, headers, _ = server.request("GET", path, None, {"Host": "elsewhere.example"})
        assert (status, "location" in headers) == (404, False)
    status, headers, answer = server.request("GET", "/v1/predict")
    assert (status, headers["allow"]) == (405, "POST")
    assert "does not take this method" in answer["error"]
    assert server.request("DELETE", "/healthz")[0] == 405


@pytest.mark.parametrize("path", ["/", "/docs", "/healthz", "/readyz", "/openapi.json"])
def test_head_is_get_without_a_body(server: Any, path: str) -> None:
    status, headers, body = server.request("HEAD", path, None, {"Content-Type": ""})
    whole, expected, _ = server.request("GET", path)
    assert (status, body) == (whole, "") == (200, "")
    assert {**headers, "date": ""} == {**expected, "date": ""}
    assert server.request("HEAD", "/v1/predict")[0] == 405


def raw(server: Any, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), 60) as client:
        client.sendall(data)
        return b"".join(iter(lambda: client.recv(4096), b""))


def test_a_body_that_does_not_come_ends_with_a_reason(server: Any, key: str) -> None:
    head = "POST /v1/predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
    found = raw(server, f'{head}X-API-Key: {key}\r\nContent-Length: 99\r\n\r\n{{"te'.encode())
    assert found.startswith(b"HTTP/1.1 408 ")
    assert b"the body was not there after 1 s" in found


@pytest.mark.parametrize(
    "data", [b"\x16\x03\x01\x00\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 10**5]
)
def test_what_is_no_http_is_refused(server: Any, data: bytes) -> None:
    assert raw(server, data).startswith(b"HTTP/1.1 4")


def test_a_client_that_leaves_costs_nobody_an_answer(server: Any, key: str) -> None:
    body = json.dumps({"texts": [COW] * 8, "explain": True})
    head = f"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nX-API-Key: {key}\r\n"
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", server.port), 60) as client:
            client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
    until = time.monotonic() + 60
    while server.ask({"text": COW})[0] == 429:
        assert time.monotonic() < until
    while server.counts()["stepdistill_queue_texts"]:
        assert time.monotonic() < until


def test_more_than_the_queue_holds_is_sent_away_for_a_while_and_counts_add_up(server: Any) -> None:
    before = server.counts()

    def ask(number: int) -> int:
        text = [COW, FISH][number % 2]
        status, headers, found = server.request("POST", "/v1/explain", {"texts": [text] * 8})
        if status == 429:
            assert int(headers["retry-after"]) >= 1
            assert "texts are waiting" in found["error"]
        else:
            assert {answer["label"] for answer in found["answers"]} == {["field", "sea"][number % 2]}
        return status

    with ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(ask, range(160)))
    assert set(statuses) <= {200, 429}
    after = server.counts()
    grown = {name: value - before.get(name, 0) for name, value in after.items()}
    good, full = statuses.count(200), statuses.count(429)
    assert grown['stepdistill_requests_total{path="/v1/explain",status="200"}'] == good > 0
    assert grown.get('stepdistill_requests_total{path="/v1/explain",status="429"}', 0) == full
    assert grown.get('stepdistill_rejected_total{reason="queue"}', 0) == full
    assert (
        grown['stepdistill_answers_total{by="student"}'] == grown["stepdistill_batch_texts_sum"] == 8 * good
    )
    assert grown['stepdistill_request_seconds_count{path="/v1/explain"}'] == 160
    assert after["stepdistill_queue_texts"] == 0


def test_neither_texts_nor_keys_are_logged(server: Any, key: str) -> None:
    server.ask(b'{"text": "a secret of the client')
    server.request("GET", "/v1/predict?text=a+secret+of+the+client")
    said = server.log.read_text()
    assert key not in said
    assert "secret" not in said
