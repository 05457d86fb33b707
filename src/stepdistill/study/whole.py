"""A whole study: its folder, its trials, and what they have shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from stepdistill.config import StudyConfig
from stepdistill.errors import RunFolderError
from stepdistill.files import write_json, write_text
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


def check_study(study: StudyConfig) -> list[Trial]:
    """The trials of a study, when all that can be checked without its folder is right.

    Raises:
        StepdistillError: of any kind; nothing has been written.
    """
    found = trials(study)
    for name in (study.method, study.against):
        if name != TEACHER:
            arm_name(study, name)
    return found


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


def gathered(folder: Path, found: Sequence[Trial]) -> list[ResultRow]:
    """The results so far, written to `results.jsonl`; none where no trial is finished."""
    if any(is_done(trial.folder) for trial in found):
        return write_gathered(folder)
    # Those of an earlier state of the study are none of this one.
    (folder / RESULTS).unlink(missing_ok=True)
    return []
