"""The parse report: what was read of the teacher's answers, by which rule, why not, and how often right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from stepdistill.records import Annotation, Example, Unparsed

SAMPLES = 3
"""Examples shown of each rule and each reason."""
SAMPLE_LENGTH = 200
"""Characters of a completion that an example shows."""


class ParseReport:
    """Counts row by row in memory that does not grow with the rows.

    The answers to one example, of several draws or teachers, are added one after another: an example
    is counted when its id differs from the one before.

    Args:
        same: whether two canonical labels are the same answer; `task.kind.same`.
    """

    def __init__(self, same: Callable[[str, str], bool]) -> None:
        self._same = same
        self._splits: dict[str, _Split] = {}

    def add(
        self, split: str, example: Example, text: str, read: Annotation | Unparsed, teacher: str = ""
    ) -> None:
        """Count one answer; `text` is the completion, of which the beginning is kept for a few."""
        whole = self._splits.setdefault(split, _Split())
        for part in (whole.all, whole.teachers.setdefault(teacher, _Part())):
            part.add(example, text, read, self._same)

    def hint(self, split: str, is_right: bool) -> None:
        """Count a hinted answer, and whether it led to the gold label; it is in no other count."""
        hinted = self._splits.setdefault(split, _Split()).hinted
        hinted["asked"] += 1
        hinted["right"] += is_right

    def skip(self, split: str) -> None:
        """Count an example that has no answer."""
        self._splits.setdefault(split, _Split()).all.skip()

    def plain(self) -> dict[str, Any]:
        """The report by split, for JSON.

        Each split has `examples`, `answers`, `read`, `unread` (reason to number) and `rules` (rule to
        number); `unread_examples` and `rule_examples` show some of each; `accuracy` gives `right` of
        `n` by rule, over the answers whose example has a gold label. Where teachers are named,
        `teachers` has the same for each, with the examples that it answered.
        """
        report = {}
        for split, whole in self._splits.items():
            report[split] = whole.all.plain()
            if whole.hinted:
                report[split]["hinted"] = dict(whole.hinted)
            if set(whole.teachers) - {""}:
                report[split]["teachers"] = {name: part.plain() for name, part in whole.teachers.items()}
        return report


@dataclass(slots=True)
class _Part:
    """Counts over some of the answers of one split."""

    examples: int = 0
    last: str | None = None
    unread: Counter[str] = field(default_factory=Counter)
    rules: Counter[str] = field(default_factory=Counter)
    judged: Counter[str] = field(default_factory=Counter)
    right: Counter[str] = field(default_factory=Counter)
    unread_examples: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    rule_examples: dict[str, list[dict[str, str]]] = field(default_factory=dict)

    def add(
        self, example: Example, text: str, read: Annotation | Unparsed, same: Callable[[str, str], bool]
    ) -> None:
        if example.id != self.last:
            self.examples += 1
            self.last = example.id
        sample = {"id": _writable(example.id), "text": _writable(text[:SAMPLE_LENGTH])}
        if isinstance(read, Unparsed):
            self.unread[read.reason] += 1
            _keep(self.unread_examples, read.reason, sample)
            return
        self.rules[read.rule] += 1
        _keep(self.rule_examples, read.rule, sample | {"label": read.label})
        if example.label is not None:
            self.judged[read.rule] += 1
            self.right[read.rule] += same(read.label, example.label)

    def skip(self) -> None:
        self.examples += 1
        self.last = None

    def plain(self) -> dict[str, Any]:
        n_read = sum(self.rules.values())
        return {
            "examples": self.examples,
            "answers": n_read + sum(self.unread.values()),
            "read": n_read,
            "unread": dict(self.unread.most_common()),
            "rules": dict(self.rules.most_common()),
            "unread_examples": {reason: list(kept) for reason, kept in self.unread_examples.items()},
            "rule_examples": {rule: list(kept) for rule, kept in self.rule_examples.items()},
            "accuracy": {rule: {"right": self.right[rule], "n": n} for rule, n in self.judged.most_common()},
        }


@dataclass(slots=True)
class _Split:
    all: _Part = field(default_factory=_Part)
    teachers: dict[str, _Part] = field(default_factory=dict)
    hinted: Counter[str] = field(default_factory=Counter)


def _keep(samples: dict[str, list[dict[str, str]]], name: str, sample: dict[str, str]) -> None:
    kept = samples.setdefault(name, [])
    if len(kept) < SAMPLES:
        kept.append(sample)


def _writable(text: str) -> str:
    """The text with lone surrogates spelt out: they have no UTF-8, and the report would be lost."""
    return text.encode("utf-8", "backslashreplace").decode()
