"""Wrong answers of each method, beside what the teacher and the other methods said of the same input."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stepdistill.study.folder import TEACHER
from stepdistill.study.report import scan
from stepdistill.study.report.clean import shorten
from stepdistill.study.report.place import Place, Trial
from stepdistill.study.report.results import student_name
from stepdistill.study.results import ResultRow

SHOWN = 60
"""Examples of each method's wrong answers that are picked; those picked for others are shown, too."""
_LONGEST = 4000
"""Characters shown of one text."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one predictor said: `outcome` is `1` right, `0` wrong, `-` unread."""

    outcome: str
    text: str
    rationale: str = ""
    leads_to: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """A test example that some method got wrong, with the answers in the order of the group's predictors."""

    example_id: str
    text: str
    gold: str
    options: Sequence[str]
    rationale: str
    answers: Sequence[Answer]

    @property
    def outcomes(self) -> str:
        """One character a predictor."""
        return "".join(answer.outcome for answer in self.answers)


@dataclass(frozen=True)
class Group:
    """Predictors that were measured on the same test examples.

    Args:
        names: of the predictors, the teacher's first.
        sources: in which trial each was measured, in words.
        wrong: how many examples each got wrong.
        pairs: `pairs[a][b]` of them the other, b, got right.
        missing: what the folder does not hold, in words.
    """

    task: str
    names: Sequence[str]
    sources: Sequence[str]
    n: int
    wrong: Sequence[int]
    pairs: Sequence[Sequence[int]]
    cases: Sequence[Case]
    missing: Sequence[str] = ()

    @property
    def counts(self) -> dict[str, Any]:
        """What the page's script needs to say how many there are in all."""
        return {"names": list(self.names), "wrong": list(self.wrong), "pairs": [list(p) for p in self.pairs]}


def find_mistakes(place: Place, chosen: Sequence[ResultRow], shown: int = SHOWN) -> list[Group]:
    """The wrong answers of the chosen rows, grouped by task and test examples.

    Reads one trial's files for each chosen row, and of them keeps only the examples that are shown.
    """
    groups: dict[tuple[str, str, int], list[ResultRow]] = defaultdict(list)
    for row in chosen:
        groups[row.task, row.test, row.n].append(row)
    return [_group(place, rows, shown) for rows in groups.values()]


def _group(place: Place, rows: Sequence[ResultRow], shown: int) -> Group:
    outcomes = [row.outcomes for row in rows]
    places = _pick(rows, shown)
    found = _Found()
    for index, row in enumerate(rows):
        trial = place.trials.get(row.trial)
        if trial is not None:
            found.read(trial, index, row.name, places)
    known = sorted(found.examples)
    trials = [place.trials[row.trial] for row in rows if row.trial in place.trials]
    texts = _texts(trials, {found.examples[at][0] for at in known})
    cases = [_case(found, at, outcomes, texts) for at in known]
    missing = []
    if places and not known:
        missing.append("The answers themselves (predictions.jsonl) are not in this folder.")
    elif places and not texts:
        missing.append(
            "The inputs (test.jsonl) are not in this folder: start the run again to have them written."
        )
    wrong = [n.count("0") + n.count("-") for n in outcomes]
    return Group(
        rows[0].task,
        _names(rows),
        [_source(row) for row in rows],
        rows[0].n,
        wrong,
        _pairs(outcomes),
        cases,
        missing,
    )


def _pick(rows: Sequence[ResultRow], shown: int) -> set[int]:
    """Places, in the outcomes, of the examples that are shown.

    Of each method: wrong answers spread over the test examples. Every other method's right answers among
    them get their part first, so that no choice of the page's filters comes out empty without need.
    """
    picked: set[int] = set()
    for row in rows:
        if row.name == TEACHER:
            continue
        wrong = [at for at, outcome in enumerate(row.outcomes) if outcome != "1"]
        mine: set[int] = set()
        others = [other for other in rows if other is not row]
        for other in others:
            better = [at for at in wrong if other.outcomes[at] == "1" and at not in mine]
            mine.update(_spread(better, shown // (2 * len(others)) or 1))
        left = [at for at in wrong if at not in mine]
        mine.update(_spread(left, shown - len(mine)))
        picked |= mine
    return picked


def _spread(places: Sequence[int], n: int) -> Sequence[int]:
    """At most n of the places, evenly spread."""
    if n <= 0:
        return ()
    return places if len(places) <= n else [places[i * len(places) // n] for i in range(n)]


@dataclass
class _Found:
    """What the files say of the picked examples, by place in the outcomes."""

    examples: dict[int, tuple[str, str]] = field(default_factory=dict)
    answers: dict[tuple[int, int], dict[str, Any]] = field(default_factory=dict)
    told: dict[tuple[int, str], dict[str, Any]] = field(default_factory=dict)

    def read(self, trial: Trial, index: int, name: str, places: set[int]) -> None:
        """The answers of one predictor; examples without a gold label have no outcome, and no place."""
        for at, row in scan.answers(trial.path / "predictions.jsonl", name, places):
            self.examples.setdefault(at, (str(row.get("example_id")), str(row["gold"])))
            self.answers[index, at] = row
        wanted = {example_id for example_id, _ in self.examples.values()}
        told = scan.explanations(trial.path / "explanations.jsonl", name, wanted)
        self.told |= {(index, example_id): row for example_id, row in told.items()}


def _case(found: _Found, at: int, outcomes: Sequence[str], texts: Mapping[str, Mapping[str, Any]]) -> Case:
    example_id, gold = found.examples[at]
    example = texts.get(example_id, {})
    answers = [
        _answer(found.answers.get((index, at), {}), found.told.get((index, example_id), {}), line[at])
        for index, line in enumerate(outcomes)
    ]
    options = [str(option) for option in example.get("options") or ()]
    text, rationale = str(example.get("text") or ""), str(example.get("rationale") or "")
    return Case(example_id, shorten(text, _LONGEST), gold, options, shorten(rationale, _LONGEST), answers)


def _answer(row: Mapping[str, Any], told: Mapping[str, Any], outcome: str) -> Answer:
    label, text = row.get("label"), str(row.get("text") or "")
    # What could not be read is shown as it was said.
    said = str(label) if label is not None else text
    rationale = str(told.get("rationale") or row.get("rationale") or "")
    leads_to = str(told.get("read") or "")
    return Answer(outcome, shorten(said, _LONGEST), shorten(rationale, _LONGEST), leads_to)


def _texts(trials: Iterable[Trial], wanted: set[str]) -> dict[str, dict[str, Any]]:
    """Rows of the first `test.jsonl` that there is, of the wanted examples."""
    for trial in trials:
        if trial.has("test.jsonl"):
            return scan.examples(trial.path / "test.jsonl", wanted)
    return {}


def _pairs(outcomes: Sequence[str]) -> list[list[int]]:
    return [
        [sum(a != "1" and b == "1" for a, b in zip(first, second, strict=True)) for second in outcomes]
        for first in outcomes
    ]


def _names(rows: Sequence[ResultRow]) -> list[str]:
    """Names of the predictors, with their labels where two have the same name."""
    names = [row.name for row in rows]
    return [f"{row.name} ({row.labels})" if names.count(row.name) > 1 else row.name for row in rows]


def _source(row: ResultRow) -> str:
    if row.name == TEACHER:
        return row.labels
    parts = [] if row.fraction is None else [f"{100 * row.fraction:g} % of the data"]
    parts += [] if row.seed is None else [f"seed {row.seed}"]
    return ", ".join([*parts, *([str(student_name(row.student))] if row.student else [])])
