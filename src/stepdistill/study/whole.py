"""A whole study: its folder, its trials, and what they have shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from stepdistill.config import StudyConfig
from stepdistill.errors import ConfigError, RunFolderError
from stepdistill.files import write_json, write_text
from stepdistill.study.checks import check_trials
from stepdistill.study.folder import TEACHER
from stepdistill.study.gather import INDEX, write_gathered
from stepdistill.study.grid import TRIALS, Trial, arm_name, trials
from stepdistill.study.results import RESULTS, ResultRow
from stepdistill.study.runner import Failure, Manner, run_trials
from stepdistill.study.trial import is_done, write_trial

STUDY = "study.yaml"


@dataclass(frozen=True)
class Finished:
    """What a study has come to; `rows` is empty where no trial is finished."""

    folder: Path
    trials: Sequence[Trial]
    failures: Sequence[Failure]
    rows: Sequence[ResultRow]


def check_study(study: StudyConfig, compared: bool = True) -> list[Trial]:
    """The trials of a study, when all that can be checked without its folder is right.

    Args:
        compared: whether the trials will be compared by their axes, so that no two may stand in one place.

    Raises:
        StepdistillError: of any kind; nothing has been written.
    """
    found = trials(study)
    check_trials(found)
    _check_sides(study, found)
    if compared:
        _check_places(found)
    return found


def with_sides(study: StudyConfig, found: Sequence[Trial]) -> tuple[StudyConfig, str | None]:
    """The study with `method` and `against` that its grid has, and what is to be said of it.

    What the file names stays. Where it names none and the grid lacks the usual one, the last arm is
    compared with the first, and an only arm with the teacher.

    Args:
        study: one that `check_study` has found right.
        found: its trials.

    Returns:
        The study, and a line for people where other than the usual arms were taken.
    """
    given, arms = study.model_fields_set, list(dict.fromkeys(trial.arm for trial in found))
    method, against = _arm(study, study.method), _arm(study, study.against)
    changed = {}
    others = [arm for arm in arms if "against" not in given or arm != against]
    if "method" not in given and method not in others and others:
        changed["method"] = method = others[-1]
    if "against" not in given and (against not in arms or method == against):
        changed["against"] = against = next((arm for arm in arms if arm != method), TEACHER)
    if not changed:
        return study, None
    unnamed = " and no ".join(f"`{key}`" for key in changed)
    note = f"the study file names no {unnamed}, so {method} is compared with {against}"
    return study.model_copy(update=changed), note


def open_study(study: StudyConfig, found: Sequence[Trial]) -> Path:
    """Take the study's folder, note what is studied, and make the folders of its trials.

    A study whose grid has changed keeps its folder: trials that are no part of it any more stay, and are
    left out of its results.

    Raises:
        RunFolderError: the folder holds something else.
    """
    folder = Path(study.out).expanduser()
    known = (folder / STUDY).exists() or (folder / TRIALS).is_dir()
    if not known and any(not path.name.startswith(".") for path in folder.glob("*")):
        raise RunFolderError(f"{folder}: the folder holds files and no study; choose another `out`")
    write_text(folder / STUDY, yaml.safe_dump(study.model_dump(mode="json", by_alias=True), sort_keys=False))
    write_json(folder / TRIALS / INDEX, [trial.name for trial in found])
    for trial in found:
        write_trial(trial, study.keep_students)
    return folder


def run_study(study: StudyConfig, found: Sequence[Trial], manner: Manner) -> Finished:
    """Run what is not done of a study that is open, and gather its results into `results.jsonl`.

    Raises:
        StepdistillError: of any kind but for what goes wrong in a trial, which is a `Failure`.
    """
    folder = Path(study.out).expanduser()
    failures = run_trials(found, manner)
    return Finished(folder, found, failures, gathered(folder, found))


def _check_sides(study: StudyConfig, found: Sequence[Trial]) -> None:
    """Whether a `method` and an `against` that the file names can be compared at all."""
    given, arms = study.model_fields_set, list(dict.fromkeys(trial.arm for trial in found))
    method, against = _arm(study, study.method), _arm(study, study.against)
    if "method" in given and method == TEACHER:
        raise ConfigError(f"method: '{TEACHER}' is asked and not trained; give it as `against`")
    for key, name in (("method", method), ("against", against)):
        if key in given and name not in (*arms, TEACHER):
            raise ConfigError(
                f"{key}: no trial of '{name}' in the study; give one of {', '.join(arms)}, or add it to "
                "grid.methods"
            )
    if given >= {"method", "against"} and method == against:
        raise ConfigError(f"method and against are both '{method}'; compare it with another, or with teacher")


def _check_places(found: Sequence[Trial]) -> None:
    """Whether every trial has a place of its own in the grid: two in one would be taken for two seeds."""
    placed: dict[str, Trial] = {}
    for trial in found:
        other = placed.setdefault(json.dumps(dict(trial.axes), sort_keys=True), trial)
        if other is trial:
            continue
        first, second = other.config.identity(), trial.config.identity()
        differing = [name for name in sorted({*first, *second}) if first.get(name) != second.get(name)]
        key = differing[0] if differing else "their data"
        raise ConfigError(
            f"grid: {other.name} and {trial.name} stand in the same place, as {key} differs and is no axis; "
            "study them one by one, each with an `out` of its own"
        )


def _arm(study: StudyConfig, name: str) -> str:
    return name if name == TEACHER else arm_name(study, name)


def gathered(folder: Path, found: Sequence[Trial]) -> list[ResultRow]:
    """The results so far, written to `results.jsonl`; none where no trial is finished."""
    if any(is_done(trial.folder) for trial in found):
        return write_gathered(folder)
    # Those of an earlier state of the study are none of this one.
    (folder / RESULTS).unlink(missing_ok=True)
    return []
