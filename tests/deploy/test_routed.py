"""What a student leaves goes to the teacher of its run or bundle, and only that."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from faulty_server import Fault, FaultyServer
from moods import TASK, mood, router, texts

import stepdistill
from stepdistill.cli.predict import predict
from stepdistill.config import RunConfig, StudentConfig, TeacherConfig
from stepdistill.deploy.answer import Answer
from stepdistill.deploy.bundle import Bundle, Tokens
from stepdistill.deploy.route import routed, router_for
from stepdistill.deploy.teacher import described
from stepdistill.errors import ConfigError, RunFolderError


def test_only_what_the_student_left_is_routed_and_its_own_numbers_stay(tmp_path: Path) -> None:
    shares = {"good": 0.6, "bad": 0.4}
    left = Answer("1", "bad", None, "bad", "confidence 0.60 is below", None, shares, 0.6, abstained=True)
    own = [Answer("0", "good", "good", "good"), left]
    with FaultyServer(answer=mood) as server, router(tmp_path, server) as asked:
        examples = texts("a nice day", "another nice day")
        kept, found = routed(examples, own, asked)
        assert kept is own[0]
        assert (found.label, found.by, found.abstained, found.rationale) == ("good", "teacher", False, None)
        assert (found.guess, found.confidence, found.probabilities) == ("bad", 0.6, shares)
        assert routed(examples, own, asked, explain=True)[1].rationale == "It says so."
        assert sum(server.seen.values()) == 1
        server.plan = [Fault("status", status=400)]
        failed = routed(texts("x", "y"), own, asked)[1]
        assert (failed.label, failed.abstained, failed.by, failed.guess) == (None, True, "student", "bad")
        assert failed.reason == (
            "confidence 0.60 is below; the teacher did not answer: refused by the server"
        )


def run_of(folder: Path, **teacher: Any) -> RunConfig:
    student = StudentConfig(model="scratch:")
    return RunConfig(
        task="claims", teacher=TeacherConfig(**teacher), student=student, out=str(folder), seed=7
    )


def bundle_of(teacher: dict[str, Any] | None) -> Bundle:
    return Bundle(
        format="ctranslate2",
        precision="int8",
        card={},
        tokens=Tokens(eos=1, pad=0),
        teacher=teacher,
        stepdistill="0",
    )


def test_a_bundle_says_who_is_asked_and_its_ledger_lies_beside_it(tmp_path: Path) -> None:
    with FaultyServer(answer=mood) as server:
        config = run_of(tmp_path, backend="openai-batch", model="m", base_url=server.url)
        told = described(config)
        with router_for(tmp_path / "bundle", bundle_of(told), TASK) as asked:
            assert (asked.teacher.backend, asked.teacher.model) == ("openai", "m")
            assert asked.ask(texts("a nice day"))[0].label == "good"
            assert asked.ledger == tmp_path / "bundle.ledger.sqlite"
            assert server.url in str(asked)
    assert described(run_of(tmp_path, backend="simulated")) is None
    with pytest.raises(ConfigError, match="names no teacher"):
        router_for(tmp_path, bundle_of(None), TASK)
    assert told is not None
    told["teacher"]["trust_remote_code"] = True
    with pytest.raises(ConfigError, match="runs code of its own"):
        router_for(tmp_path, bundle_of(told), TASK)


def test_a_run_s_student_is_routed_to_the_run_s_teacher_and_ledger(tmp_path: Path) -> None:
    student = tmp_path / "runs" / "one" / "students" / "distill"
    student.mkdir(parents=True)
    with pytest.raises(RunFolderError, match="in no run folder"):
        router_for(student, None, TASK)
    for backend, more in (("openai", {"model": "m", "base_url": "http://127.0.0.1:9/v1"}), ("simulated", {})):
        config = run_of(tmp_path, backend=backend, **more)
        (tmp_path / "runs/one/config.yaml").write_text(yaml.safe_dump(config.plain(), sort_keys=False))
        if backend == "openai":
            with router_for(student, None, TASK) as asked:
                assert asked.ledger == tmp_path / "runs" / "ledger.sqlite"
        else:
            with pytest.raises(ConfigError, match="'simulated': its answers are there already"):
                router_for(student, None, TASK)


def test_a_loaded_student_hands_on_what_is_below_its_threshold(
    labels: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(labels.folder, folder)
    answers = lambda *_: "It floats. So the answer is attic."  # noqa: E731
    with FaultyServer(answer=answers) as server:
        values = yaml.safe_load((folder / "config.yaml").read_text())
        values["teacher"] = {"backend": "openai", "model": "m", "prompt": "zero-shot", "base_url": server.url}
        (folder / "config.yaml").write_text(yaml.safe_dump(values))
        with pytest.raises(ConfigError, match="never abstains, so nothing is routed; give a threshold"):
            stepdistill.load(folder, route=True)
        student = stepdistill.load(folder, threshold=1.0, route=True)
        (found,) = student.predict(["Where is the fish?"])
        assert (found.label, found.by, found.guess, found.rationale) == ("attic", "teacher", "sea", None)
        assert stepdistill.load(folder, threshold=0.0, route=True).predict(["Where is the fish?"])[0].by == (
            "student"
        )
        predict(folder, "Where is the fish?", threshold=1.0, route=True)
        printed = capsys.readouterr()
        assert printed.out.strip() == "attic"
        assert f"goes to m at {server.url}." in printed.err
        assert sum(server.seen.values()) == 1
    with pytest.raises(ConfigError, match="'recorded': its answers are there already"):
        stepdistill.load(labels.folder, threshold=0.5, route=True)


def test_it_needs_no_training_library(tmp_path: Path) -> None:
    """At import and when it asks."""
    code = """
import sys
from pathlib import Path
heavy = ("torch", "transformers", "scipy", "sklearn", "pyarrow", "matplotlib", "datasets")
sys.modules.update(dict.fromkeys(heavy))  # to import one of them fails
from stepdistill.config import TeacherConfig
from stepdistill.deploy.route import Router
from stepdistill.records import Example
from stepdistill.task.load import load_task
teacher = TeacherConfig(backend="openai", model="m", prompt="zero-shot", base_url=sys.argv[1])
with Router(load_task("claims"), teacher, 0, Path(sys.argv[2])) as router:
    print(router.ask([Example("0", "rain")])[0].by)
"""
    with FaultyServer(answer=mood) as server:
        command = [sys.executable, "-c", code, server.url, str(tmp_path / "ledger.sqlite")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "teacher"
