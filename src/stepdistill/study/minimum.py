"""The least data, and the smallest student, with which a method reaches a target at a stated confidence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

from stepdistill.config import StudyConfig
from stepdistill.errors import RunFolderError, TeacherError
from stepdistill.files import write_json
from stepdistill.study.certificate import (
    Certificate,
    ProbeRecord,
    Says,
    StudentVerdict,
    TestReading,
    Verdict,
    Wording,
    percent,
)
from stepdistill.study.contestants import Contestant
from stepdistill.study.folder import TEACHER, RunFolder
from stepdistill.study.grid import Trial
from stepdistill.study.looks import Probe, Rule, answer, bisect, look, planned_probes, probe, split
from stepdistill.study.seen import Seen, look_back
from stepdistill.study.trial import Measured, is_done, read_outcome
from stepdistill.study.validation import read_validation

MINIMUM = "minimum.json"
"""The certificate in a study's folder."""
RunTrials = Callable[[Sequence[Trial], Measured], None]
"""Brings trials to their end: `write_trial(trial, measure=measure)`, then runs those that are not yet
`is_done(trial.folder, measure)`. What fails is an outcome in its folder, as in a study."""


def find(study: StudyConfig, run_trials: RunTrials, given: Sequence[Contestant]) -> Certificate:
    """Search for the least with which `minimum.method` reaches `minimum.target`; write `OUT/minimum.json`.

    For each student: the largest fraction first; if it reaches the target, bisection over the others
    (`looks.bisect`), seeds one after another until a look decides. The confidence is split over all looks
    that the search can need, for all students (Bonferroni). With `minimum.on: validation` the looks are
    at validation, and test is read once, for the recipes that were chosen and their target; with `test`
    all looks are at test. Finished trials are never repeated, and students must be kept meanwhile.
    `given` are the `contestants` of the study, which refuses what does not fit before anything is run.

    Raises:
        RunFolderError: a trial failed, or has not come to its end.
        TeacherError: the teacher is the target and has not answered all the examples that decide.
    """
    every = [trial for one in given for trial in (*one.trials.values(), *one.whole.values())]
    seen = look_back(study, every)
    search = _Search(study, run_trials, given, seen.reading(every) if study.minimum.on == "test" else seen)
    found = search.verdicts()
    certificate = search.certificate(search.tested(found))
    write_json(Path(study.out).expanduser() / MINIMUM, asdict(certificate))
    return certificate


@dataclass(frozen=True)
class _Search:
    """One search; `looked` keeps which trials each probe has looked at."""

    study: StudyConfig
    run_trials: RunTrials
    given: Sequence[Contestant]
    seen: Seen
    looked: dict[tuple[str, float], list[Trial]] = field(default_factory=dict)

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Number of parameters of each student, known when the first trial of each has ended."""
        first = [one.trials[one.fractions[-1], one.seeds(one.fractions[-1])[0]] for one in self.given]
        self._run(first, self.study.minimum.on)
        return {
            one.name: int(RunFolder(trial.folder).card(trial.arm)["parameters"])
            for one, trial in zip(self.given, first, strict=True)
        }

    @cached_property
    def ordered(self) -> list[Contestant]:
        """The students, smallest first."""
        return sorted(self.given, key=lambda one: self.sizes[one.name])

    @cached_property
    def seeds(self) -> int:
        """The most seeds of any recipe."""
        return max(len(one.seeds(fraction)) for one in self.given for fraction in one.fractions)

    @cached_property
    def planned(self) -> int:
        """The most looks that all students can need."""
        return self.seeds * sum(planned_probes(len(one.fractions)) for one in self.given)

    @cached_property
    def rule(self) -> Rule:
        """When a look decides."""
        wanted = self.study.minimum
        return Rule(wanted.margin, split(wanted.confidence, self.planned), alone=self.seeds == 1)

    @property
    def target_student(self) -> str | None:
        """Who is the target on all the data: the largest student, or None where it is the teacher."""
        return None if self.study.minimum.target == TEACHER else self.ordered[-1].name

    def verdicts(self) -> list[StudentVerdict]:
        """What is found for each student, smallest first."""
        return [self._verdict(one) for one in self.ordered]

    def tested(self, found: Sequence[StudentVerdict]) -> list[StudentVerdict]:
        """With the one reading of test for each recipe that validation has chosen."""
        if self.study.minimum.on == "test":
            return list(found)
        seen = self.seen
        for one, verdict in zip(self.ordered, found, strict=True):
            if verdict.fraction is not None:
                seen = seen.reading(self._to_read(one, verdict.fraction))
        confidence = split(self.study.minimum.confidence, len(self.given))
        pairs = zip(self.ordered, found, strict=True)
        return [
            replace(verdict, test=self._read_test(one, verdict.fraction, confidence))
            if verdict.fraction is not None
            else verdict
            for one, verdict in pairs
        ]

    def certificate(self, found: Sequence[StudentVerdict]) -> Certificate:
        """All of it, with its sentences."""
        wanted, level = self.study.minimum, self.rule.confidence
        target, before = self.target_student, self.seen.before
        words = Wording(
            wanted.method, wanted.target, target, wanted.margin, wanted.on, level, once=not before
        )
        return Certificate(
            sentences=tuple(map(words.sentence, found)),
            notes=self._notes(found),
            task=str(next(iter(self.given[0].trials.values())).axes["task"]),
            method=wanted.method,
            target=wanted.target,
            target_student=target,
            margin=wanted.margin,
            confidence=wanted.confidence,
            on=wanted.on,
            look_confidence=level,
            planned_looks=self.planned,
            looks=sum(len(probe.looks) for one in found for probe in one.probes),
            seeds=self.seeds,
            read_before=before,
            students=tuple(found),
        )

    def _verdict(self, one: Contestant) -> StudentVerdict:
        ask = partial(self._ask, one)
        probes = bisect(one.fractions, lambda f: probe(ask, f, self._seeds(one, f), self.rule))
        reached = answer(probes)
        deciding = reached or probes[0]
        records = [self._record(one, found) for found in probes]
        trials = self.looked[one.name, deciding.fraction]
        mine = [self._outcomes(trial, self.study.minimum.on) for trial in trials]
        theirs = [self._target(trial, self.study.minimum.on) for trial in trials]
        decided: Verdict = "undecided" if probes[0].decision == "undecided" else "not reached"
        return StudentVerdict(
            student=one.name,
            parameters=self.sizes[one.name],
            verdict="reached" if reached else decided,
            fraction=reached.fraction if reached else None,
            n_train=next((r.n_train for r in records if reached and r.fraction == reached.fraction), None),
            accuracy=_accuracy(mine),
            target_accuracy=_accuracy(theirs),
            n=len(mine[0]),
            probes=tuple(records),
            inferred=_inferred(one.fractions, probes),
        )

    def _seeds(self, one: Contestant, fraction: float) -> list[int]:
        """Seeds of a recipe; where the target is a method, those that it has too."""
        bar = self.ordered[-1].whole
        return [seed for seed in one.seeds(fraction) if not bar or seed in bar]

    def _ask(self, one: Contestant, fraction: float, seed: int) -> tuple[str, str]:
        trial, on = one.trials[fraction, seed], self.study.minimum.on
        bar = self.ordered[-1].whole
        self._run([trial, *([bar[seed]] if bar else [])], on)
        looked = self.looked.setdefault((one.name, fraction), [])
        if trial not in looked:
            looked.append(trial)
        return self._outcomes(trial, on), self._target(trial, on)

    def _record(self, one: Contestant, found: Probe) -> ProbeRecord:
        trials = self.looked[one.name, found.fraction]
        n_train = int(RunFolder(trials[0].folder).card(trials[0].arm)["n_train"])
        names = tuple(trial.name for trial in trials)
        return ProbeRecord(found.fraction, n_train, found.decision, found.looks, names)

    def _to_read(self, one: Contestant, fraction: float) -> list[Trial]:
        """The trials that the reading of test for a chosen recipe needs."""
        trials, bar = self.looked[one.name, fraction], self.ordered[-1].whole
        return [*trials, *(bar[trial.config.seed] for trial in trials if bar)]

    def _read_test(self, one: Contestant, fraction: float, confidence: float) -> TestReading:
        trials = self.looked[one.name, fraction]
        self._run(self._to_read(one, fraction), "test")
        mine = [self._outcomes(trial, "test") for trial in trials]
        theirs = [self._target(trial, "test") for trial in trials]
        found, margin = look(mine, theirs, confidence), self.study.minimum.margin
        says: Says = "confirms" if found.low >= -margin else "leaves open"
        if found.high < -margin:
            says = "contradicts"
        return TestReading(found, len(mine[0]), confidence, _accuracy(mine), _accuracy(theirs), says)

    def _target(self, trial: Trial, on: Measured) -> str:
        """The target's outcomes on the examples of a trial, under its seed."""
        bar = self.ordered[-1].whole
        if bar:
            return self._outcomes(bar[trial.config.seed], on)
        if on == "validation":
            found = read_validation(trial.folder).teacher
        else:
            record = RunFolder(trial.folder).records().get(TEACHER)
            found = record.scorecard.outcomes if record else None
        if found is None:
            raise TeacherError(
                f"{trial.folder}: the teacher is the target and has not answered all {on} examples; give "
                f"its answers on {on}"
            )
        return found

    @staticmethod
    def _outcomes(trial: Trial, on: Measured) -> str:
        if on == "validation":
            return read_validation(trial.folder).outcomes
        return RunFolder(trial.folder).records()[trial.arm].scorecard.outcomes

    def _run(self, trials: Sequence[Trial], measure: Measured) -> None:
        waiting = [trial for trial in trials if not is_done(trial.folder, measure)]
        if waiting:
            self.run_trials(waiting, measure)
        for trial in waiting:
            if is_done(trial.folder, measure):
                continue
            outcome = read_outcome(trial.folder)
            why = outcome.error if outcome and outcome.error else "has not come to its end"
            raise RunFolderError(f"{trial.folder}: {why}; mend it, then run the same command again")

    def _notes(self, found: Sequence[StudentVerdict]) -> tuple[str, ...]:
        wanted = self.study.minimum
        notes = [
            f"At most {self.planned} looks were planned, so each interval is at "
            f"{percent(self.rule.confidence, 2)}: together they hold with {percent(wanted.confidence)}."
        ]
        if wanted.on == "test":
            notes.append("Every look was at test: no examples are left that did not choose the recipe.")
        else:
            notes.append(self._reading(any(one.test for one in found)))
            notes.append(
                "Each student's checkpoint was chosen on validation too"
                + (", which flatters it beside the teacher." if wanted.target == TEACHER else ".")
            )
        if self.seeds == 1:
            notes.append("One seed: nothing is said of other seeds.")
        return tuple(notes)

    def _reading(self, chosen: bool) -> str:
        """How test was read, where validation chose."""
        if before := len(self.seen.before):
            every = {t.name for one in self.given for t in (*one.trials.values(), *one.whole.values())}
            return (
                f"Validation chose, but test had been read for {before} of these {len(every)} trials before "
                "the search: who has seen those results may have set the search by them."
            )
        if not chosen:
            return "Nothing was chosen, so test was not read."
        return "Validation chose; test was read for what it chose alone, once."


def _accuracy(outcomes: Sequence[str]) -> float:
    return sum(text.count("1") / len(text) for text in outcomes) / len(outcomes)


def _inferred(fractions: Sequence[float], probes: Sequence[Probe]) -> dict[str, Verdict]:
    """What follows for fractions that were not probed, if accuracy does not fall with more data."""
    measured, reached = {found.fraction for found in probes}, answer(probes)
    below: Verdict = "undecided" if not reached and probes[0].decision == "undecided" else "not reached"
    return {
        f"{fraction:g}": "reached" if reached and fraction > reached.fraction else below
        for fraction in fractions
        if fraction not in measured
    }
