"""The fake server fails as planned, and counts what it did."""

from __future__ import annotations

import gzip
import http.client
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from faults import EDITS, KINDS
from faulty_record import Bucket, Record
from faulty_server import BatchPlan, Fault, FaultyServer, echo, prompt_hash

HERE = Path(__file__).parent
Got = tuple[int, dict[str, str], bytes]


def chat(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}], **more}


PATIENCE = 5.0


def call(port: int, method: str, path: str, body: object = None, **headers: str) -> Got:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        data = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else None
        connection.request(method, path, data, headers)
        reply = connection.getresponse()
        return reply.status, dict(reply.getheaders()), reply.read()
    finally:
        connection.close()


def ask(server: FaultyServer, text: str = "hello", **more: Any) -> Got:
    return call(server.port, "POST", "/v1/chat/completions", chat(text, **more))


def words(got: Got) -> Any:
    return json.loads(got[2])["choices"][0]["message"]["content"]


def test_answers_follow_from_the_prompt_and_are_counted_once_each() -> None:
    with FaultyServer(log=9, key="k") as server:
        for text in ("a", "b", "a"):
            body = chat(text)
            got = call(server.port, "POST", "/v1/chat/completions", body, Authorization="Bearer k")
            assert words(got) == echo()(text, None)
        body = {"model": "m", "prompt": "é" * 20, "max_tokens": 3}
        found = json.loads(call(server.port, "POST", "/v1/completions", body, Authorization="Bearer k")[2])
        assert found["choices"][0] == {"index": 0, "text": "Because of e"[:12], "finish_reason": "length"} | {
            "text": echo()("é" * 20, None)[:12]
        }
        assert found["usage"] == {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}
        assert call(server.port, "GET", "/v1/models")[0] == 401
        assert server.seen == {prompt_hash(chat("a")): 2, prompt_hash(chat("b")): 1, prompt_hash(body): 1}
        assert server.counts["answered"] == 4
        assert [entry[2:] for entry in server.requests] == [(200, True)] * 4 + [(401, False)]
        server.reset()
        assert (server.seen, server.requests, server.counts["requests"]) == ({}, [], 0)


def test_a_strange_host_or_path_is_noted() -> None:
    with FaultyServer() as server:
        assert call(server.port, "GET", "/v1/models")[0] == 200
        assert server.record.strays == []
        call(server.port, "GET", "/telemetry")
        call(server.port, "GET", "/v1/models", Host="elsewhere")
        assert len(server.record.strays) == server.counts["stray"] == 2


def test_a_share_is_the_same_every_time_and_about_what_was_asked() -> None:
    def hit(seed: int) -> list[bool]:
        with FaultyServer([Fault("status", share=0.3, times=1)], seed=seed) as server:
            first = [ask(server, str(i))[0] == 500 for i in range(60)]
            assert all(ask(server, str(i))[0] == 200 for i in range(60))
            return first

    assert hit(1) == hit(1) != hit(2)
    assert 5 < sum(hit(1)) < 35


def test_rules_count_and_match() -> None:
    rules = [Fault("status", match="bad", status=502), Fault("quota", after=3, most=1)]
    with FaultyServer(rules) as server:
        got = [ask(server, text)[0] for text in ("bad", "x", "x", "x", "x", "bad")]
        assert got == [502, 200, 200, 429, 200, 502]
        assert server.counts["fault:status"] == 2
    with pytest.raises(ValueError, match="no fault is called 'nothing'"):
        Fault("nothing")


def test_what_is_said_instead_of_an_answer() -> None:
    with FaultyServer() as server:
        server.plan = [Fault("status", status=429, retry_after="junk")]
        status, headers, body = ask(server)
        assert (status, headers["Retry-After"], "error" in json.loads(body)) == (429, "junk", True)
        server.plan = [Fault("status", status=502)]
        assert ask(server)[1]["Content-Type"] == "text/html"
        server.plan = [Fault("quota")]
        assert json.loads(ask(server)[2])["error"]["code"] == "insufficient_quota"
        server.plan = [Fault("redirect", location="http://localhost:9/x")]
        status, headers, body = ask(server)
        assert (status, headers["Location"]) == (302, "http://localhost:9/x")
        assert server.seen == {}


@pytest.mark.parametrize("kind", sorted(EDITS))
def test_odd_completions_are_json_with_a_right_length(kind: str) -> None:
    with FaultyServer([Fault(kind)]) as server:
        found = json.loads(ask(server)[2])
        assert server.counts["fault:" + kind] == 1
        server.plan = []
        assert json.loads(ask(server)[2]) != found
        assert server.seen == {prompt_hash(chat("hello")): 2}


def test_broken_bytes() -> None:
    with FaultyServer() as server:
        for kind in ("truncated-json", "garbage-utf8", "wrong-type"):
            server.plan = [Fault(kind)]
            status, headers, body = ask(server)
            assert status == 200
            assert int(headers["Content-Length"]) == len(body)
            with pytest.raises(ValueError):
                json.loads(body)
        for kind in ("huge", "huge-chunked", "gzip-bomb"):
            server.plan = [Fault(kind, size=200_000)]
            body = ask(server)[2]
            if kind == "gzip-bomb":
                assert len(body) < 1000
                body = gzip.decompress(body)
            assert len(body) > 200_000
        assert sum(server.record.spoiled.values()) == server.counts["answered"] == 6


@pytest.mark.parametrize(
    ("kind", "error", "paid"),
    [
        ("reset", ConnectionResetError, 0),
        ("close", http.client.RemoteDisconnected, 0),
        ("never", TimeoutError, 0),
        ("slow", TimeoutError, 1),
        ("reset-mid-body", (ConnectionResetError, http.client.IncompleteRead), 1),
        ("close-mid-body", http.client.IncompleteRead, 1),
    ],
)
def test_replies_that_do_not_get_through(
    kind: str, error: type[Exception], paid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "PATIENCE", 0.5)
    with FaultyServer([Fault(kind, seconds=3, times=1)]) as server:
        with pytest.raises(error):
            ask(server)
        assert sum(server.seen.values()) == paid
        assert ask(server)[0] == 200


def test_a_late_answer_is_paid_though_nobody_waits() -> None:
    with FaultyServer([Fault("late", seconds=0.2)]) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        connection.request("POST", "/v1/chat/completions", json.dumps(chat("x")))
        time.sleep(0.05)
        connection.close()
        until = time.monotonic() + 5
        while not server.seen and time.monotonic() < until:
            time.sleep(0.02)
        assert server.counts["gone"] == server.counts["answered"] == 1


def test_all_kinds_are_tested_here() -> None:
    named = Path(__file__).read_text(encoding="utf-8")
    assert {kind for kind in KINDS - EDITS.keys() if f'"{kind}"' not in named} == set()


def test_bucket_and_early_requests() -> None:
    bucket = Bucket(rate=2, burst=2)
    assert [bucket.take(10.0), bucket.take(10.0), bucket.take(10.0)] == [0, 0, 0.5]
    assert [bucket.take(10.5), bucket.take(10.5)] == [0, 0.5]
    record = Record(grace=0.1)
    record.told_to_wait("a", 1.0, "2")
    record.told_to_wait("b", 1.0, "Wed, 21 Oct 2015 07:28:00 GMT")
    for key, now in (("c", 1.05), ("c", 1.2), ("a", 2.9), ("a", 3.0)):
        record.arrives(key, now)
    assert (record.counts["early"], record.counts["early_same"]) == (2, 1)


def test_over_the_rate_there_is_a_429() -> None:
    with FaultyServer(rate=0.5, burst=1) as server:
        assert ask(server)[0] == 200
        status, headers, _ = ask(server)
        assert (status, headers["Retry-After"]) == (429, "2")
        assert ask(server)[0] == 429
        assert (server.counts["granted"], server.counts["429"], server.counts["early_same"]) == (1, 2, 1)


def lines(server: FaultyServer, name: str | None) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    if name is not None:
        for line in call(server.port, "GET", f"/v1/files/{name}/content")[2].splitlines():
            row = json.loads(line)
            found.setdefault(row["custom_id"], []).append(row)
    return found


def batch(server: FaultyServer, rows: int) -> dict[str, Any]:
    url = "/v1/chat/completions"
    wanted = [{"custom_id": f"r{i}", "method": "POST", "url": url, "body": chat(str(i))} for i in range(rows)]
    content = "\n".join(map(json.dumps, wanted))
    form = (
        '--XX\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        '--XX\r\nContent-Disposition: form-data; name="file"; filename="in.jsonl"\r\n'
        f"Content-Type: application/jsonl\r\n\r\n{content}\r\n--XX--\r\n"
    )
    kind = {"Content-Type": "multipart/form-data; boundary=XX"}
    file = json.loads(call(server.port, "POST", "/v1/files", form.encode(), **kind)[2])["id"]
    new = {"input_file_id": file, "endpoint": url, "completion_window": "24h", "metadata": {"run": "x"}}
    made: dict[str, Any] = json.loads(call(server.port, "POST", "/v1/batches", new)[2])
    return made


def poll(server: FaultyServer, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(call(server.port, "GET", f"/v1/batches/{name}")[2])
    return found


def test_a_batch_with_holes_and_doubles() -> None:
    with FaultyServer(batches=BatchPlan(polls=2, missing=1, duplicated=1, errors=1)) as server:
        made = batch(server, 8)
        assert made["metadata"] == {"run": "x"}
        assert poll(server, made["id"])["status"] == "in_progress"
        assert server.seen == {}
        over = poll(server, made["id"])
        assert over["status"] == "completed"
        out, failed = lines(server, over["output_file_id"]), lines(server, over["error_file_id"])
        assert (len(out), sum(map(len, out.values())), len(failed)) == (6, 7, 1)
        for name, row in ((name, rows[0]) for name, rows in out.items() if len(rows) == 1):
            said = row["response"]["body"]["choices"][0]["message"]["content"]
            assert said == echo()(name[1:], None)
        assert list(out) != sorted(out)
        assert set(server.seen.values()) == {1}
        assert len(server.seen) == 7
        listed = json.loads(call(server.port, "GET", "/v1/batches?limit=5")[2])
        assert [item["id"] for item in listed["data"]] == [made["id"]]


def test_batches_that_end_badly() -> None:
    with FaultyServer(batches=BatchPlan(polls=1, end="expired", done_share=0.5)) as server:
        over = poll(server, batch(server, 4)["id"])
        assert over["status"] == "expired"
        failed = lines(server, over["error_file_id"])
        assert {rows[0]["error"]["code"] for rows in failed.values()} == {"batch_expired"}
        assert len(failed) == len(lines(server, over["output_file_id"])) == len(server.seen) == 2
    with FaultyServer([Fault("reset", path="/batches", most=1)], batches=BatchPlan(end="failed")) as server:
        with pytest.raises(ConnectionResetError):
            batch(server, 2)
        name = json.loads(call(server.port, "GET", "/v1/batches")[2])["data"][0]["id"]
        poll(server, name)
        assert (poll(server, name)["status"], poll(server, name)["output_file_id"]) == ("failed", None)
        other = batch(server, 2)["id"]
        assert (
            json.loads(call(server.port, "POST", f"/v1/batches/{other}/cancel")[2])["status"] == "cancelling"
        )
        assert poll(server, other)["status"] == "cancelled"


def test_it_comes_back_on_the_same_port_and_keeps_its_counts() -> None:
    with FaultyServer() as server:
        ask(server)
        server.stop()
        with pytest.raises(ConnectionRefusedError):
            ask(server)
        server.start()
        assert ask(server)[0] == 200
        assert server.counts["answered"] == 2


def test_as_a_process(tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps([{"kind": "status", "status": 503, "match": "bad"}]))
    given = [sys.executable, str(HERE / "faulty_server.py"), "--plan", str(plan)]
    with subprocess.Popen([*given, "--answer-bytes", "500"], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = json.loads(process.stdout.readline())["port"]
            assert call(port, "POST", "/v1/chat/completions", chat("bad"))[0] == 503
            assert len(words(call(port, "POST", "/v1/chat/completions", chat("good")))) >= 500
            stats = json.loads(call(port, "GET", "/stats")[2])
            assert stats["seen"] == {prompt_hash(chat("good")): 1}
            assert stats["counts"]["503"] == 1
            call(port, "POST", "/reset")
            assert json.loads(call(port, "GET", "/stats?seen=0")[2])["prompts"] == 0
        finally:
            process.kill()
