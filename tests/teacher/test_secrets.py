"""The key goes into one header of requests to the host that it is for, and nowhere else."""

from __future__ import annotations

import asyncio
import copy
import os
import pickle
import subprocess
import sys
import time
import traceback
from pathlib import Path

import pytest
from asking import prompt
from endpoint import SAMPLING, at, run, words
from faulty_server import Fault, FaultyServer
from test_openai import TRANSIENT

from stepdistill.errors import ConfigError, StepdistillError, TeacherError
from stepdistill.teacher.openai import OpenAIEndpoint
from stepdistill.teacher.refusal import RefusalError
from stepdistill.teacher.secret import Secret, find_key

CANARY = "sk-canary-0123456789abcdefghijklmnop"
TELLS = '{"error": {"message": "%s Incorrect API key provided: %s", "code": "invalid_api_key"}}'
RUN = """
task: claims
data: {{limit: {{train: 6, validation: 2, test: 2}}}}
teacher:
  backend: openai
  model: fake
  base_url: "{url}"
  prompt: zero-shot
  key_variable: CANARY
  price: {{input: 1, output: 2}}
  limits: {{concurrency: 4, give_up_after: 2, retries: 0}}
student: {{model: "scratch:"}}
out: {out}
"""


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY", CANARY)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def files_with(folder: Path, what: str) -> list[str]:
    found = [path for path in folder.rglob("*") if path.is_file() and what.encode() in path.read_bytes()]
    return [str(path.relative_to(folder)) for path in found]


def echoing(before: int = 0) -> list[Fault]:
    body = TELLS % ("x" * before, CANARY)
    return [
        *(Fault("status", status=status, body=body) for status in (400, 401, 404, 429, 500)),
        Fault("status", status=200, body=body),
        Fault("status", status=200, body=f'{{"error": "{CANARY}"}}'),
        Fault("status", status=500, body=f'"{CANARY}"'),
        Fault("status", status=403, body=f"<html>{CANARY}</html>"),
        Fault("text", text=f"Because {CANARY}. So the answer is yes."),
    ]


@pytest.mark.parametrize("before", [0, 180])
@pytest.mark.parametrize("number", range(len(echoing())))
def test_a_server_that_says_the_key_back_does_not_spread_it(
    number: int, before: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fault = echoing(before)[number]
    with FaultyServer([fault], key=CANARY) as server:
        config = at(server.url, {"retries": 1, "give_up_after": 2}, key_variable="CANARY")
        shown = ""
        try:
            run(tmp_path, config, words(4), wait=0.001)
        except StepdistillError as error:
            ours = (
                error.__traceback__.tb_next.tb_next
            )  # without the two frames of the tests, which know the key
            shown = "".join(
                traceback.TracebackException(type(error), error, ours, capture_locals=True).format()
            )
        assert server.counts["401"] == 0 or fault.status == 401  # it was the fault and not the key
    (tmp_path / "shown").write_text(shown + caplog.text)
    assert files_with(tmp_path, CANARY) == []
    assert files_with(tmp_path, CANARY[:12]) == []  # nor a part of it, at a cut


def test_no_refusal_shows_the_key_however_it_is_printed() -> None:
    async def refusals(url: str) -> list[BaseException]:
        found: list[BaseException] = []
        config = at(url, {"timeout_seconds": 0.2}, key_variable="CANARY", key_header="api-key")
        for asked in (config, config.model_copy(update={"base_url": "http://127.0.0.1:9/v1"})):
            endpoint = OpenAIEndpoint(asked, SAMPLING)
            await endpoint.open()
            for _ in range(len(TRANSIENT) + 1):
                try:
                    await endpoint.ask(prompt("a"))
                except RefusalError as error:
                    found.append(error)
            await endpoint.close()
        return found

    plan = [Fault(**{**vars(fault), "most": 1}) for fault in [*TRANSIENT, Fault("never")]]
    with FaultyServer(plan) as server:
        found = asyncio.run(refusals(server.url))
    assert len(found) >= len(plan)
    for error in found:
        told = [repr(error), str(error), repr(vars(error)), repr(error.__context__), repr(error.__cause__)]
        told += traceback.format_exception(error)
        assert CANARY not in " ".join(told)


def test_a_secret_does_not_show_itself() -> None:
    secret = Secret(CANARY)
    assert CANARY not in f"{secret} {secret!r} {[secret]} {vars(type(secret))!r}"
    for spread in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            spread(secret)
    assert secret.headers("Authorization") == {"Authorization": f"Bearer {CANARY}"}
    assert secret.headers("api-key") == {"api-key": CANARY}
    assert (Secret("").headers("Authorization"), Secret("").hide("a"), Secret("").is_in("a")) == (
        {},
        "a",
        False,
    )
    assert not Secret("yes").is_in("The answer is yes.")


@pytest.mark.parametrize("bad", ["sk-a\nX-Evil: 1", "sk-a\rb", "schlüssel", "sk\0", "a\x7f"])
def test_a_key_that_no_header_takes_is_refused_without_being_shown(
    bad: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The system takes no NUL into the environment, and surrogates stand for bytes that are no UTF-8.
    monkeypatch.setattr(os, "environ", {"CANARY": bad})
    with pytest.raises(ConfigError, match="CANARY holds characters") as error:
        find_key(at("http://127.0.0.1:1/v1", key_variable="CANARY"))
    assert bad not in str(error.value)


def test_space_around_a_key_is_no_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY", f" {CANARY}\n")
    assert find_key(at("http://h/v1", key_variable="CANARY")).hide(CANARY) == "***"


@pytest.mark.parametrize(
    ("url", "gets_it"),
    [
        ("https://api.openai.com/v1", True),
        ("https://API.OpenAI.com/v1", True),
        ("https://eu.api.openai.com/v1", True),
        ("https://mine.openai.azure.com/openai/v1", True),
        ("https://openai.com.evil.example/v1", False),
        ("https://notopenai.com/v1", False),
        ("https://evil.example/openai.com", False),
        ("https://evil.example/?host=api.openai.com", False),
        ("https://evil.example/#.openai.com", False),
        ("http://127.0.0.1:8000/v1", False),
    ],
)
def test_the_usual_variable_is_for_openai_only(
    url: str, gets_it: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    assert bool(find_key(at(url)).headers("Authorization")) == gets_it
    assert find_key(at(url, key_variable="OPENAI_API_KEY")).headers("Authorization")
    monkeypatch.delenv("OPENAI_API_KEY")
    if gets_it:
        with pytest.raises(ConfigError, match="OPENAI_API_KEY is not set"):
            find_key(at(url))


def test_another_host_sees_no_key_unless_the_file_names_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    with FaultyServer(log=9) as server:
        run(tmp_path, at(server.url), words(3))
        assert [had_key for *_, had_key in server.requests] == [False] * 3
        run(tmp_path, at(server.url, key_variable="OPENAI_API_KEY"), words(4))
        assert [had_key for *_, had_key in server.requests] == [False] * 3 + [True]


def test_a_wrong_key_is_said_by_the_name_of_its_variable(tmp_path: Path) -> None:
    with FaultyServer(key="another") as server, pytest.raises(TeacherError) as error:
        run(tmp_path, at(server.url, key_variable="CANARY"), words(3))
    assert "refuses the key" in str(error.value)
    assert "the key is from CANARY" in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault", [None, *echoing()[1::2]], ids=lambda f: f"{f.kind}-{f.status}" if f else "none"
)
def test_no_file_no_output_and_no_command_line_holds_the_key(fault: Fault | None, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    with FaultyServer([fault] if fault else [], delay=0.05) as server:
        file.write_text(RUN.format(url=server.url, out=tmp_path / "runs" / "a"))
        command = [sys.executable, "-m", "stepdistill", "annotate", str(file)]
        with (tmp_path / "stdout").open("wb") as out, (tmp_path / "stderr").open("wb") as err:
            process = subprocess.Popen(command, stdout=out, stderr=err)
            while process.poll() is None:
                line = Path(f"/proc/{process.pid}/cmdline").read_bytes()
                assert CANARY.encode() not in line
                time.sleep(0.02)
        assert server.counts["requests"] > 0
    assert "Traceback" not in (tmp_path / "stderr").read_text()
    assert (tmp_path / "runs" / "ledger.sqlite").exists()
    assert files_with(tmp_path, CANARY) == []
