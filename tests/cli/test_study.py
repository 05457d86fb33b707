"""`study` and `trial`: one line for each mistake, and what is printed and left behind."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rows import row as a_row
from studies import small_study

from stepdistill.cli.studied import show_finished
from stepdistill.study.whole import Finished

STUDY = """
run:
  task: claims
  data: {limit: {train: 24, validation: 6, test: 12}}
  teacher: {backend: simulated}
  student: {model: "scratch:", scratch: {d_model: 16, d_ff: 16, heads: 2, layers: 1}}
  train: {epochs: 1, batch_size: 8, threads: 1}
grid:
  methods: [finetune, step-by-step]
  fractions: [0.5, 1.0]
  seeds: [0, 1]
out: OUT
"""


@pytest.fixture
def study_file(tmp_path: Path) -> Path:
    """A small study, its output below the test's folder."""
    path = tmp_path / "study.yaml"
    path.write_text(STUDY.replace("OUT", str(tmp_path / "out")))
    return path


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("grid.method=[finetune]", "unknown key 'grid.method'; did you mean 'methods'?"),
        ("job=2", "unknown key 'job'; did you mean 'jobs'?"),
        ("run.train.epoch=2", "run.train: unknown key 'epoch'; did you mean 'epochs'?"),
        ("grid.methods=[fintune]", "did you mean 'finetune'?"),
        ("grid.methods=[]", "grid.methods"),
        ("grid.fractions=[0.0]", "grid.fractions.0: Input should be greater than 0, not 0.0"),
        ("grid.fractions=[1.5]", "grid.fractions.0: Input should be less than or equal to 1, not 1.5"),
        ("grid.rationales=[techer]", "did you mean 'teacher'?"),
        ("run.seed=3", "run.seed: a study sets it"),
        ("grid.set={out: x}", "grid.set.out: a study sets it"),
        ("grids=[{methods: [finetune]}]", "give either `grid` or the list `grids`"),
        ("method=step-by-stp", "did you mean 'step-by-step'?"),
        ("run.task=clams", "did you mean 'claims'?"),
        ("method=distill", "method: no trial of 'distill' in the study; give one of finetune, step-by-step"),
        ("against=distill", "against: no trial of 'distill' in the study"),
        ("method=teacher", "'teacher' is asked and not trained; give it as `against`"),
        ("jobs=0", "jobs: Input should be greater than or equal to 1, not 0"),
    ],
)
def test_a_mistake_in_the_file_is_told_in_one_line(
    cli: Any, study_file: Path, tmp_path: Path, setting: str, said: str
) -> None:
    for flags in (["--plan"], []):
        done = cli("study", study_file, "--set", setting, *flags)
        assert done.code == 2
        assert said in done.error
        assert done.error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_method_is_not_compared_with_itself(cli: Any, study_file: Path, tmp_path: Path) -> None:
    done = cli("study", study_file, "--set", "method=finetune", "--set", "against=finetune")
    assert (done.code, done.error.count("\n")) == (2, 1)
    assert "method and against are both 'finetune'" in done.error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "note"),
    [
        ([], ""),
        (["grid.methods=[distill, rationale-first]"], "rationale-first is compared with distill"),
        (["grid.methods=[distill]"], "distill is compared with teacher"),
        (
            ["grid.methods=[finetune, step-by-step]", "method=finetune"],
            "finetune is compared with step-by-step",
        ),
        (["against=step-by-step"], "finetune is compared with step-by-step"),
    ],
)
def test_where_no_comparison_is_named_one_of_the_grid_is_taken(
    cli: Any, study_file: Path, settings: list[str], note: str
) -> None:
    done = cli("study", study_file, "--plan", *(part for text in settings for part in ("--set", text)))
    assert done.code == 0, done.error
    assert (note in done.error) if note else not done.error


def test_trials_in_one_place_of_the_grid_are_refused_before_any_is_run(
    cli: Any, study_file: Path, tmp_path: Path
) -> None:
    text = study_file.read_text()
    head, tail = text.split("grid:")[0], text[text.index("out:") :]
    grids = "".join(
        f"  - {{methods: [finetune, step-by-step], set: {{train.batch_size: {size}}}}}\n" for size in (4, 8)
    )
    study_file.write_text(f"{head}grids:\n{grids}{tail}")
    done = cli("study", study_file)
    assert (done.code, done.error.count("\n")) == (2, 1)
    assert "stand in the same place, as train.batch_size differs and is no axis" in done.error
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_compared_is_said_and_the_rest_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [a_row(name="finetune"), a_row(), replace(a_row(), trial="other")]
    finished = Finished(tmp_path, [], [], rows)
    show_finished(small_study(tmp_path, methods=["finetune", "step-by-step"]), finished, False)
    said = " ".join(capsys.readouterr().out.split())
    assert "step-by-step and finetune cannot be compared" in said
    assert "stand in the same place of the grid" in said
    assert "accuracy on" in said


def test_other_files_and_folders_are_told(cli: Any, study_file: Path, run_file: Path, tmp_path: Path) -> None:
    done = cli("study", run_file)
    assert (done.code, done.error.count("\n")) == (2, 1)
    assert f"this is a run file; `stepdistill run {run_file}` runs it" in done.error
    assert "no such file" in cli("study", tmp_path / "nothing.yaml").error
    assert "no trial's folder" in cli("trial", tmp_path).error
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "letter.txt").write_text("mine")
    done = cli("study", study_file)
    assert (done.code, done.error.count("\n")) == (2, 1)
    assert "holds files and no study" in done.error
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["letter.txt"]


@pytest.mark.parametrize("flags", [["--jobs", "0"], ["--jobs", "many"], ["--plan", "--minimum"]])
def test_wrong_flags_are_told(cli: Any, study_file: Path, tmp_path: Path, flags: list[str]) -> None:
    assert cli("study", study_file, *flags).code == 2
    assert not (tmp_path / "out").exists()


def test_a_plan_is_printed_and_nothing_is_written(cli: Any, study_file: Path, tmp_path: Path) -> None:
    done = cli("study", study_file, "--plan", "--jobs", "2")
    assert done.code == 0
    assert "8 trials, 0 of them finished, 8 to do, 2 at a time" in done.out
    assert "within a factor of 3" in done.out
    told = json.loads(cli("study", study_file, "--plan", "--json").out)
    assert (told["trials"], told["done"], told["money"]) == (8, 0, [])
    assert [path.name for path in tmp_path.iterdir()] == ["study.yaml"]


def test_trials_can_be_started_one_by_one_and_the_study_knows_them(
    cli: Any, study_file: Path, tmp_path: Path
) -> None:
    small = ["--set", "grid.fractions=[1.0]", "--set", "grid.seeds=[0]"]
    lines = cli("study", study_file, "--prepare", *small).out.splitlines()
    assert len(lines) == 2
    for line in lines:
        command = line.split()
        assert command[:2] == ["stepdistill", "trial"]
        assert cli(*command[1:], "--quiet").code == 0
    assert cli("study", study_file, "--prepare", *small).out == ""
    done = cli("study", study_file, "--quiet", *small)
    assert done.code == 0
    assert "step-by-step" in done.out
    assert "12 test examples" in done.out
    assert len((tmp_path / "out" / "results.jsonl").read_text().splitlines()) == 3
    told = json.loads(cli("study", study_file, "--json", *small).out)
    assert told["failed"] == []
    assert [cell["method"] for cell in told["accuracy"]] == ["teacher", "finetune", "step-by-step"]


def test_commands_of_prepared_trials_can_be_given_to_a_shell(
    cli: Any, study_file: Path, tmp_path: Path
) -> None:
    small = ["--set", "grid.methods=[finetune]", "--set", "grid.fractions=[1.0]", "--set", "grid.seeds=[0]"]
    out = tmp_path / "two words; touch gone"
    (line,) = cli("study", study_file, "--prepare", *small, "--set", f'out="{out}"').out.splitlines()
    _, verb, folder = shlex.split(line)
    assert verb == "trial"
    assert Path(folder).parent.parent == out
    assert (Path(folder) / "trial.yaml").exists()


def test_a_failed_trial_says_so_and_exits_with_its_code(cli: Any, study_file: Path) -> None:
    small = ["--set", "grid.methods=[finetune]", "--set", "grid.fractions=[1.0]", "--set", "grid.seeds=[0]"]
    (line,) = cli("study", study_file, "--prepare", *small).out.splitlines()
    folder = Path(line.split()[2])
    text = (folder / "trial.yaml").read_text()
    (folder / "trial.yaml").write_text(text.replace("task: claims", "task: gone.yaml"))
    done = cli("trial", folder, "--quiet")
    assert done.code == 2
    assert done.error.splitlines()[-1].startswith("Error: gone.yaml: no such file")
    assert json.loads((folder / "outcome.json").read_text())["status"] == "failed"
