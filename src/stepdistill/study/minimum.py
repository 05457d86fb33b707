"""The least data, and the smallest student, with which a method reaches a target at a stated confidence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stepdistill.config import StudyConfig
from stepdistill.study.grid import Trial
from stepdistill.study.trial import Measured

MINIMUM = "minimum.json"
"""The certificate in a study's folder."""
RunTrials = Callable[[Sequence[Trial], Measured], None]
"""Brings trials to their end: `write_trial(trial, keep, measure)`, then runs those that are not yet
`is_done(trial.folder, measure)`. What fails is an outcome in its folder, as in a study."""


@dataclass(frozen=True)
class Certificate:
    """What was found, by which looks; `sentences` says it in words, one line a student."""

    sentences: tuple[str, ...]


def find(study: StudyConfig, run_trials: RunTrials) -> Certificate:
    """Search, and write `OUT/minimum.json`; students are kept until then (never `keep_students: False`).

    Raises:
        ConfigError: `minimum` and the grid do not fit; nothing has been run then.
        RunFolderError: a trial failed.
    """
    raise NotImplementedError
