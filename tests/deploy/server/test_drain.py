"""A server that is told to stop under load answers all that it has accepted."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

TEXTS = {"Where is the cow?": "field", "Where is the fish?": "sea"}


@dataclass
class Clients:
    """Clients that ask until they are refused; what was sent whole and not answered is counted as lost."""

    port: int
    key: str
    keep: bool
    answered: int = 0
    refused: int = 0
    wrong: int = 0
    lost: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def work(self) -> None:
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {"Content-Type": "application/json", "X-API-Key": self.key}
        while True:
            for text, label in TEXTS.items():
                if not self.keep or client.sock is None:
                    client.close()
                    try:
                        client.connect()
                    except OSError:
                        return  # nobody listens any more: this request was never accepted
                body = json.dumps({"texts": [text, text], "explain": True})
                try:
                    client.request("POST", "/v1/predict", body, headers)
                    answer = client.getresponse()
                    found = json.loads(answer.read())
                except (OSError, http.client.HTTPException) as error:
                    with self.lock:
                        self.lost.append(repr(error))
                    return
                with self.lock:
                    if answer.status == 200:
                        self.answered += 1
                        self.wrong += [one["label"] for one in found["answers"]] != [label] * 2
                    else:
                        self.refused += 1


@pytest.mark.slow
@pytest.mark.parametrize("keep", [False, True], ids=["a connection each", "connections kept"])
def test_no_accepted_request_is_dropped_at_the_end(light: Path, starts: Any, key: str, keep: bool) -> None:
    with starts(light) as served:
        clients = Clients(served.port, key, keep)
        threads = [threading.Thread(target=clients.work) for _ in range(16)]
        for thread in threads:
            thread.start()
        time.sleep(1)
        assert served.stop() == 0
        for thread in threads:
            thread.join(60)
        assert clients.answered > 16
        assert (clients.lost, clients.wrong, clients.refused) == ([], 0, 0)
        assert served.log.read_text() == ""


def test_a_request_in_work_is_answered_and_the_load_balancer_told(light: Path, starts: Any, key: str) -> None:
    with starts(light) as served:
        head = (
            f"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nX-API-Key: {key}\r\n"
        )
        with (
            socket.create_connection(("127.0.0.1", served.port), 60) as slow,
            socket.create_connection(("127.0.0.1", served.port), 60) as probe,
        ):
            slow.sendall(f"{head}Content-Length: 29\r\n\r\n".encode())
            time.sleep(0.2)
            served.process.send_signal(signal.SIGTERM)
            time.sleep(0.1)
            probe.sendall(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
            told = b"".join(iter(lambda: probe.recv(4096), b""))
            assert told.startswith(b"HTTP/1.1 503 ")
            assert b"connection: close" in told
            assert b"the server is stopping" in told
            slow.sendall(b'{"text": "Where is the cow?"}')
            answer = b"".join(iter(lambda: slow.recv(4096), b""))
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b'"label":"field"' in answer
        assert served.process.wait(60) == 0


def test_what_does_not_end_is_cut_off(light: Path, starts: Any, key: str) -> None:
    with starts(light, "--set=drain_seconds=1", "--set=body_seconds=600") as served:
        head = (
            f"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nX-API-Key: {key}\r\n"
        )
        with socket.create_connection(("127.0.0.1", served.port), 60) as slow:
            slow.sendall(f"{head}Content-Length: 29\r\n\r\n".encode())
            time.sleep(0.2)
            assert served.stop() == 143
            answer = b"".join(iter(lambda: slow.recv(4096), b""))
        assert answer.startswith(b"HTTP/1.1 503 ")


def test_it_can_be_stopped_by_the_keyboard_and_while_it_loads(light: Path, starts: Any) -> None:
    with starts(light, ready=False) as served:
        served.process.send_signal(signal.SIGINT)
        assert served.process.wait(60) == 0
