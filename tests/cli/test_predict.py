"""`stepdistill predict` says how sure it is, and openly where it is not sure enough."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

TEXT = "Dear Sir, a storm tore tiles off the roof."
LABELS = {"approve", "ask", "deny", "escalate"}


@pytest.fixture(scope="module")
def exported(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of one of the students, put together by hand."""
    from stepdistill.deploy.bundle import of_student, seal

    own, folder = finished / "students" / "step-by-step", tmp_path_factory.mktemp("exported") / "it"
    folder.mkdir()
    for name in ("config.json", "generation_config.json", "model.safetensors"):
        shutil.copy(own / name, folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(own / name, folder)
    seal(folder, of_student(own, json.loads((own / "student.json").read_text())))
    return folder


def test_a_label_is_printed_alone(cli: Any, finished: Path) -> None:
    done = cli("predict", finished, TEXT)
    assert (done.code, len(done.out.splitlines())) == (0, 1)
    assert done.out.strip() in LABELS


def test_below_the_threshold_the_line_says_so_and_gives_the_guess(cli: Any, finished: Path) -> None:
    guess = cli("predict", finished, TEXT).out.strip()
    done = cli("predict", finished, TEXT, "--threshold", "1.0")
    assert done.code == 0
    assert done.out.startswith("(abstained: confidence 0.")
    assert done.out.strip().endswith(f"is below the threshold 1.00; the guess is: {guess})")


def test_rows_have_the_probabilities_of_all_labels(cli: Any, finished: Path, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(json.dumps({"id": "a", "letter": TEXT}))
    plain = json.loads(cli("predict", finished, "-q", "--input", tmp_path / "in.jsonl").out)
    assert set(plain["probabilities"]) == LABELS
    assert sum(plain["probabilities"].values()) == pytest.approx(1.0)
    assert (
        plain["confidence"] == plain["probabilities"][plain["label"]] == max(plain["probabilities"].values())
    )
    assert (plain["abstained"], plain["text"], "reason" in plain) == (False, plain["label"], False)
    unsure = cli("predict", finished, "-q", "--input", tmp_path / "in.jsonl", "--threshold", "1", "--explain")
    row = json.loads(unsure.out)
    assert (row["label"], row["abstained"], row["text"]) == (None, True, plain["text"])
    assert "below the threshold" in row["reason"]
    assert isinstance(row["rationale"], str)


def test_an_export_answers_as_its_run_does(cli: Any, finished: Path, exported: Path) -> None:
    given = (TEXT, "--explain")
    theirs = cli("predict", finished, *given, "--student", "step-by-step")
    assert cli("predict", exported, *given).out == theirs.out


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--threshold", "1.5"], "threshold: 1.5; a probability from 0 to 1 is expected"),
        (["--threshold", "nan"], "from 0 to 1"),
        (["--student", "step-by-stp"], "did you mean 'step-by-step'"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    cli: Any, exported: Path, arguments: list[str], part: str
) -> None:
    done = cli("predict", exported, TEXT, *arguments)
    assert (done.code, done.error.count("\n")) == (2, 1)
    assert part in done.error


def test_a_row_with_half_a_character_is_named(cli: Any, finished: Path, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"letter": "fine"}\n{"letter": "half \\ud83d"}\n')
    done = cli("predict", finished, "-q", "--input", tmp_path / "in.jsonl")
    assert (done.code, done.error.count("\n")) == (2, 1)
    assert "in.jsonl, row 2: character 6 is half of a surrogate pair" in done.error


def test_a_damaged_export_is_refused(cli: Any, exported: Path, tmp_path: Path) -> None:
    shutil.copytree(exported, tmp_path / "it")
    with (tmp_path / "it" / "model.safetensors").open("r+b") as file:
        file.truncate(1000)
    done = cli("predict", tmp_path / "it", TEXT)
    assert (done.code, done.error.count("\n")) == (2, 1)
    assert "model.safetensors: is not the file that was exported" in done.error
