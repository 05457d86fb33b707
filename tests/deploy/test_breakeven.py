"""The account of a student, worked out by hand from a ledger of known costs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from stepdistill.cli.main import app
from stepdistill.config import load_run
from stepdistill.deploy.breakeven import Breakeven, Terms, breakeven
from stepdistill.deploy.bundle import read_bundle, seal
from stepdistill.errors import ConfigError, RunFolderError
from stepdistill.records import unwatched
from stepdistill.study.job import Job
from stepdistill.teacher.asked import AskedTeacher
from stepdistill.teacher.ledger import Ledger
from stepdistill.teacher.protocol import Prompt, Reply, Sampling, Tally, Work, in_batches

EACH = 2e-5
"""10 tokens at 1 USD and 5 at 2 USD a million."""
PAID = {"backend": "openai", "model": "m", "prompt": "zero-shot", "price": {"input": 1.0, "output": 2.0}}
MACHINE = Terms(machine_usd_per_hour=0.36)


class Counted:
    """A model whose every answer takes 10 and 5 tokens; of no known number where it is `silent`."""

    def __init__(self, silent: bool = False) -> None:
        self.tokens = (None, None) if silent else (10, 5)

    def answer(self, work: Work) -> None:
        """As `Backend`."""
        in_batches(work, self._complete, 8)

    def _complete(self, prompts: Sequence[Prompt], sampling: Sampling, draws: Sequence[int]) -> list[Reply]:
        return [Reply("Wet. So the answer is sea.", "stop", "m", *self.tokens) for _ in prompts]


def copied(labels: Any, folder: Path, **teacher: Any) -> Path:
    """The run in a folder of its own, with another teacher, and round figures: 1 h, 0.1 s an answer.

    Its student stands there twice, once as one that learned of gold labels.
    """
    run = folder / "runs" / "one"
    shutil.copytree(labels.folder, run)
    plain = run / "students" / "finetune"
    shutil.copytree(labels.student("step-by-step"), plain)
    card = json.loads((plain / "student.json").read_text())
    card |= {"name": "finetune", "form": "label", "explains": False, "rationales": None}
    (plain / "student.json").write_text(json.dumps(card))
    values = yaml.safe_load((run / "config.yaml").read_text())
    values["teacher"] = teacher or values["teacher"]
    (run / "config.yaml").write_text(yaml.safe_dump(values))
    for name in ("finetune", "step-by-step"):
        (run / "students" / name / "seconds.json").write_text("3600.0")
    times = {"predict step-by-step": {"seconds": 0.1 * len(labels.rows)}}
    (run / "timings.json").write_text(json.dumps(times))
    return run


def answer(run: Path) -> None:
    """Fill the ledger beside the run with an answer to each training example."""
    config = load_run(run / "config.yaml").model_copy(update={"out": str(run)})
    job = Job(config, unwatched)
    pairs = [("train", example) for example in job.streams["train"]]
    with Ledger(job.ledger) as ledger:
        teacher = AskedTeacher(job.task, config.teacher, config.seed, ledger)
        teacher.prepare(None, Counted())
        teacher.ask(lambda: pairs, len(pairs), unwatched, Tally())


@pytest.fixture(scope="module")
def paid(labels: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose 40 training examples are 4 texts, each answered and paid once."""
    run = copied(labels, tmp_path_factory.mktemp("paid"), **PAID)
    answer(run)
    return run


def test_annotation_and_training_against_what_a_request_saves(paid: Path) -> None:
    found = breakeven(paid, MACHINE)
    assert (found.student, found.notes) == ("step-by-step", ())
    assert found.annotation_usd == pytest.approx(4 * EACH)
    assert (found.training_usd, found.training_seconds) == (pytest.approx(0.36), 3600)
    assert found.teacher_usd == pytest.approx(EACH)
    assert (found.student_usd, found.student_seconds) == (pytest.approx(1e-5), pytest.approx(0.1))
    assert found.requests == 36_008  # (0.36 + 0.00008) / (0.00002 - 0.00001)


def test_what_the_student_leaves_is_paid_to_both(paid: Path) -> None:
    found = breakeven(paid, Terms(coverage=0.75, machine_usd_per_hour=0.36))
    assert found.requests == 72_016  # 0.36008 / (0.75 * 0.00002 - 0.00001)
    never = breakeven(paid, Terms(coverage=0.5, machine_usd_per_hour=0.36))
    assert never.requests is None


def test_without_a_machine_s_price_its_answers_alone_count_and_that_is_said(paid: Path) -> None:
    found = breakeven(paid)
    assert found.requests == 4
    assert "--machine-usd-per-hour" in found.notes[0]


def test_a_student_of_gold_labels_has_no_annotation_to_pay(paid: Path) -> None:
    found = breakeven(paid, Terms(student="finetune"))
    assert (found.annotation_usd, found.requests) == (0.0, 0)
    assert "gold labels alone" in found.notes[-1]
    with pytest.raises(RunFolderError, match=r"was not measured; evaluate the run"):
        breakeven(paid, Terms(student="finetune", machine_usd_per_hour=1.0))


def test_several_draws_are_one_answer(labels: Any, tmp_path: Path) -> None:
    run = copied(labels, tmp_path, **PAID, draws=3, temperature=0.5)
    answer(run)
    found = breakeven(run)
    assert (found.annotation_usd, found.teacher_usd) == (pytest.approx(12 * EACH), pytest.approx(3 * EACH))


def test_a_given_price_is_for_requests_and_leaves_the_ledger_s_account(paid: Path) -> None:
    found = breakeven(paid, Terms(teacher_usd_per_1000=0.04))
    assert (found.annotation_usd, found.teacher_usd) == (pytest.approx(4 * EACH), pytest.approx(4e-5))
    assert found.requests == 2


def test_a_teacher_without_a_price_needs_one_and_its_answers_are_counted_at_it(labels: Any) -> None:
    with pytest.raises(ConfigError, match=r"no price of this teacher's answers \(recorded\).*-per-1000$"):
        breakeven(labels.folder)
    found = breakeven(labels.folder, Terms(teacher_usd_per_1000=1.0))
    assert (found.annotation_usd, found.requests) == (pytest.approx(0.040), 40)
    assert "(recorded): the 40 answers for training are counted at the price given" in found.notes[0]


def test_a_ledger_that_is_gone_is_not_made_anew(labels: Any, tmp_path: Path) -> None:
    run = copied(labels, tmp_path, **PAID)
    with pytest.raises(ConfigError, match=r"the ledger knows no price .* \(openai\)"):
        breakeven(run)
    assert not (tmp_path / "runs" / "ledger.sqlite").exists()


def exported(light: Path, folder: Path, threshold: float | None) -> Path:
    """The bundle with a proof of round figures."""
    shutil.copytree(light, folder)
    curve = [{"threshold": t, "coverage": c} for t, c in ((0.0, 1.0), (0.6, 0.9), (0.8, 0.75))]
    proof = {"coverage": curve, "export": {"latency_ms": {"p50": 50.0}}}
    (folder / "proof.json").write_text(json.dumps(proof))
    manifest = read_bundle(light)
    settings = manifest.settings.model_copy(update={"threshold": threshold})
    seal(folder, manifest.model_copy(update={"settings": settings}))
    return folder


@pytest.mark.parametrize(("threshold", "coverage"), [(None, 1.0), (0.0, 1.0), (0.7, 0.75), (0.8, 0.75)])
def test_an_export_says_its_latency_and_what_its_threshold_leaves(
    paid: Path, light: Path, tmp_path: Path, threshold: float | None, coverage: float
) -> None:
    bundle = exported(light, tmp_path / "bundle", threshold)
    found = breakeven(paid, Terms(bundle=bundle, machine_usd_per_hour=0.36))
    assert (found.student_seconds, found.coverage) == (0.05, coverage)
    assert breakeven(paid, Terms(bundle=bundle, coverage=0.6)).coverage == 0.6


def test_an_export_of_another_student_is_refused(paid: Path, light: Path, tmp_path: Path) -> None:
    bundle = exported(light, tmp_path / "bundle", None)
    with pytest.raises(RunFolderError, match="is no export of"):
        breakeven(paid, Terms(bundle=bundle, student="finetune"))
    with pytest.raises(RunFolderError, match="there is no bundle"):
        breakeven(paid, Terms(bundle=paid))


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        (Terms(coverage=0.0), "--coverage 0: give a share"),
        (Terms(coverage=80), "--coverage 80"),
        (Terms(machine_usd_per_hour=-1), "--machine-usd-per-hour -1"),
        (Terms(teacher_usd_per_1000=float("nan")), "--teacher-usd-per-1000 nan"),
    ],
)
def test_what_is_no_price_or_share_is_refused(paid: Path, terms: Terms, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        breakeven(paid, terms)


def test_free_answers_on_a_free_machine_are_never_overtaken() -> None:
    account = Breakeven("s", 1.0, 0.0, 1.0, 0.0, 0.0, None, 1.0)
    assert account.requests is None


def test_it_is_printed_for_people_and_as_json(paid: Path) -> None:
    command = ["breakeven", str(paid), "--machine-usd-per-hour", "0.36"]
    printed = CliRunner().invoke(app, command).output
    assert "'step-by-step' has paid for itself after 36,008 requests." in printed
    found = json.loads(CliRunner().invoke(app, [*command, "--json"]).output)
    assert (found["requests"], found["student"]) == (36_008, "step-by-step")
    never = CliRunner().invoke(app, [*command, "--coverage", "0.5"]).output
    assert "never pays for itself" in never
    assert "50.0 %" in never
