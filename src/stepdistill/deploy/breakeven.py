"""After how many requests a student has paid for its annotation and its training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from stepdistill.config import RunConfig, load_run
from stepdistill.deploy.bundle import MANIFEST, Bundle, is_bundle, read_bundle
from stepdistill.deploy.cards import choose, students
from stepdistill.errors import ConfigError, RunFolderError
from stepdistill.files import read_object
from stepdistill.records import unwatched
from stepdistill.study.bill import answer_usd, cost_usd
from stepdistill.study.grid import matters_teacher
from stepdistill.study.job import Job

PROOF = "proof.json"


@dataclass(frozen=True, slots=True)
class Terms:
    """What is compared, and the prices that no ledger knows.

    `bundle` is an export of the student: its measured latency and the share that its threshold leaves it
    are taken. `coverage` is that share, where no bundle says it. `teacher_usd_per_1000` is the price of
    answers by the teacher; None: as the ledger has it.
    """

    student: str | None = None
    bundle: Path | None = None
    coverage: float | None = None
    machine_usd_per_hour: float = 0.0
    teacher_usd_per_1000: float | None = None


@dataclass(frozen=True, slots=True)
class Breakeven:
    """The account of a student beside its teacher; `teacher_usd` and `student_usd` are for one request.

    A request that the student leaves is paid twice: for its try, and to the teacher. `notes` says what is
    counted in another way than measured.
    """

    student: str
    annotation_usd: float
    training_usd: float
    training_seconds: float
    teacher_usd: float
    student_usd: float
    student_seconds: float | None
    coverage: float
    notes: tuple[str, ...] = ()

    @property
    def invested_usd(self) -> float:
        """What had to be paid before the first request."""
        return self.annotation_usd + self.training_usd

    @property
    def saved_usd(self) -> float:
        """What a request costs less than at the teacher, on average; negative where it costs more."""
        saved, spent = self.coverage * self.teacher_usd, self.student_usd
        # As good as equal is equal: a difference of rounding would be paid back after 10^20 requests.
        return 0.0 if math.isclose(saved, spent, rel_tol=1e-9) else saved - spent

    @property
    def requests(self) -> int | None:
        """The number of requests from which on the student is the cheaper one; None: it never is."""
        if self.saved_usd <= 0:
            return None if self.invested_usd or self.saved_usd < 0 else 0
        # What is whole but for rounding is whole.
        return math.ceil(round(self.invested_usd / self.saved_usd, 6))


def breakeven(run: Path, terms: Terms | None = None) -> Breakeven:
    """The account of a run's student: by default the one that `predict` would ask, or that was exported.

    Annotation is what the ledger says the training examples' answers cost, nothing for a student that
    learns of gold labels alone. Training is its seconds, over all sessions, at the machine's rate.

    Raises:
        ConfigError: a price is needed that the ledger does not know, or a value is not allowed.
        RunFolderError: no trained student is there, or the bundle is of another one.
        StepdistillError: the run's data or ledger cannot be read.
    """
    terms = terms or Terms()
    _check(terms)
    bundle = read_bundle(terms.bundle) if terms.bundle else None
    wanted = str(bundle.card["name"]) if bundle and not terms.student else terms.student
    folder, card = choose(run, students(run), wanted, explain=False)
    if bundle and bundle.card != card:
        raise RunFolderError(f"{terms.bundle}: is no export of {folder}; give the bundle of this student")
    account = _Account(run, str(card["name"]), terms, bundle)
    seconds, each = account.training_seconds, account.student_seconds
    rate = terms.machine_usd_per_hour / 3600
    if rate and each is None:
        raise RunFolderError(
            f"{run}: how long '{account.name}' takes for an answer was not measured; evaluate the run, or "
            "give an export of it with --bundle"
        )
    return Breakeven(
        student=account.name,
        annotation_usd=account.annotation_usd,
        training_usd=seconds * rate,
        training_seconds=seconds,
        teacher_usd=account.teacher_usd,
        student_usd=(each or 0.0) * rate,
        student_seconds=each,
        coverage=account.coverage,
        notes=account.notes,
    )


@dataclass(frozen=True)
class _Account:
    """Where each figure of a student comes from."""

    run: Path
    name: str
    terms: Terms
    bundle: Bundle | None

    @cached_property
    def job(self) -> Job:
        """The run with this student alone, wherever its folder lies now."""
        path = self.run / "config.yaml"
        if not path.is_file():
            raise RunFolderError(f"{self.run}: is no run folder: there is no config.yaml")
        config = load_run(path)
        alone = {"methods": (self.name,), "out": str(self.run)}
        return Job(config.model_copy(update=alone), unwatched)

    @cached_property
    def learns(self) -> bool:
        return any(matters_teacher(arm, self.job.config) for arm in self.job.methods)

    @cached_property
    def known(self) -> tuple[float, float] | None:
        """By the ledger: all answers for training, and one answer; None where it knows no price."""
        each = answer_usd(self.job)
        total = None if each is None else cost_usd(self.job)
        return None if each is None or total is None else (total, each)

    @property
    def annotation_usd(self) -> float:
        if not self.learns:
            return 0.0
        return self.known[0] if self.known else self.answers * self.teacher_usd

    @cached_property
    def answers(self) -> int:
        """Training examples that the teacher answered."""
        return len(self.job.annotations.get("train", ()))

    @property
    def teacher_usd(self) -> float:
        if self.terms.teacher_usd_per_1000 is not None:
            return self.terms.teacher_usd_per_1000 / 1000
        if self.known is None:
            raise ConfigError(
                f"{self.run}: the ledger knows no price of this teacher's answers "
                f"({_teachers(self.job.config)}); give what 1,000 of them cost as --teacher-usd-per-1000"
            )
        return self.known[1]

    @cached_property
    def training_seconds(self) -> float:
        seconds = self.job.folder.cost(self.name)["train_seconds"]
        if seconds is None:
            raise RunFolderError(
                f"{self.run}: how long '{self.name}' was trained is not noted; train it again"
            )
        return seconds

    @cached_property
    def student_seconds(self) -> float | None:
        """For one request: of an export alone with it, else in the batches of the run's own evaluation."""
        if self.bundle:
            return float(self._proof["export"]["latency_ms"]["p50"]) / 1000
        record = self.job.folder.records().get(self.name)
        seconds = self.job.folder.cost(self.name)["predict_seconds"]
        return None if record is None or seconds is None else seconds / record.scorecard.n

    @property
    def coverage(self) -> float:
        if self.terms.coverage is not None:
            return self.terms.coverage
        threshold = self.bundle.settings.threshold if self.bundle else None
        if threshold is None:
            return 1.0
        points = [(float(row["threshold"]), float(row["coverage"])) for row in self._proof["coverage"]]
        # Between two thresholds of the curve the higher one, which leaves more to the teacher.
        return min((point for point in points if point[0] >= threshold), default=(1.0, 0.0))[1]

    @cached_property
    def _proof(self) -> Any:
        assert self.terms.bundle is not None
        return read_object(self.terms.bundle / PROOF)

    @property
    def notes(self) -> tuple[str, ...]:
        said = []
        if self.learns and not self.known:
            said.append(
                f"the ledger knows no price of this teacher's answers ({_teachers(self.job.config)}): the "
                f"{self.answers:,} answers for training are counted at the price given"
            )
        if any(one.backend == "openai-batch" for one in self.job.config.asked) and self.known:
            said.append(
                "the ledger's prices are those of batch jobs; answers at once usually cost twice as much"
            )
        if not self.terms.machine_usd_per_hour:
            said.append("the machine's time is not counted; give its price as --machine-usd-per-hour")
        if not self.learns:
            said.append("this student learns of gold labels alone; what these cost is not known")
        return tuple(said)


def _check(terms: Terms) -> None:
    for name, value in (
        ("--machine-usd-per-hour", terms.machine_usd_per_hour),
        ("--teacher-usd-per-1000", terms.teacher_usd_per_1000 or 0.0),
    ):
        if not 0 <= value < math.inf:
            raise ConfigError(f"{name} {value:g}: give US dollars, 0 or more")
    if terms.coverage is not None and not 0 < terms.coverage <= 1:
        raise ConfigError(f"--coverage {terms.coverage:g}: give a share above 0 and at most 1, such as 0.8")
    if terms.bundle is not None and not is_bundle(terms.bundle):
        raise RunFolderError(f"{terms.bundle}: is no export: there is no {MANIFEST}")


def _teachers(config: RunConfig) -> str:
    return ", ".join(dict.fromkeys(one.backend for one in config.asked))
