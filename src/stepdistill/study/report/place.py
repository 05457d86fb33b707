"""What lies in a study folder or a run folder, as far as the report needs it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from stepdistill.config.study import StudyConfig, load_study
from stepdistill.errors import DataError, RunFolderError
from stepdistill.files import iter_jsonl, read_text
from stepdistill.study.folder import RunFolder
from stepdistill.study.gather import INDEX, SINGLE
from stepdistill.study.grid import TRIALS
from stepdistill.study.trial import FILE, TrialOutcome, read_outcome
from stepdistill.study.whole import STUDY

Kind = TypeVar("Kind", dict[str, Any], list[str])
_TEACHER = re.compile(r"(teacher|teachers\.\d+)\.(backend|model|completions)")


@dataclass(frozen=True)
class Trial:
    """One run folder: a trial of a study, or the only one."""

    name: str
    path: Path

    @cached_property
    def outcome(self) -> TrialOutcome | None:
        """How the trial ended; None where it has not, and for a run that is no trial."""
        return read_outcome(self.path)

    @property
    def has_failed(self) -> bool:
        """Whether it ended with an error."""
        return self.outcome is not None and self.outcome.status == "failed"

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Its configuration, flat; of `run.json`, since YAML would take seconds for 200 trials."""
        return self.object("run.json")

    @property
    def task(self) -> str:
        """The task's name or file."""
        return str(self.settings.get("task") or "?")

    @property
    def teachers(self) -> list[dict[str, Any]]:
        """What is known of each teacher, by the last part of its keys."""
        found: dict[str, dict[str, Any]] = {}
        for key, value in self.settings.items():
            if hit := _TEACHER.match(key):
                found.setdefault(hit[1], {})[hit[2]] = value
        return list(found.values())

    def has(self, name: str) -> bool:
        """Whether a file is there."""
        return (self.path / name).exists()

    def rows(self, name: str) -> Iterator[dict[str, Any]]:
        """The lines of a file of JSON objects, one at a time; none where there is no such file."""
        path = self.path / name
        return iter_jsonl(path) if path.exists() else iter(())

    def object(self, name: str) -> dict[str, Any]:
        """A file that holds one JSON object; empty where there is no such file."""
        path = self.path / name
        return read_object(path) if path.exists() else {}


@dataclass(frozen=True)
class Place:
    """The folder that is reported on."""

    path: Path

    @property
    def is_study(self) -> bool:
        """Whether it is a study's and not a single run's."""
        return (self.path / TRIALS).is_dir() or (self.path / STUDY).exists()

    @cached_property
    def trials(self) -> dict[str, Trial]:
        """Trials of the grid as it is now, by name, finished or not; of a run, itself under the name `.`.

        Folders of trials of an earlier grid may lie beside them; they are no part of the study.

        Raises:
            DataError: the list of the trials is damaged.
        """
        if not self.is_study:
            return {SINGLE: Trial(SINGLE, self.path)}
        home = self.path / TRIALS
        if (home / INDEX).exists():
            names = _read(home / INDEX, list)
        else:
            names = sorted(path.parent.name for path in home.glob(f"*/{FILE}"))
        return {name: Trial(name, home / name) for name in names}

    @cached_property
    def study(self) -> StudyConfig | None:
        """The study's file; None for a run, or where there is none.

        Raises:
            ConfigError: it is damaged: whom it compares is not guessed.
        """
        path = self.path / STUDY
        return load_study(path) if path.exists() else None

    @property
    def failed(self) -> list[Trial]:
        """Trials that ended with an error."""
        return [trial for trial in self.trials.values() if trial.has_failed]

    @property
    def folders(self) -> list[Path]:
        """Folders of this machine that messages of the study may name."""
        return [self.path, self.path.absolute(), self.path.resolve(), Path.cwd(), Path.home()]

    def object(self, name: str) -> dict[str, Any]:
        """A file of the folder that holds one JSON object; empty where there is no such file."""
        path = self.path / name
        return read_object(path) if path.exists() else {}

    def text(self) -> str:
        """The file that says what was asked for: the study's or the run's."""
        path = self.path / (STUDY if self.is_study else "config.yaml")
        return read_text(path) if path.exists() else ""


def find_place(folder: Path) -> Place:
    """The folder, looked at.

    Raises:
        RunFolderError: there is no such folder, or nothing in it that could be reported.
    """
    if not folder.is_dir():
        what = "is a file; give its folder" if folder.exists() else "no such folder; check the path"
        raise RunFolderError(f"{folder}: {what}")
    place = Place(folder)
    files = RunFolder(folder)
    if not place.is_study and not files.results.exists():
        began = (folder / "run.json").exists()
        hint = (
            "its run has measured nothing yet; run it to its end"
            if began
            else ("give the `out` of `stepdistill run` or `stepdistill study`")
        )
        raise RunFolderError(f"{folder}: no results here; {hint}")
    return place


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object that a file holds.

    Raises:
        DataError: it holds something else.
    """
    return _read(path, dict)


def _read(path: Path, kind: type[Kind]) -> Kind:
    try:
        found = json.loads(read_text(path))
    except ValueError as error:
        raise DataError(f"{path}: malformed JSON ({error}); delete it and start again") from None
    if not isinstance(found, kind):
        what = "an object" if kind is dict else "a list"
        raise DataError(f"{path}: {what} is expected as JSON; delete it and start again")
    return found
