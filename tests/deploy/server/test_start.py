"""A server starts with a key and sound limits, or says in one line why not."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import stepdistill
from stepdistill.deploy.answer import Answer
from stepdistill.deploy.route import Router
from stepdistill.deploy.server.keys import find_key, names_loopback
from stepdistill.deploy.server.limits import ServeConfig, serve_config
from stepdistill.deploy.server.listener import listening
from stepdistill.deploy.server.page import response
from stepdistill.deploy.server.run import ServeOptions, serve
from stepdistill.deploy.server.service import Service
from stepdistill.errors import ConfigError, StepdistillError
from stepdistill.records import Example

LONG_ENOUGH = "0123456789abcdef"


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STEPDISTILL_API_KEY", raising=False)


def test_without_a_key_it_does_not_start(light: Path) -> None:
    environment = {**os.environ, "STEPDISTILL_API_KEY": " "}
    command = [sys.executable, "-m", "stepdistill", "serve", str(light)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: the environment variable STEPDISTILL_API_KEY is not set")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("key", ["short", "0123456789 abcdef", "0123456789\u00e4bcdef", "0123456789\nabcdef"])
def test_a_poor_key_is_refused_and_not_said(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("STEPDISTILL_API_KEY", key)
    with pytest.raises(ConfigError, match="at least 16 printable") as caught:
        find_key("127.0.0.1", without=False)
    assert key not in str(caught.value)


def test_a_key_shows_itself_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPDISTILL_API_KEY", LONG_ENOUGH)
    key = find_key("0.0.0.0", without=False)
    assert key
    assert key.opens([(b"x-api-key", LONG_ENOUGH.encode())])
    assert LONG_ENOUGH not in repr(key)
    assert not hasattr(key, "__dict__")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "example.org", ""])
def test_without_a_key_others_are_not_served(host: str) -> None:
    with pytest.raises(ConfigError, match="--no-key serves this machine alone"):
        find_key(host, without=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.8.8.8"])
def test_without_a_key_this_machine_is_served(host: str) -> None:
    assert find_key(host, without=True) is None


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        (b"localhost", True),
        (b"LOCALHOST:8000", True),
        (b"127.0.0.1:8000", True),
        (b"[::1]:8000", True),
        (b"[::1]", True),
        (b"evil.example:8000", False),
        (b"localhost.evil.example", False),
        (b"127.0.0.1.evil.example:80", False),
        (b"", False),
        (b"[::1", False),
    ],
)
def test_a_name_that_was_pointed_at_this_machine_is_not_its_own(host: bytes, ours: bool) -> None:
    assert names_loopback(host) is ours


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("maxbatch=3", "did you mean 'max_batch'?"),
        ("max_batch=0", "max_batch"),
        ("max_batch=many", "max_batch"),
        ("max_wait_ms=-1", "max_wait_ms"),
        ("max_queue=100", r"max_texts \(256\) is more than max_queue \(100\)"),
        ("max_batch", "write it as"),
    ],
)
def test_limits_are_checked(given: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        serve_config([given])
    assert "\n" not in str(caught.value)


def test_limits_are_set() -> None:
    assert serve_config(["max_batch=3", "max_wait_ms=5"]) == ServeConfig(max_batch=3, max_wait_ms=5)


def test_a_connections_answers_are_sent_at_once() -> None:
    with listening("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_an_address_that_cannot_be_had_is_named() -> None:
    with listening("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"--host 127.0.0.1 --port {port}: .* in use"):
            listening("127.0.0.1", port)
    with pytest.raises(ConfigError, match=r"--host 192.0.2.1 --port 0: "):
        listening("192.0.2.1", 0)


def test_what_cannot_be_served_is_told_before_it_is_served(light: Path, tmp_path: Path) -> None:
    with pytest.raises(StepdistillError, match="no trained student"):
        serve(tmp_path, ServeOptions(without_key=True))
    with pytest.raises(ConfigError, match="give --threshold"):
        serve(light, ServeOptions(without_key=True, route=True))
    with pytest.raises(ConfigError, match="names no teacher"):
        serve(light, ServeOptions(without_key=True, route=True, threshold=0.5))


class Teacher(Router):
    """A teacher who knows what the student does not."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def ask(self, examples: Sequence[Example]) -> list[Answer]:
        self.asked += [example.text for example in examples]
        return [Answer(e.id, "known", "known", rationale="because", by="teacher") for e in examples]

    def close(self) -> None:
        self.asked.append("closed")


def routed(light: Path, limits: ServeConfig) -> tuple[list[Answer], Teacher]:
    async def work() -> list[Answer]:
        running = asyncio.create_task(service.run())
        try:
            texts = ["Where is the cow?", "Where is the fish?"]
            return await service.ask([Example(text, text) for text in texts], explain=False)
        finally:
            running.cancel()
            service.close()

    teacher = Teacher()
    service = Service(stepdistill.load(light, threshold=1.0), limits, teacher)
    return asyncio.run(work()), teacher


def test_what_the_student_leaves_the_teacher_answers(light: Path) -> None:
    answers, teacher = routed(light, ServeConfig())
    assert [(a.label, a.by, a.guess) for a in answers] == [
        ("known", "teacher", "field"),
        ("known", "teacher", "sea"),
    ]
    assert teacher.asked == ["Where is the cow?", "Where is the fish?", "closed"]


def test_where_too_many_wait_for_the_teacher_the_student_abstains(light: Path) -> None:
    answers, teacher = routed(light, ServeConfig(max_routed=1))
    assert [(a.label, a.abstained, a.by) for a in answers] == [(None, True, "student")] * 2
    assert all("below the threshold" in str(a.reason) and "too many texts" in str(a.reason) for a in answers)
    assert teacher.asked == ["closed"]


@pytest.mark.parametrize("name", ["index.html", "docs.html"])
def test_a_page_is_whole_and_may_run_nothing_but_its_own(name: str) -> None:
    page = response(name)
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    text = bytes(page.body).decode()
    assert "://" not in text
    assert "innerHTML" not in text
