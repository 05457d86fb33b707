"""What each verb prints and leaves behind when all is well."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

VERBS = ["run", "annotate", "train", "evaluate", "predict", "tasks", "init"]
FILES = ("predictions.jsonl", "results.jsonl", "metrics.jsonl", "test.jsonl", "explanations.jsonl")
LABELS = {"approve", "ask", "deny", "escalate"}


def test_a_run_prints_a_row_for_the_teacher_and_each_method(cli: Any, run_file: Path) -> None:
    done = cli("run", run_file)
    assert done.code == 0
    names = [line.split()[0] for line in done.out.splitlines() if " % " in line]
    assert [name for name in names if name in ("teacher", "finetune", "distill", "step-by-step")] == [
        "teacher",
        "finetune",
        "distill",
        "step-by-step",
    ]
    assert "SIMULATED" in done.out
    assert "McNemar p" in done.out


def test_the_table_says_more_of_a_closed_set_in_one_line(cli: Any, run_file: Path) -> None:
    line = next(line for line in cli("run", run_file, "-q").out.splitlines() if "macro-F1" in line)
    assert all(f" {name} " in line for name in ("teacher", "finetune", "distill", "step-by-step"))


def test_a_second_look_at_test_wants_a_word_and_is_told(cli: Any, run_file: Path, tmp_path: Path) -> None:
    only, other = ("--set", "methods=[finetune]"), ("--set", f"out={tmp_path / 'other'}")
    assert cli("run", run_file, "-q", *only).code == 0
    refused = cli("run", run_file, "-q", *only, *other)
    assert (refused.code, refused.error.count("\n")) == (2, 1)
    assert f"already, in {tmp_path / 'out'}; keep that result, or give --reopen-test" in refused.error
    assert not (tmp_path / "other" / "annotations.jsonl").exists()
    again = cli("run", run_file, "-q", *only, *other, "--reopen-test")
    assert again.code == 0, again.error
    assert "Test was read again for this configuration: finetune 1 x" in again.out
    shown = cli("evaluate", run_file, "-q", *only, "--json")
    assert [row["reopened"] for row in json.loads(shown.out)] == [0, 0]
    reopened = cli("evaluate", run_file, "-q", *only, "--reopen-test", "--json")
    assert [row["reopened"] for row in json.loads(reopened.out)] == [0, 2]
    new = cli("run", run_file, "-q", *only, "--set", "seed=1", "--set", f"out={tmp_path / 'third'}")
    assert "Test has been read 4 times by 2 configurations of this task" in new.out


def test_progress_goes_to_stderr_and_quiet_silences_it(cli: Any, run_file: Path) -> None:
    assert "train finetune" in cli("run", run_file, "--set", "methods=[finetune]").error
    assert cli("run", run_file, "--quiet").error == ""


def test_json_is_all_that_stdout_holds(cli: Any, run_file: Path) -> None:
    rows = json.loads(cli("run", run_file, "--json").out)
    assert [row["name"] for row in rows] == ["teacher", "finetune", "distill", "step-by-step"]
    for row in rows:
        card = row["scorecard"]
        assert card["n"] == len(card["outcomes"]) == 12
        assert card["value"] == pytest.approx(card["outcomes"].count("1") / 12)
        assert 0 <= card["low"] <= card["value"] <= card["high"] <= 1


def test_stages_one_by_one_give_the_results_of_a_run(cli: Any, run_file: Path, tmp_path: Path) -> None:
    # Side by side they would be two looks at one test set, of which the second is refused.
    at = {name: ("--set", f"out={tmp_path / name / 'out'}") for name in ("whole", "stages")}
    assert cli("run", run_file, "-q", *at["whole"]).code == 0
    for verb in ("annotate", "train", "evaluate"):
        assert cli(verb, run_file, "-q", *at["stages"]).code == 0
    for name in (*FILES, "annotations.jsonl"):
        assert (tmp_path / "whole/out" / name).read_bytes() == (tmp_path / "stages/out" / name).read_bytes()


def test_a_method_added_later_leaves_the_others_as_they_are(cli: Any, run_file: Path, tmp_path: Path) -> None:
    assert cli("run", run_file, "-q", "--set", "methods=[step-by-step]").code == 0
    model = tmp_path / "out" / "students" / "step-by-step" / "model.safetensors"
    born = model.stat().st_mtime_ns
    assert cli("run", run_file, "-q").code == 0
    assert model.stat().st_mtime_ns == born
    names = [json.loads(line)["name"] for line in (tmp_path / "out" / "results.jsonl").open()]
    assert names == ["teacher", "finetune", "distill", "step-by-step"]


def test_every_prediction_is_kept_beside_its_gold_label(finished: Path) -> None:
    rows = [json.loads(line) for line in (finished / "predictions.jsonl").open()]
    assert len(rows) == 4 * 12
    assert all(row["gold"] in LABELS for row in rows)
    assert all((row["label"] is None) == (row["reason"] is not None) for row in rows)


def test_a_finished_run_holds_no_pickle_and_no_scratch(finished: Path) -> None:
    names = [path.name for path in finished.rglob("*")]
    assert [name for name in names if name.endswith((".bin", ".pt", ".pth", ".pkl"))] == []
    assert [name for name in names if name.startswith(".") and name != ".lock"] == []


def test_every_student_has_its_curve_and_gets_it_back(cli: Any, run_file: Path, tmp_path: Path) -> None:
    only = ("--set", "methods=[step-by-step]")
    assert cli("train", run_file, "-q", *only).code == 2  # not annotated yet
    assert cli("run", run_file, "-q", *only).code == 0
    folder = tmp_path / "out" / "students" / "step-by-step"
    before = {name: (folder / name).read_bytes() for name in ("curve.svg", "curve.png")}
    assert before["curve.png"].startswith(b"\x89PNG")
    (folder / "curve.svg").unlink()
    assert cli("train", run_file, "-q", *only).code == 0
    assert {name: (folder / name).read_bytes() for name in before} == before


def test_examples_that_are_dropped_are_counted_in_the_table(cli: Any, run_file: Path) -> None:
    sets = ("train.too_long=drop", "train.max_target_tokens=40", "methods=[finetune, step-by-step]")
    found = cli("run", run_file, "-q", "--json", *(part for each in sets for part in ("--set", each)))
    rows = {row["name"]: row for row in json.loads(found.out)}
    short = rows["step-by-step"]["n_train"]
    assert 0 < short < rows["finetune"]["n_train"] == 24
    assert rows["step-by-step"]["n_left_out"] == 24 - short
    assert rows["step-by-step"]["n_rationales"] <= short
    again = cli("run", run_file, "-q", *(part for each in sets for part in ("--set", each)))
    assert f"step-by-step: {24 - short} of 24 examples were too long and are left out" in again.out


def test_predict_answers_a_text_and_explains_it(cli: Any, finished: Path) -> None:
    done = cli("predict", finished, "Dear Sir, a storm tore tiles off the roof.", "--student", "step-by-step")
    assert done.code == 0
    plain = done.out
    explained = cli("predict", finished, "Dear Sir, a storm.", "--student", "step-by-step", "--explain")
    assert explained.code == 0
    assert len(explained.out.splitlines()) >= len(plain.splitlines())


def test_that_no_rationale_was_written_is_said(
    cli: Any, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "stepdistill.deploy.model.Model.write", lambda _, task, texts, *__, **___: [""] * len(texts)
    )
    done = cli("predict", finished, "A storm.", "--student", "step-by-step", "--explain")
    assert done.out.splitlines()[-1] == "(no rationale was written)"


def test_predict_answers_a_file_in_order(cli: Any, finished: Path, tmp_path: Path) -> None:
    rows = [
        {"id": "a", "letter": "A storm."},
        {"id": "b", "text": "A fire in May, and nobody was hurt."},
        {"letter": "x"},
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    done = cli("predict", finished, "--input", tmp_path / "in.jsonl", "--quiet")
    found = [json.loads(line) for line in done.out.splitlines()]
    assert [row["id"] for row in found] == ["a", "b", "2"]
    assert all(row["label"] in LABELS | {None} for row in found)


def test_predict_reads_stdin(cli: Any, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("A storm in May.\n"))
    assert cli("predict", finished, "-").code == 0
    base = [sys.executable, "-m", "stepdistill", "predict", str(finished)]
    rows = '{"letter": "A storm."}\n'
    done = subprocess.run(
        [*base, "-q", "--input", "-"], input=rows, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["id"] == "0"


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--explain", "text", "--student", "finetune"], "was taught no rationales"),
        (["text", "--student", "finetun"], "did you mean 'finetune'"),
        (["--input", "/no/such.jsonl"], "no such file"),
        (["  "], "the input text is empty"),
        ([], "give either a TEXT or --input FILE"),
    ],
)
def test_predict_refuses_what_it_cannot_do(cli: Any, finished: Path, arguments: list[str], part: str) -> None:
    done = cli("predict", finished, *arguments)
    assert done.code == 2
    assert part in " ".join(done.error.split())


def test_predict_without_a_run_says_what_to_do(cli: Any, tmp_path: Path) -> None:
    done = cli("predict", tmp_path, "text")
    assert (done.code, done.error.count("\n")) == (2, 1)
    assert "no trained student" in done.error


def test_tasks_lists_what_is_built_in_and_prints_one(cli: Any) -> None:
    names = [line.split()[0] for line in cli("tasks").out.splitlines()]
    assert names == ["anli-r1", "anli-r2", "anli-r3", "asdiv", "claims", "cqa", "esnli", "svamp"]
    assert yaml.safe_load(cli("tasks", "svamp").out)["name"] == "svamp"
    assert "did you mean 'svamp'" in cli("tasks", "svmp").error


def test_init_writes_files_that_run_once_there_are_data(
    cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli("init").code == 0
    rows = [{"message": f"My bill number {i} is wrong", "team": "billing"} for i in range(130)]
    for name in ("train", "test"):
        Path(f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    answers = [
        {"id": f"train-{i}", "rationale": "It is about money.", "label": "billing"} for i in range(130)
    ]
    Path("completions-train.jsonl").write_text("\n".join(map(json.dumps, answers)))
    small = ["student.model='scratch:'", "student.scratch.d_model=16", "train.epochs=1", "train.threads=1"]
    done = cli("run", "run.yaml", "-q", *[word for setting in small for word in ("--set", setting)])
    assert done.code == 0, done.error
    assert "step-by-step" in done.out


def test_init_overwrites_nothing(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "task.yaml").write_text("mine")
    done = cli("init", tmp_path)
    assert (done.code, done.error.count("\n")) == (2, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["task.yaml"]
    assert (tmp_path / "task.yaml").read_text() == "mine"


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_each_verb_needs_no_torch(verb: str) -> None:
    code = (
        "import sys; sys.argv = ['stepdistill', sys.argv[1], '--help']\n"
        "from stepdistill.cli.main import main\n"
        "try: main()\n"
        "finally: print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, verb], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False False"
    assert "Usage" in done.stdout


def test_an_unknown_verb_is_answered_with_a_suggestion(cli: Any) -> None:
    done = cli("evalute")
    assert done.code == 2
    assert "evaluate" in done.error


def test_hostile_words_do_not_reach_the_terminal(cli: Any, tmp_path: Path) -> None:
    done = cli("run", tmp_path / "\x1b[31mred\nline.yaml")
    assert done.code == 2
    assert "\x1b" not in done.error
    assert done.error.count("\n") == 1
