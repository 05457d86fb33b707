"""What of test had been read before a search for the minimum: it says so, as it cannot be undone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stepdistill.config import StudyConfig
from stepdistill.errors import DataError
from stepdistill.files import digest, read_text, write_json
from stepdistill.study.folder import RunFolder
from stepdistill.study.grid import Trial

FILE = "minimum_reads.json"
"""In a study's folder: which search goes on there, and what it has read of test itself."""


@dataclass(frozen=True)
class Seen:
    """What one search knows of readings of test; it survives an interruption.

    Attributes:
        question: hash of what is searched for, and among which trials.
        before: names of trials whose test had been read when the search began, or was read beside it.
        own: names of trials whose test the search itself has read, or is about to.
    """

    path: Path
    question: str
    before: tuple[str, ...]
    own: tuple[str, ...]

    def reading(self, trials: Sequence[Trial]) -> Seen:
        """Note, before it is done, that the search reads test for some trials."""
        own = tuple(sorted({*self.own, *(trial.name for trial in trials)}))
        return self._written(Seen(self.path, self.question, self.before, own))

    @staticmethod
    def _written(seen: Seen) -> Seen:
        write_json(seen.path, {"question": seen.question, "before": seen.before, "own": seen.own})
        return seen


def look_back(study: StudyConfig, trials: Sequence[Trial]) -> Seen:
    """What had been read before a search among some trials; one that was interrupted goes on.

    Another question, as another margin, is another search: what the one before it has read counts.

    Raises:
        DataError: the file is damaged.
    """
    path = Path(study.out).expanduser() / FILE
    asked = study.minimum.model_dump_json()
    question = digest(asked, *sorted({trial.key for trial in trials}))
    before, own = _known(path, question)
    read = {trial.name for trial in trials if _times(trial) > (trial.name in own)}
    return Seen._written(Seen(path, question, tuple(sorted({*before, *read})), tuple(sorted(own))))


def _known(path: Path, question: str) -> tuple[set[str], set[str]]:
    """What an earlier call of the same search has noted."""
    if not path.exists():
        return set(), set()
    try:
        values = json.loads(read_text(path))
        if values["question"] != question:
            return set(), set()
        return set(values["before"]), set(values["own"])
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path}: damaged ({error}); delete it, and all that was read counts") from None


def _times(trial: Trial) -> int:
    """How often test has been read for a trial, as far as its folder says."""
    record = RunFolder(trial.folder).records().get(trial.arm)
    return 0 if record is None else 1 + record.reopened
