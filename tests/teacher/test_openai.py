"""An endpoint that fails in every way: nothing is swapped, invented or asked for ever."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from asking import prompt
from endpoint import SAMPLING, assert_all_answered, at, count, failures, hash_of, rows, run, said, words
from faulty_server import Fault, FaultyServer
from hypothesis import given
from hypothesis import strategies as st

from stepdistill.config import TeacherConfig
from stepdistill.errors import ConfigError, StepdistillError, TeacherError
from stepdistill.teacher.openai import Body, OpenAIEndpoint, address
from stepdistill.teacher.protocol import Message, Prompt, Reply, Sampling, Tally
from stepdistill.teacher.refusal import RefusalError
from stepdistill.teacher.reply import read_reply

ASKED = words(60)
TRANSIENT = [
    Fault("status", status=500),
    Fault("status", status=502),
    Fault("status", status=503, retry_after="0.02"),
    Fault("status", status=529),
    Fault("status", status=408),
    Fault("status", status=429, retry_after="0.02"),
    Fault("reset"),
    Fault("close"),
    Fault("reset-mid-body"),
    Fault("close-mid-body"),
    Fault("truncated-json"),
    Fault("wrong-type"),
    Fault("empty-choices"),
    Fault("no-choices"),
    Fault("odd-content"),
    Fault("garbage-utf8"),
    Fault("huge", size=9 << 20),
    Fault("huge-chunked", size=9 << 20),
    Fault("gzip-bomb", size=20 << 20),
]
MALFORMED = [fault for fault in TRANSIENT if fault.kind not in ("status", "reset", "close")]


def tenth(fault: Fault) -> Fault:
    return Fault(**{**vars(fault), "share": 0.1, "times": 2})


def name(fault: Fault) -> str:
    return f"{fault.kind}-{fault.status}" if fault.kind == "status" else fault.kind


@pytest.mark.parametrize("fault", TRANSIENT, ids=name)
def test_what_fails_now_and_then_is_asked_again_until_all_is_answered(fault: Fault, tmp_path: Path) -> None:
    with FaultyServer([tenth(fault)]) as server:
        tally = run(tmp_path, at(server.url), ASKED)
        assert server.counts[f"fault:{fault.kind}"] > 0
        assert_all_answered(tmp_path, at(server.url), ASKED, server)
        assert (tally.answered, tally.failed) == (len(ASKED), {})
        whole = {key: n - server.record.spoiled.get(key, 0) for key, n in server.seen.items()}
        assert whole == {hash_of(word): 1 for word in ASKED}  # no whole answer was paid for twice


def test_all_faults_together_change_no_answer(tmp_path: Path) -> None:
    plan = [Fault(**{**vars(fault), "share": 0.02, "times": 2}) for fault in TRANSIENT]
    with FaultyServer(plan) as server:
        run(tmp_path, at(server.url), words(200))
        assert sum(n for key, n in server.counts.items() if key.startswith("fault:")) > 40
        assert_all_answered(tmp_path, at(server.url), words(200), server)


@pytest.mark.parametrize("fault", MALFORMED, ids=name)
def test_what_may_have_been_paid_is_asked_three_times_and_then_a_failure(
    fault: Fault, tmp_path: Path
) -> None:
    bad = Fault(**{**vars(fault), "match": "question 1."})
    asked = ["question 0.", "question 1.", "question 2."]
    with FaultyServer([bad]) as server:
        tally = run(tmp_path, at(server.url), asked)
        assert server.counts[f"fault:{fault.kind}"] == 3
        assert sorted(rows(tmp_path, at(server.url), asked)) == ["question 0.", "question 2."]
    assert sum(tally.failed.values()) == 1
    assert set(tally.failed) <= {"malformed reply", "connection lost"}
    assert [example for example, _, _ in failures(tmp_path)] == ["id-question 1."] * 3


@pytest.mark.parametrize(
    ("kind", "text", "finish"),
    [
        ("null-content", lambda said: "", "stop"),
        ("content-filter", lambda said: "", "content_filter"),
        ("length", lambda said: said[: len(said) // 2], "length"),
        ("surrogate", lambda said: "\ud800 " + said, "stop"),
        ("nul", lambda said: "\0" + said, "stop"),
        ("text", lambda said: Fault("text").text, "stop"),
        ("no-usage", lambda said: said, "stop"),
    ],
)
def test_odd_answers_are_kept_verbatim_with_the_word_they_ended_on(
    kind: str, text: Any, finish: str, tmp_path: Path
) -> None:
    with FaultyServer([Fault(kind)]) as server:
        run(tmp_path, at(server.url), ASKED[:5])
        found = rows(tmp_path, at(server.url), ASKED[:5])
    assert found == {word: (text(said(word)), finish) for word in ASKED[:5]}


@pytest.mark.parametrize(
    ("fault", "words_of_it"),
    [
        (Fault("status", status=401), "refuses the key"),
        (Fault("status", status=402), "paid first"),
        (Fault("status", status=403), "forbids"),
        (Fault("status", status=404), "no such model"),
        (Fault("quota"), "quota is used up"),
        (Fault("redirect"), "redirects"),
        (Fault("status", status=429, retry_after="1000000000"), "limits.max_wait_seconds 600"),
        (Fault("status", status=503, retry_after="601"), "limits.max_wait_seconds 600"),
    ],
)
def test_what_no_other_request_would_mend_stops_the_run(
    fault: Fault, words_of_it: str, tmp_path: Path
) -> None:
    with FaultyServer([fault]) as server, pytest.raises(TeacherError) as error:
        run(tmp_path, at(server.url), ASKED)
    assert words_of_it in str(error.value)
    assert "run the same command to go on" in str(error.value)
    assert "\n" not in str(error.value)
    assert 1 <= server.counts["requests"] <= 8
    assert server.record.strays == []


def test_a_permanent_refusal_in_the_middle_keeps_what_was_answered(tmp_path: Path) -> None:
    with FaultyServer([Fault("status", status=401, after=20)]) as server:
        with pytest.raises(TeacherError, match=r"; 20 answers of this run are stored"):
            run(tmp_path, at(server.url), ASKED)
        assert len(rows(tmp_path, at(server.url), ASKED)) == server.counts["answered"] == 20
        server.plan = []
        run(tmp_path, at(server.url), ASKED)
        assert_all_answered(tmp_path, at(server.url), ASKED, server)
        assert set(server.seen.values()) == {1}


def test_a_prompt_that_is_refused_does_not_stop_the_others(tmp_path: Path) -> None:
    with FaultyServer([Fault("status", status=400, match="question 7")]) as server:
        tally = run(tmp_path, at(server.url), words(10))
        assert server.counts["fault:status"] == 1
    assert (tally.answered, tally.failed) == (9, {"refused by the server": 1})


def test_a_certificate_of_nobody_stops_the_run(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        greeted: list[int] = []

        def greet() -> None:
            while True:
                try:
                    taken, _ = listening.accept()
                except OSError:
                    return
                greeted.append(1)
                try:
                    context.wrap_socket(taken, server_side=True).close()
                except OSError:
                    taken.close()

        threading.Thread(target=greet, daemon=True).start()
        url = f"https://127.0.0.1:{listening.getsockname()[1]}/v1"
        with pytest.raises(TeacherError, match=r"certificate is not trusted: self.signed certificate"):
            run(tmp_path, at(url), ASKED)
        assert 1 <= len(greeted) <= 8
        listening.shutdown(socket.SHUT_RDWR)


def test_a_host_that_does_not_exist_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    async def unknown(self: object, host: object, *_: object, **__: object) -> list[object]:
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", unknown)
    with pytest.raises(
        TeacherError, match=r"no connection: https://teacher.invalid/v1/chat/completions: Name or service"
    ):
        run(tmp_path, at("https://teacher.invalid/v1"), ASKED)
    assert set(asked) == {"teacher.invalid"}
    assert len(asked) <= 8


def test_the_proxy_of_the_environment_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultyServer() as server, FaultyServer() as proxy:
        for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(variable, proxy.url.removesuffix("/v1"))
        for variable in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(variable, raising=False)
        run(tmp_path, at(server.url), ASKED[:5])
        assert_all_answered(tmp_path, at(server.url), ASKED[:5], server)
        assert (proxy.counts["requests"], proxy.record.strays) == (0, [])


def test_a_redirect_is_not_followed(tmp_path: Path) -> None:
    with FaultyServer() as other:
        away = Fault("redirect", status=307, location=f"{other.url}/chat/completions")
        with FaultyServer([away]) as server, pytest.raises(TeacherError, match="redirects"):
            run(tmp_path, at(server.url), ASKED)
        assert (other.counts["requests"], other.record.strays) == (0, [])


def test_answers_that_come_late_slowly_or_never_end_the_run_all_the_same(tmp_path: Path) -> None:
    plan = [Fault(kind, share=0.05, times=1, seconds=0.8) for kind in ("never", "late", "slow")]
    with FaultyServer(plan) as server:
        config = at(server.url, {"concurrency": 16, "timeout_seconds": 0.4})
        tally = run(tmp_path, config, words(100))
        assert all(server.counts[f"fault:{kind}"] for kind in ("never", "late", "slow"))
        assert_all_answered(tmp_path, config, words(100), server)
    again = sum(server.counts[f"fault:{kind}"] for kind in ("never", "late", "slow"))
    assert {reason for _, reason, _ in failures(tmp_path)} == {"no reply in time"}
    assert tally.attempts == 100 + again == 100 + count(tmp_path, "failures")


@pytest.mark.parametrize(
    ("url", "said_of_it"), [("http://127.0.0.1:99999/v1", "99999"), ("http://127.0.0.1:x/v1", "'x'")]
)
def test_an_address_that_cannot_be_one_is_refused_before_anything_is_asked(url: str, said_of_it: str) -> None:
    with pytest.raises(ConfigError, match=r"teacher\.base_url") as error:
        OpenAIEndpoint(at(url), SAMPLING)
    assert said_of_it in str(error.value)


def test_an_address_keeps_its_query_and_loses_its_fragment() -> None:
    assert address("http://h/a/?v=1#x", "/b") == "http://h/a/b?v=1"


BODIES = [("chat", "chat"), ("chat", "text"), ("completions", "text")]


@pytest.mark.parametrize(("api", "style"), BODIES)
@given(heads=st.lists(st.text(), max_size=3), tails=st.lists(st.text(), min_size=1, max_size=3))
def test_a_body_is_json_and_says_exactly_the_prompt(
    api: str, style: str, heads: list[str], tails: list[str]
) -> None:
    config = at("http://h/v1", api=api, style=style, extra={"seed": 1})
    body = Body(config, Sampling(temperature=0.5, max_tokens=7, stop=("\n\n",)))
    one = Prompt(
        tuple(Message("user", text) for text in heads), tuple(Message("user", text) for text in tails)
    )
    for _ in range(2):  # the second time the head comes from memory
        sent = json.loads(body.of(one))
        if style == "chat":
            assert sent.pop("messages") == [{"role": m.role, "content": m.content} for m in one.messages]
        elif api == "chat":
            assert sent.pop("messages") == [{"role": "user", "content": one.text}]
        else:
            assert sent.pop("prompt") == one.text
        asked = {"model": "m", "temperature": 0.5, "top_p": 1.0, "max_tokens": 7, "stop": ["\n\n"], "seed": 1}
        assert sent == asked


def test_a_default_is_told_to_all_but_openai_whose_newer_models_refuse_to_be_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = prompt("x")
    other = json.loads(Body(at("http://h/v1"), Sampling(temperature=1.0)).of(one))
    assert (other["temperature"], other["top_p"]) == (1.0, 1.0)
    own = json.loads(Body(at("https://api.openai.com/v1"), Sampling(temperature=1.0)).of(one))
    assert {"temperature", "top_p"}.isdisjoint(own)


def test_thoughts_that_stand_in_the_sum_alone_are_counted() -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 813}
    raw = json.dumps({"choices": [{"message": {"content": "x"}}], "usage": usage}).encode()
    assert read_reply(raw, at("http://h/v1"), 0.0).completion_tokens == 803


def test_an_address_that_nobody_has_ever_answered_at_is_soon_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("stepdistill.teacher.openai.STARTING", 0.0)
    endpoint = OpenAIEndpoint(at("http://127.0.0.1:9/v1"), SAMPLING)

    async def asked() -> list[bool]:
        await endpoint.open()
        fatal = []
        for _ in range(2):
            with pytest.raises(RefusalError, match=r"127\.0\.0\.1:9") as refused:
                await endpoint.ask(prompt("x"))
            fatal.append(refused.value.fatal)
        await endpoint.close()
        return fatal

    assert asyncio.run(asked()) == [False, True]


def test_a_lone_surrogate_and_a_nul_in_a_prompt_are_sent_as_json_has_them() -> None:
    sent = Body(at("http://h/v1"), SAMPLING).of(prompt("\ud800 \0 é"))
    assert json.loads(sent)["messages"][-1]["content"] == "\ud800 \0 é"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "message", "content", "text", "finish_reason", "usage", "prompt_tokens"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.binary(max_size=60) | VALUES.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_an_answer_or_a_refusal_and_nothing_else(raw: bytes) -> None:
    found = read(raw)
    if isinstance(found, RefusalError):
        assert (found.reason, found.maybe_paid) == ("malformed reply", True)
    else:
        content = json.loads(raw)["choices"][0]["message"].get("content")
        assert isinstance(content, list) or found.text == (content or "")


def read(raw: bytes) -> Reply | RefusalError:
    try:
        return read_reply(raw, at("http://h/v1"), 0.0)
    except RefusalError as error:
        return error


def reply(choice: dict[str, Any], config: TeacherConfig | None = None) -> Reply:
    return read_reply(json.dumps({"choices": [choice]}).encode(), config or at("http://h/v1"), 0.0)


def test_an_answer_in_parts_is_joined_and_parts_without_words_are_no_answer() -> None:
    parts = [{"type": "thinking"}, {"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert reply({"message": {"content": parts}}).text == "ab"
    for odd in ([], [{"type": "image"}], [{"text": {"a": 1}}], ["a"]):
        with pytest.raises(RefusalError):
            reply({"message": {"content": odd}})


def test_a_withheld_answer_may_lack_its_text_and_another_may_not() -> None:
    assert reply({"message": {}, "finish_reason": "content_filter"}).finish == "content_filter"
    assert reply({"message": {"content": "a"}}).finish == "unknown"
    with pytest.raises(RefusalError):
        reply({"message": {}, "finish_reason": "stop"})


def test_counts_that_cannot_be_are_unknown() -> None:
    raw = b'{"choices": [{"text": "a"}], "usage": {"prompt_tokens": -1, "completion_tokens": true}}'
    found = read_reply(raw, at("http://h/v1", api="completions", style="text"), 0.0)
    assert (found.prompt_tokens, found.completion_tokens, found.cached_tokens) == (None, None, None)


def test_what_the_transport_raises_does_not_leave_with_the_refusal() -> None:
    async def ask() -> BaseException:
        endpoint = OpenAIEndpoint(at("http://127.0.0.1:9/v1"), SAMPLING)
        await endpoint.open()
        try:
            await endpoint.ask(prompt("a"))
        except RefusalError as error:
            return error
        finally:
            await endpoint.close()
        raise AssertionError("answered")

    error = asyncio.run(ask())
    assert (error.__context__, error.__cause__) == (None, None)
    assert not isinstance(error, StepdistillError)
    assert Tally().attempts == 0
