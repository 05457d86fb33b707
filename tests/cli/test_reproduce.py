"""`stepdistill reproduce`: what is refused before any work, and the judged numbers at the end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from paper_data import write_data

Cli = Callable[..., Any]

TINY = [
    "--set",
    'run.student={model: "scratch:", scratch: {d_model: 16, d_ff: 16, heads: 2, layers: 1}}',
    "--set",
    "run.train={steps: 2, batch_size: 4, threads: 1}",
    "--set",
    "run.data.limit={train: 8, validation: 2, test: 4}",
    "--set",
    "grids=[{tasks: [svamp], seeds: [0]}]",
]


@pytest.fixture(autouse=True)
def no_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("STEPDISTILL_DATA", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["figur4"], "unknown table or figure 'figur4'; did you mean 'figure4'?"),
        (["figure4", "--scale", "papers"], "unknown scale 'papers'; did you mean 'paper'?"),
        (["figure4", "--task", "svam"], "unknown task 'svam'; did you mean 'svamp'?"),
        (["figure6", "--set", "run.nothing=1"], "nothing"),
        (["figure6", "--set", "run.student.model=x"], "no effect"),
        (["figure6", "--set", "jobs"], "write it as key.key=value"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], words: str, cli: Cli, tmp_path: Path) -> None:
    called = cli("reproduce", *arguments)
    assert called.code == 2
    line = called.error.splitlines()[-1]
    assert line.startswith("Error: ")
    assert words in line
    assert list(tmp_path.iterdir()) == []


def test_missing_data_and_weights_are_one_message_before_any_work(cli: Cli, tmp_path: Path) -> None:
    called = cli("reproduce", "table1", "--scale", "paper", "--task", "cqa", "--data-root", tmp_path)
    assert called.code == 2
    told = called.error[called.error.index("Error: ") :].splitlines()
    assert told[0].startswith("Error: table1 at scale 'paper' needs what is not there")
    assert [line.split(":")[0] for line in told[1:]] == [
        "  data of cqa",
        "  answers of PaLM-540B to cqa",
        "  weights of google/t5-v1_1-base",
    ]
    assert f"cqa_train.json, cqa_test.json in {tmp_path / 'cqa'}/" in called.error
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_data_that_is_not_there_is_told_too(cli: Cli, tmp_path: Path) -> None:
    called = cli("reproduce", "table1", "--task", "svamp", "--data-root", tmp_path / "no")
    assert called.code == 2
    assert f"svamp_train.json, svamp_test.json in {tmp_path / 'no' / 'svamp'}/" in called.error


def test_a_plan_runs_and_writes_nothing(cli: Cli, tmp_path: Path) -> None:
    called = cli("reproduce", "figure8", "--plan")
    assert called.code == 0, called.error
    assert "24" in called.out
    assert "Otherwise than in the paper: students scratch-32x1" in called.error
    assert "Figure 8, small" in called.error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_at_the_end_the_published_numbers_stand_beside_ours(cli: Cli, tmp_path: Path) -> None:
    write_data(tmp_path / "data")
    arguments = [
        "reproduce",
        "table1",
        "--data-root",
        tmp_path / "data",
        "--out",
        tmp_path / "out",
        "--quiet",
    ]
    called = cli(*arguments, "--jobs", "1", *TINY)
    assert called.code == 0, called.error
    told = called.out[called.out.index("Published for table1, beside ours:") :]
    assert "svamp, step-by-step - finetune: published +2.87 points" in told
    assert "of scratch-16x1, 1 seed" in told
    assert "not judged: another test set (4 examples, published of 200)" in told
    assert "published numbers have nothing of ours beside them" in told
    assert cli(*arguments, "--jobs", "1", *TINY).out == called.out
