"""Who connects and asks nothing takes nobody's place for long."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

MOST = 4
ASK = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
UNREAD = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"


@pytest.fixture(scope="module")
def small(light: Path, starts: Any) -> Iterator[Any]:
    """A server of few connections and little patience."""
    with starts(light, f"--set=max_connections={MOST}", "--set=header_seconds=1") as served:
        yield served


def connect(served: Any) -> socket.socket:
    return socket.create_connection(("127.0.0.1", served.port), 60)


def answer(client: socket.socket) -> bytes:
    """One answer to the end of its JSON."""
    found = b""
    while b"}" not in found:
        more = client.recv(4096)
        assert more, found
        found += more
    return found


def rest(client: socket.socket) -> bytes:
    """What comes until the server closes; a reset is an end too."""
    found = b""
    try:
        while more := client.recv(4096):
            found += more
    except ConnectionResetError:
        pass
    return found


@pytest.mark.parametrize("sent", [b"", b"GET /healthz HTTP/1.1\r\nHost:"])
def test_a_connection_without_a_whole_head_is_closed(small: Any, sent: bytes) -> None:
    before = small.counts().get('stepdistill_rejected_total{reason="slow head"}', 0)
    with connect(small) as client:
        client.sendall(sent)
        assert rest(client) == b""
    assert small.counts()['stepdistill_rejected_total{reason="slow head"}'] == before + 1


def test_the_clock_runs_for_each_request_and_drops_of_one_do_not_stop_it(small: Any) -> None:
    with connect(small) as client:
        for _ in range(3):  # longer than the patience with one head, all in all
            client.sendall(ASK)
            assert answer(client).startswith(b"HTTP/1.1 200")
            time.sleep(0.5)
        begun = time.monotonic()
        drip(client)
        assert time.monotonic() - begun < 30


def test_a_body_that_nobody_reads_keeps_no_connection(small: Any) -> None:
    with connect(small) as client:
        client.sendall(UNREAD)
        assert answer(client).startswith(b"HTTP/1.1 401")
        drip(client)


def drip(client: socket.socket) -> None:
    """Send a byte now and then, until the server has enough of it."""
    client.settimeout(0.2)
    for _ in range(150):
        try:
            client.sendall(b"A")
            if not client.recv(100):
                return
        except TimeoutError:
            continue
        except (ConnectionResetError, BrokenPipeError):
            return
    pytest.fail("it was never closed")


def test_beyond_the_limit_new_connections_are_refused_and_old_ones_served(small: Any) -> None:
    with ExitStack() as stack:
        old = [stack.enter_context(connect(small)) for _ in range(MOST)]
        for client in old:
            client.sendall(ASK)
            assert answer(client).startswith(b"HTTP/1.1 200")
        new = stack.enter_context(connect(small))
        new.sendall(ASK)
        head, _, body = rest(new).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1" in head
        assert b"connection: close" in head
        assert "4 connections are open" in json.loads(body)["error"]
        for client in old:
            client.sendall(ASK)
            assert answer(client).startswith(b"HTTP/1.1 200")
    until = time.monotonic() + 60
    while small.request("GET", "/healthz")[0] != 200:
        assert time.monotonic() < until
    assert small.counts()['stepdistill_rejected_total{reason="connections"}'] >= 1


def test_a_flood_of_silent_connections_passes(small: Any) -> None:
    with ExitStack() as stack:
        for _ in range(10 * MOST):
            stack.enter_context(connect(small))
        until = time.monotonic() + 60
        while True:
            try:
                if small.request("GET", "/healthz")[0] == 200:
                    break
            except OSError:
                pass
            assert time.monotonic() < until
