"""Who takes part in the search for the minimum: a grid's students, with the trials of method and target."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from stepdistill.config import StudentConfig, StudyConfig
from stepdistill.errors import ConfigError
from stepdistill.records import unwatched
from stepdistill.study.folder import TEACHER
from stepdistill.study.grid import Trial, arm_name
from stepdistill.study.job import Job

Key = TypeVar("Key")


@dataclass(frozen=True)
class Contestant:
    """One student: the method's trials by fraction and seed, and the target's on all the data by seed.

    `whole` is empty where the target is the teacher.
    """

    name: str
    trials: Mapping[tuple[float, int], Trial]
    whole: Mapping[int, Trial]

    @property
    def fractions(self) -> list[float]:
        """Those that the method is tried with, rising."""
        return sorted({fraction for fraction, _ in self.trials})

    def seeds(self, fraction: float) -> list[int]:
        """Those that the method is tried with at a fraction, in the grid's order."""
        return [seed for found, seed in self.trials if found == fraction]


def contestants(study: StudyConfig, found: Sequence[Trial]) -> list[Contestant]:
    """The students that the method is tried with among a study's trials, in the order of the grid.

    Writes nothing.

    Raises:
        ConfigError: the grid lacks the method or the target, varies more than students, fractions and
            seeds, or the target's answers cannot be had on the examples that decide.
    """
    wanted = study.minimum
    method = _arm(study, "method", wanted.method, found)
    mine = [trial for trial in found if trial.arm == method]
    theirs: list[Trial] = []
    if wanted.target != TEACHER:
        target = _arm(study, "target", wanted.target, found)
        if target == method:
            raise ConfigError(f"minimum: method and target are both '{target}'; compare it with another")
        theirs = [t for t in found if t.arm == target and t.axes["fraction"] == 1]
        if not theirs:
            raise ConfigError(
                f"minimum: the target is '{target}' on all the data, and the grid has no such trial; "
                "add 1 to grid.fractions"
            )
    _check_task(mine)
    _check_answers(study, mine[0])
    made = [_contestant(config, mine, theirs) for config in _students(mine)]
    names = [one.name for one in made]
    made = [replace(one, name=_told_apart(names, place)) for place, one in enumerate(made)]
    if theirs:
        for one in made:
            _check_seeds(one, made, wanted.target)
    return made


def _arm(study: StudyConfig, key: str, name: str, found: Iterable[Trial]) -> str:
    arm = arm_name(study, name)
    if not any(trial.arm == arm for trial in found):
        raise ConfigError(f"minimum.{key}: no trial of '{name}' in the study; add it to grid.methods")
    return arm


def _told_apart(names: Sequence[str], place: int) -> str:
    """A name, numbered where an earlier student has it too."""
    before = names[:place].count(names[place])
    return f"{names[place]} ({before + 1})" if before else names[place]


def _check_task(mine: Sequence[Trial]) -> None:
    tasks = sorted({trial.axes["task"] for trial in mine})
    if len(tasks) > 1:
        raise ConfigError(
            f"minimum: the grid has {len(tasks)} tasks ({', '.join(tasks)}), and one is searched at a time; "
            "give one in grid.tasks, and another `out` for each"
        )


def _check_answers(study: StudyConfig, trial: Trial) -> None:
    """Whether there are validation examples, and the teacher's answers where it is the target."""
    on, target = study.minimum.on, study.minimum.target
    splits = trial.config.annotate.splits
    if on == "validation" and not Job(trial.config, unwatched).streams.get("validation"):
        raise ConfigError(
            f"minimum: {trial.axes['task']} has no validation examples to choose by; name a validation split "
            "in the task file, or give minimum.on: test"
        )
    missing = [split for split in dict.fromkeys((on, "test")) if split not in splits]
    if target == TEACHER and missing:
        raise ConfigError(
            f"minimum: the teacher is the target and is not asked on {' and '.join(missing)}; set "
            "run.annotate.splits: [train, validation, test]"
            + (", or give minimum.on: test" if missing == ["validation"] else "")
        )


def _check_seeds(one: Contestant, others: Sequence[Contestant], target: str) -> None:
    """Whether method and target share a seed, whichever student turns out to be the largest."""
    for other in others:
        for fraction in one.fractions:
            if not other.whole.keys() & set(one.seeds(fraction)):
                raise ConfigError(
                    f"minimum: '{target}' on all the data with {other.name}, the target if it is the largest "
                    f"student, lacks the seeds that {one.name} has with {fraction:g} of the data; add them"
                )


def _students(mine: Sequence[Trial]) -> list[StudentConfig]:
    found: list[StudentConfig] = []
    for trial in mine:
        if trial.config.student not in found:
            found.append(trial.config.student)
    return found


def _contestant(config: StudentConfig, mine: Sequence[Trial], theirs: Sequence[Trial]) -> Contestant:
    of_method = [trial for trial in mine if trial.config.student == config]
    placed: dict[tuple[float, int], Trial] = {}
    for trial in of_method:
        _place(placed, (trial.axes["fraction"], trial.config.seed), trial)
    whole: dict[int, Trial] = {}
    for trial in theirs:
        if trial.config.student == config:
            _place(whole, trial.config.seed, trial)
    return Contestant(of_method[0].axes["student"], placed, whole)


def _place(placed: dict[Key, Trial], key: Key, trial: Trial) -> None:
    """Put a trial in its place, which no other may have."""
    other = placed.setdefault(key, trial)
    if other is trial:
        return
    first, second = other.config.identity(), trial.config.identity()
    differing = [name for name in sorted({*first, *second}) if first.get(name) != second.get(name)]
    raise ConfigError(
        f"minimum: the grid varies {differing[0]} for '{trial.arm}' "
        f"({first.get(differing[0])!r}, {second.get(differing[0])!r}); the search goes along students, "
        "fractions and seeds alone, so give one value"
    )
