"""The run folder: which file is where, whose run it holds, how long things took."""

from __future__ import annotations

import contextlib
import json
import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from stepdistill.config import RunConfig
from stepdistill.errors import RunFolderError, brief
from stepdistill.files import digest, read_jsonl, read_object, read_text, replace_rows, write_json, write_text
from stepdistill.records import RunRecord, Scorecard
from stepdistill.student.card import CARD
from stepdistill.student.methods import ARMS
from stepdistill.task.schema import TaskSpec

TEACHER = "teacher"
"""Name of the teacher among the predictors."""
ORDER = (TEACHER, *ARMS)
"""Predictors in the order of their lines in the run's files."""
TRIAL_FILES = ("trial.yaml", "outcome.json", "log.txt")
"""What stands in a trial's folder before its run begins."""
_TRAINING = ("student.", "train.", "(weights")
"""Keys on which the teacher's answers do not depend."""
_READING = ("annotate.", "(task file)")
"""Keys that say how stored answers are read; `annotate --reparse` reads them anew."""


@dataclass(frozen=True)
class RunFolder:
    """Files of one run below one path."""

    path: Path

    @property
    def mark(self) -> Path:
        """What the folder's run is of: its identity, and hashes of what it reads."""
        return self.path / "run.json"

    @property
    def annotations(self) -> Path:
        """What was read of the teacher's answers, with their words."""
        return self.path / "annotations.jsonl"

    @property
    def left_out(self) -> Path:
        """Rows of the annotations on which nothing is trained, with the reason."""
        return self.path / "left_out.jsonl"

    @property
    def parse_report(self) -> Path:
        """How the teacher's answers were read."""
        return self.path / "parse_report.json"

    @property
    def predictions(self) -> Path:
        """Every answer of every predictor on the test split."""
        return self.path / "predictions.jsonl"

    @property
    def results(self) -> Path:
        """One line for each predictor."""
        return self.path / "results.jsonl"

    @property
    def metrics(self) -> Path:
        """One line for each predictor: scores beside accuracy."""
        return self.path / "metrics.jsonl"

    @property
    def explanations(self) -> Path:
        """The rationales of every predictor that writes any, for the first test examples."""
        return self.path / "explanations.jsonl"

    @property
    def test(self) -> Path:
        """The test examples, with the columns that results are sliced by."""
        return self.path / "test.jsonl"

    @property
    def timings(self) -> Path:
        """Seconds and peak memory of each stage; not part of the results."""
        return self.path / "timings.json"

    def student(self, name: str) -> Path:
        """Folder of a trained student; it is there only when training has ended."""
        return self.path / "students" / name

    def has_students(self) -> bool:
        """Whether something is trained, or was begun."""
        return any((self.path / "students").glob("*/*"))

    def students(self) -> list[str]:
        """Names of the trained students."""
        found = self.path.glob(f"students/*/{CARD}")
        return sorted(card.parent.name for card in found if not card.parent.name.startswith("."))

    def card(self, name: str) -> dict[str, Any]:
        """What `student.json` says of a student.

        Raises:
            DataError: it is not there, or damaged.
        """
        return read_object(self.student(name) / CARD)

    def claim(
        self, config: RunConfig, task: TaskSpec, sources: Mapping[str, str], anew: bool = False
    ) -> None:
        """Take the folder for this run, or find that it is this run's already.

        Args:
            config: what the run is to do.
            task: the task file.
            sources: hashes of what is read (data, completions, weights) by name.
            anew: the answers are going to be read anew: annotations that were read in another way
                are deleted, and can be made again from the ledger.

        Raises:
            RunFolderError: it holds a run of another configuration, task or data, or other files.
        """
        wanted = {
            **config.identity(),
            "(task file)": digest(task.model_dump_json()),
            **{f"({name})": found for name, found in sources.items()},
        }
        mark = self.mark
        if mark.exists():
            for torn in self.path.glob(".*.tmp"):
                torn.unlink()
            self._compare(read_object(mark), wanted, anew)
        elif any(not p.name.startswith(".") and p.name not in TRIAL_FILES for p in self.path.glob("*")):
            raise RunFolderError(f"{self.path}: the folder holds files and no run; choose another `out`")
        # The mark first: a folder with files and no mark is taken for somebody else's.
        write_json(mark, wanted)
        self._note(config)

    def _note(self, config: RunConfig) -> None:
        write_text(self.path / "config.yaml", yaml.safe_dump(config.plain(), sort_keys=False))

    def _compare(self, there: dict[str, Any], wanted: dict[str, Any], anew: bool) -> None:
        keys = [k for k in sorted({*there, *wanted}) if there.get(k) != wanted.get(k)]
        reading = False
        if not self.has_students():
            # Nothing is trained yet, so nothing is lost when the training of the same answers is set right.
            keys = [k for k in keys if self.annotations.exists() and not k.startswith(_TRAINING)]
            reading = all(k.startswith(_READING) for k in keys)
            if anew and keys and reading:
                # Before the new mark is written: were reading to fail, they would pass for the new run's.
                self.annotations.unlink()
                return
        if keys:
            first = keys[0]
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            again = ", or read the stored answers anew with `annotate --reparse`" if reading else ""
            raise RunFolderError(
                f"{self.path}: holds a run of another configuration ({first} is "
                f"{brief(there.get(first))} there and {brief(wanted.get(first))} here{more}); choose "
                f"another `out`, or delete the folder{again}"
            )

    def records(self) -> dict[str, RunRecord]:
        """The results so far by name."""
        rows = read_jsonl(self.results) if self.results.exists() else []
        return {row["name"]: RunRecord(**{**row, "scorecard": Scorecard(**row["scorecard"])}) for row in rows}

    def add(self, record: RunRecord, predictions: Sequence[Mapping[str, Any]]) -> None:
        """Put a predictor's answers and then its record into their files."""
        replace_rows(self.predictions, record.name, predictions, ORDER)
        replace_rows(self.results, record.name, [asdict(record)], ORDER)

    @contextlib.contextmanager
    def clock(self, what: str, note: bool = True) -> Iterator[None]:
        """Note seconds and the process's peak memory of a stage that ends well; `note` False: do not."""
        start = time.monotonic()
        yield
        if not note:
            return
        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        seconds = time.monotonic() - start
        noted = {"seconds": round(seconds, 1), "peak_memory_mb": round(peak / 1e6)}
        write_json(self.timings, {**self.times(), what: noted})

    def cost(self, name: str) -> dict[str, float | None]:
        """Seconds of training (over all sessions) and of prediction, and peak memory, of a student."""
        times, path = self.times(), self.student(name) / "seconds.json"
        train, predict = times.get(f"train {name}", {}), times.get(f"predict {name}", {})
        return {
            "train_seconds": json.loads(read_text(path)) if path.exists() else None,
            "predict_seconds": predict.get("seconds"),
            "peak_memory_mb": train.get("peak_memory_mb"),
        }

    def times(self) -> dict[str, dict[str, float]]:
        """What `clock` has noted."""
        return read_object(self.timings) if self.timings.exists() else {}
