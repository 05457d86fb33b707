"""What is said of a run's predictions beside accuracy: all of it is made again without reading test."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from stepdistill.config import RunConfig
from stepdistill.evaluate.calibration import ece, reliability
from stepdistill.evaluate.metrics import closed_scores, slices
from stepdistill.evaluate.rationales import Explained, rationale_scores, read_label
from stepdistill.files import digest, read_jsonl, replace_rows, write_jsonl
from stepdistill.records import Example, RunRecord
from stepdistill.student.methods import find_arm
from stepdistill.study.folder import ORDER, TEACHER, RunFolder
from stepdistill.task.columns import read_columns
from stepdistill.task.load import Task

Row = dict[str, Any]

FORMAT = "1"
"""Of `metrics.jsonl`; lines of another one are made anew."""
DIGITS = 6
"""Of a probability in `predictions.jsonl`."""


@dataclass(frozen=True)
class Measures:
    """The files `metrics.jsonl`, `explanations.jsonl` and `test.jsonl` of one run folder.

    They are functions of the predictions, the data and the students that are there.
    """

    folder: RunFolder
    task: Task
    config: RunConfig
    test: Sequence[Example]

    @cached_property
    def columns(self) -> dict[str, dict[str, Any]]:
        """The columns to slice by, by example id.

        Raises:
            ConfigError: there is no such column.
        """
        names, ids = self.config.evaluate.slices, [example.id for example in self.test]
        return read_columns(self.task, self.config.data, "test", names, ids)

    @property
    def explained(self) -> Sequence[Example]:
        """The examples whose rationales are written."""
        return self.test[: self.config.evaluate.explain]

    def is_explained(self, name: str) -> bool:
        """Whether the rationales of a predictor stand there, those that are wanted and no others."""
        found = [row["example_id"] for row in self._explanations if row["name"] == name]
        return found == [example.id for example in self.explained]

    def explain(self, name: str, rationales: Iterable[str | None]) -> None:
        """Put a predictor's rationales of the `explained` examples into their file."""
        rows = [
            {
                "name": name,
                "example_id": example.id,
                "rationale": rationale,
                "read": read_label(self.task.kind, rationale, example.options) if self._closed else None,
            }
            for example, rationale in zip(self.explained, rationales, strict=True)
        ]
        replace_rows(self.folder.explanations, name, rows, ORDER)

    def write(self, records: Mapping[str, RunRecord]) -> None:
        """Write all that is not there yet, or not as the run file wants it."""
        self._write_test()
        answers = self._answers(records)
        for name in records:
            # What was written with the answer, or by the teacher, is no work to take.
            if self._writes_anyway(name):
                self._take(name, [row["rationale"] for row in answers[name]])
        if not self.folder.explanations.exists():
            write_jsonl(self.folder.explanations, [])
        before = {row["name"]: row for row in self._rows(self.folder.metrics)}
        after = [self._metrics(record, answers[name], before.get(name)) for name, record in records.items()]
        if after != list(before.values()):
            write_jsonl(self.folder.metrics, after)

    def _writes_anyway(self, name: str) -> bool:
        if name == TEACHER:
            return True
        form = find_arm(name, self.config.train.rationales).method.form
        given = self.config.train.test_rationales == "teacher"
        return form == "rationale-first" or (form == "rationale-input" and not given)

    def _take(self, name: str, rationales: Sequence[str | None]) -> None:
        wanted = list(rationales[: self.config.evaluate.explain])
        found = [row["rationale"] for row in self._explanations if row["name"] == name]
        if found != wanted:
            self.explain(name, wanted)

    def _write_test(self) -> None:
        names = list(self.config.evaluate.slices)
        if self.folder.test.exists():
            first = next(iter(self._rows(self.folder.test)), None)
            if first is not None and list(first["columns"]) == names:
                return
        write_jsonl(self.folder.test, map(self._example, self.test))

    def _example(self, example: Example) -> Row:
        return {
            "example_id": example.id,
            "text": example.text,
            "gold": example.label,
            "options": list(example.options),
            "rationale": example.rationale,
            "columns": self.columns[example.id],
        }

    def _answers(self, records: Iterable[str]) -> dict[str, list[Row]]:
        found: dict[str, list[Row]] = {name: [] for name in records}
        for row in self._rows(self.folder.predictions):
            if row["name"] in found:
                found[row["name"]].append(row)
        return found

    def _metrics(self, record: RunRecord, answers: Sequence[Row], before: Row | None) -> Row:
        """A predictor's line; the one that is there, where it was made of the same."""
        explanations = [row for row in self._explanations if row["name"] == record.name]
        wanted = list(self.config.evaluate.slices)
        source = digest(FORMAT, *(json.dumps(part) for part in (answers, explanations, wanted)))
        noted = before and (before.get("rationale") or {}).get("chrf_note")
        if before and before.get("source") == source and not noted:
            return before
        golden = [row for row in answers if row["gold"] is not None]
        outcomes, card = record.scorecard.outcomes, record.scorecard
        return {
            "name": record.name,
            "n": card.n,
            "accuracy": card.value,
            **self._closed_set(golden),
            "unread_share": card.unread / card.n,
            **self._calibration(golden, outcomes),
            "rationale": self._rationale(explanations, answers),
            "slices": {
                name: slices([self.columns[row["example_id"]][name] for row in golden], outcomes)
                for name in self.config.evaluate.slices
            },
            "source": source,
        }

    def _closed_set(self, golden: Sequence[Row]) -> Row:
        labels = self.task.spec.answer.labels
        if not labels:
            return {"macro_f1": None, "per_class": None, "confusion": None}
        found = closed_scores(labels, [row["gold"] for row in golden], [row["label"] for row in golden])
        confusion = {"labels": list(labels), "matrix": found.matrix}
        return {"macro_f1": found.macro_f1, "per_class": found.per_class, "confusion": confusion}

    def _calibration(self, golden: Sequence[Row], outcomes: str) -> Row:
        """Of the answers that could be read: an answer that names no label has no confidence."""
        labels = self.task.spec.answer.labels
        pairs = [
            (row["probabilities"][labels.index(row["label"])], outcome == "1")
            for row, outcome in zip(golden, outcomes, strict=True)
            if row.get("probabilities") and row["label"] is not None
        ]
        if not pairs:
            return {"ece": None, "reliability": None}
        bins = reliability([sure for sure, _ in pairs], [right for _, right in pairs])
        return {"ece": ece(bins), "reliability": [asdict(one) for one in bins]}

    def _rationale(self, explanations: Sequence[Row], answers: Sequence[Row]) -> Row | None:
        labels = {row["example_id"]: row["label"] for row in answers}
        human = {example.id: example.rationale for example in self.explained}
        given = [
            Explained(row["rationale"] or "", labels[id_], row["read"], human[id_])
            for row in explanations
            if (id_ := row["example_id"]) in labels
        ]
        found = rationale_scores(self.task.kind, given, self._closed)
        return None if found is None else asdict(found)

    @property
    def _closed(self) -> bool:
        # Out of free text any words could be read as the answer.
        return self.task.spec.answer.kind != "text"

    @property
    def _explanations(self) -> list[Row]:
        return self._rows(self.folder.explanations)

    @staticmethod
    def _rows(path: Any) -> list[Row]:
        return read_jsonl(path) if path.exists() else []


def prediction_row(name: str, gold: str | None, values: Mapping[str, Any]) -> Row:
    """A line of `predictions.jsonl`; probabilities are there, as null, also where nobody measured them."""
    shares = values["probabilities"]
    rounded = None if shares is None else [round(share, DIGITS) for share in shares]
    return {"name": name, "gold": gold, **values, "probabilities": rounded}
