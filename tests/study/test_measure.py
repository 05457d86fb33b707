"""What a run says of its predictions: written beside them, made again where it is gone, test unread."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from stepdistill.config import load_run
from stepdistill.errors import ConfigError, RunFolderError
from stepdistill.evaluate.scorecards import score
from stepdistill.records import unwatched
from stepdistill.study import evaluation
from stepdistill.study.reads import JOURNAL
from stepdistill.study.run import Run

TASK = {
    "name": "teams",
    "instruction": "Choose a team.",
    "input": "{text}",
    "answer": {"kind": "label", "column": "team", "rationale": "why", "labels": ["billing", "technical"]},
    "data": {"files": {"train": "train.jsonl", "test": "test.jsonl"}},
}
ROWS = [
    {
        "text": f"letter {i} about {what}",
        "team": team,
        "why": f"so {team} it is",
        "channel": ["mail", 3][i % 2],
    }
    for i, (what, team) in enumerate([("a bill", "billing"), ("a crash", "technical")] * 4)
]
METHODS = ["finetune", "step-by-step", "rationale-first"]
FILES = ("metrics.jsonl", "test.jsonl", "explanations.jsonl")


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.open()]


def start(home: Path, reopen: bool = False, **changes: Any) -> Run:
    """The run of `home`, its folder taken."""
    (home / "run.yaml").write_text(
        yaml.safe_dump(
            {
                "task": str(home / "task.yaml"),
                "teacher": {"completions": {s: str(home / f"{s}-answers.jsonl") for s in ("train", "test")}},
                "student": {
                    "model": "scratch:",
                    "scratch": {"d_model": 16, "d_ff": 16, "heads": 2, "layers": 1},
                },
                "methods": METHODS,
                "train": {"epochs": 6, "batch_size": 4, "learning_rate": 1e-2, "threads": 1},
                "evaluate": {"slices": ["channel"], "explain": 3},
                "out": str(home / "out"),
            }
            | changes
        )
    )
    run = Run(load_run(home / "run.yaml"), unwatched, reopen=reopen)
    run.open()
    return run


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folder of a finished run, with its data."""
    home = tmp_path_factory.mktemp("measured")
    for split in ("train", "test"):
        (home / f"{split}.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
        answers = [
            {"id": f"{split}-{i}", "rationale": f"It is a case for {row['team']}.", "label": "billing"}
            for i, row in enumerate(ROWS)
        ]
        (home / f"{split}-answers.jsonl").write_text("\n".join(map(json.dumps, answers)))
    (home / "task.yaml").write_text(yaml.safe_dump(TASK))
    with pytest.MonkeyPatch.context() as patched:
        patched.delenv("STEPDISTILL_DATA", raising=False)
        run = start(home)
        run.annotate()
        run.train()
        run.evaluate()
        yield home


@pytest.fixture
def home(world: Path, tmp_path: Path) -> Path:
    """A copy of it; the paths in the run file are those of the copy."""
    shutil.copytree(world, tmp_path / "home")
    return tmp_path / "home"


def no_test(*_: Any) -> Any:
    raise AssertionError("test was read")


def test_every_predictor_has_its_line(world: Path) -> None:
    found = {row["name"]: row for row in rows(world / "out" / "metrics.jsonl")}
    assert list(found) == ["teacher", *METHODS]
    records = {row["name"]: row["scorecard"] for row in rows(world / "out" / "results.jsonl")}
    for name, row in found.items():
        assert (row["n"], row["accuracy"]) == (8, records[name]["value"])
        assert row["unread_share"] == records[name]["unread"] / 8
        assert sum(row["confusion"]["matrix"][i][i] for i in range(2)) == records[name]["outcomes"].count("1")
        assert list(row["slices"]["channel"]) == ["3", "mail"]
        right = sum(one["n"] * one["accuracy"] for one in row["slices"]["channel"].values())
        assert right == pytest.approx(8 * row["accuracy"])
    assert found["teacher"]["per_class"]["billing"] == {
        "precision": 0.5,
        "recall": 1.0,
        "f1": 2 / 3,
        "support": 4,
    }
    assert found["teacher"]["rationale"]["consistent"] == pytest.approx(2 / 3)
    assert found["teacher"]["rationale"]["contradicts"] == pytest.approx(1 / 3)
    assert found["teacher"]["rationale"]["chrf"] > 0
    assert found["finetune"]["rationale"] is None
    assert (found["teacher"]["ece"], found["rationale-first"]["ece"]) == (None, None)


def test_a_students_confidence_is_in_its_predictions_and_its_calibration(world: Path) -> None:
    predictions, metrics = rows(world / "out" / "predictions.jsonl"), rows(world / "out" / "metrics.jsonl")
    for name in METHODS[:2]:
        mine = [row for row in predictions if row["name"] == name]
        assert all(sum(row["probabilities"]) == pytest.approx(1, abs=2e-6) for row in mine)
        (found,) = [row for row in metrics if row["name"] == name]
        read = [row for row in mine if row["label"]]
        assert sum(one["n"] for one in found["reliability"] or []) == len(read)
        assert (found["ece"] is None) is (not read)
    assert {row["probabilities"] for row in predictions if row["name"] in ("teacher", "rationale-first")} == {
        None
    }


def test_the_test_examples_stand_there_with_their_columns(world: Path) -> None:
    found = rows(world / "out" / "test.jsonl")
    assert found[1] == {
        "example_id": "test-1",
        "text": ROWS[1]["text"],
        "gold": "technical",
        "options": [],
        "rationale": "so technical it is",
        "columns": {"channel": 3},
    }
    assert len(found) == 8


def test_rationales_of_the_first_examples_are_the_students_own(world: Path) -> None:
    found = rows(world / "out" / "explanations.jsonl")
    names = ["teacher", "step-by-step", "rationale-first"]
    assert [(row["name"], row["example_id"]) for row in found] == [
        (n, f"test-{i}") for n in names for i in range(3)
    ]
    assert [row["read"] for row in found[:3]] == ["billing", "technical", "billing"]
    written = [row for row in rows(world / "out" / "predictions.jsonl") if row["name"] == "rationale-first"]
    assert [row["rationale"] for row in found[6:]] == [row["rationale"] for row in written[:3]]


@pytest.mark.parametrize("gone", [*FILES, None])
def test_what_is_gone_is_made_again_without_a_look_at_test(
    home: Path, monkeypatch: pytest.MonkeyPatch, gone: str | None
) -> None:
    before = {name: (home / "out" / name).read_bytes() for name in (*FILES, "predictions.jsonl")}
    for name in FILES if gone is None else (gone,):
        (home / "out" / name).unlink()
    monkeypatch.setattr(evaluation, "score", no_test)
    run = copied(home)
    run.evaluate()
    assert {name: (home / "out" / name).read_bytes() for name in before} == before
    times = {name: (home / "out" / name).stat().st_mtime_ns for name in before}
    monkeypatch.setattr(evaluation, "load_student", no_test)
    run.evaluate()
    assert {name: (home / "out" / name).stat().st_mtime_ns for name in before} == times


def copied(home: Path, reopen: bool = False, **changes: Any) -> Run:
    """The run as it was configured, in the copy of its folder."""
    config = load_run(home / "run.yaml")
    return Run(config.model_copy(update={"out": str(home / "out"), **changes}), unwatched, reopen=reopen)


def test_other_slices_and_fewer_rationales_need_no_test(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "score", no_test)
    run = copied(home)
    wanted = run.config.evaluate.model_copy(update={"slices": ("team",), "explain": 1})
    run = copied(home, evaluate=wanted)
    run.open()
    run.evaluate()
    metrics = rows(home / "out" / "metrics.jsonl")
    assert [list(row["slices"]) for row in metrics] == [["team"]] * 4
    assert metrics[0]["rationale"]["n"] == 1
    assert [row["columns"] for row in rows(home / "out" / "test.jsonl")][:1] == [{"team": "billing"}]
    assert [row["example_id"] for row in rows(home / "out" / "explanations.jsonl")] == ["test-0"] * 3
    wanted = wanted.model_copy(update={"slices": ("chanel",)})
    with pytest.raises(ConfigError, match="did you mean 'channel'"):
        copied(home, evaluate=wanted).open()


def test_students_whose_weights_were_deleted_explain_nothing_more(home: Path) -> None:
    for path in home.glob("out/students/*/*.safetensors"):
        path.unlink()
    (home / "out" / "explanations.jsonl").unlink()
    copied(home).evaluate()
    names = {row["name"] for row in rows(home / "out" / "explanations.jsonl")}
    assert names == {"teacher", "rationale-first"}


def test_a_result_that_was_deleted_is_not_measured_again(home: Path) -> None:
    (home / "out" / "results.jsonl").unlink()
    with pytest.raises(RunFolderError, match=r"has been read for 'finetune'.*result is gone.*--reopen-test"):
        copied(home).check_test()
    with pytest.raises(RunFolderError, match="--reopen-test"):
        copied(home).evaluate()
    records = copied(home, reopen=True).evaluate()
    assert [(record.name, record.reopened) for record in records] == [
        ("teacher", 0),
        *((n, 1) for n in METHODS),
    ]
    assert [read["reopened"] for read in rows(home / JOURNAL)] == [False] * 3 + [True] * 3


def test_the_same_configuration_in_another_folder_is_refused_and_another_one_is_not(home: Path) -> None:
    other = copied(home, out=str(home / "other"), methods=("finetune",))
    with pytest.raises(RunFolderError, match=f"already, in {home}/out;"):
        other.check_test()
    with pytest.raises(RunFolderError, match=f"already, in {home}/out;"):
        other.open(test=True)
    assert not (home / "other" / "run.json").exists()
    copied(home, out=str(home / "other"), methods=("finetune",), seed=1).check_test()
    copied(home, out=str(home / "other"), methods=("distill",)).check_test()
    copied(home, reopen=True, out=str(home / "other"), methods=("finetune",)).check_test()


def test_a_reading_that_a_killed_process_did_not_note_is_noted_at_its_restart(home: Path) -> None:
    whole = (home / JOURNAL).read_bytes()
    (home / JOURNAL).write_bytes(b"".join(whole.splitlines(keepends=True)[:2]))
    copied(home).evaluate()
    assert (home / JOURNAL).read_bytes() == whole


def test_measuring_that_was_interrupted_goes_on(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {name: (home / "out" / name).read_bytes() for name in (*FILES, "results.jsonl")}
    for name in (*FILES, "results.jsonl", "predictions.jsonl"):
        (home / "out" / name).unlink()
    (home / JOURNAL).unlink()
    done: list[str] = []

    def interrupted(*given: Any) -> Any:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append("one more")
        return score(*given)

    with monkeypatch.context() as patched:
        patched.setattr(evaluation, "score", interrupted)
        with pytest.raises(KeyboardInterrupt):
            copied(home).evaluate()
    assert len(rows(home / JOURNAL)) == 1
    copied(home).evaluate()
    assert {name: (home / "out" / name).read_bytes() for name in before} == before
    assert [read["arm"] for read in rows(home / JOURNAL)] == METHODS
