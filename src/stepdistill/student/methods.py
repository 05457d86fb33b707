"""The methods as rows, the arms made of them, and which targets an example and its annotation become."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from stepdistill.config.train import LabelSource, RationaleSource
from stepdistill.errors import ConfigError, StudentError, brief, unknown
from stepdistill.records import Annotation, Example, Target, TaskName, Unparsed
from stepdistill.student.rationales import SOURCES, Rationales, Reasons

MARKERS: dict[TaskName, str] = {"label": "[label]", "rationale": "[rationale]"}
"""Task prefixes of the paper (section 3.2). Every method reads `[label]`, also those that know no
other task: arms that differ in their input could not be compared."""

Form = Literal["label", "both", "rationale-input", "rationale-first", "label-first"]
"""What is written for an input: the label; label and rationale as two tasks; the label of input and
rationale; both in one sequence, in this order or the other."""


@dataclass(frozen=True, slots=True)
class Method:
    """A row: whose labels it learns (None: as `train.labels` says), and the form of its targets."""

    name: str
    labels: LabelSource | None
    form: Form
    paper: str

    @property
    def rationales(self) -> bool:
        """Whether it makes use of rationales."""
        return self.form != "label"

    def labels_from(self, configured: LabelSource) -> LabelSource:
        """Whose labels this method is trained on."""
        return self.labels or configured


METHODS = {
    row.name: row
    for row in (
        Method("finetune", "gold", "label", "standard finetuning, Eq. 1"),
        Method("distill", "teacher", "label", "standard task distillation, Eq. 1"),
        Method("step-by-step", None, "both", "distilling step-by-step, Eq. 3 and 4"),
        Method("rationale-input", None, "rationale-input", "rationales as further input, Eq. 2"),
        Method("rationale-first", None, "rationale-first", "rationale and label as a single task, table 3"),
        Method("label-first", None, "label-first", "label and then rationale as a single task"),
    )
}

JOIN = "+"
"""Between the name of a method and that of the source of its rationales."""


@dataclass(frozen=True, slots=True)
class Arm:
    """What is compared: a method with the source of its rationales (None: it uses none)."""

    name: str
    method: Method
    source: RationaleSource | None


ARMS = tuple(
    name
    for row in METHODS.values()
    for name in (row.name, *(row.name + JOIN + source for source in SOURCES if row.rationales))
)
"""Every name that an arm can have, in the order of tables."""


def find_method(name: str) -> Method:
    """The row of a method.

    Raises:
        ConfigError: there is no such method.
    """
    if name not in METHODS:
        raise ConfigError("methods: " + unknown("method", name, METHODS))
    return METHODS[name]


def find_arm(name: str, source: RationaleSource = "teacher") -> Arm:
    """The arm of an entry of `methods`: `NAME`, with rationales from `source`, or `NAME+SOURCE`.

    Raises:
        ConfigError: there is no such method or source, or they do not go together.

    >>> find_arm("step-by-step+shuffled").source
    'shuffled'
    """
    first, join, given = name.partition(JOIN)
    method = find_method(first)
    if join and not method.rationales:
        raise ConfigError(f"methods: {brief(name)}: {first} uses no rationales; write '{first}'")
    if join and given not in SOURCES:
        raise ConfigError(f"methods: {brief(name)}: " + unknown("source of rationales", given, SOURCES))
    chosen = next((known for known in SOURCES if known == given), source)
    if method.form == "rationale-input" and chosen == "none":
        raise ConfigError(
            f"methods: '{name}' without rationales would be finetuning under another name; choose a source: "
            + ", ".join(known for known in SOURCES if known != "none")
        )
    return Arm(name, method, chosen if method.rationales else None)


def with_rationale(text: str, rationale: str) -> str:
    """The input of Eq. 2: the text, and a rationale behind it.

    >>> with_rationale("x", "r")
    'x\\n[rationale] r'
    """
    return f"{text}\n{MARKERS['rationale']} {rationale}"


def one_sequence(form: Form, label: str, rationale: str) -> str:
    """Label and rationale as one target; without a rationale the form stays.

    >>> one_sequence("rationale-first", "y", "r"), one_sequence("label-first", "y", "r")
    ('r [label] y', 'y [rationale] r')
    >>> one_sequence("rationale-first", "y", ""), one_sequence("label-first", "y", "")
    ('[label] y', 'y')
    """
    if form == "rationale-first":
        return f"{rationale} {MARKERS['label']} {label}".strip()
    return f"{label} {MARKERS['rationale']} {rationale}" if rationale else label


def label_of(
    labels: LabelSource, example: Example, annotation: Annotation | Unparsed | None, votes: bool = False
) -> tuple[str, float] | None:
    """The label an example is trained on and what it counts; None where it is not known.

    >>> label_of("gold-else-teacher", Example("1", "x"), Annotation("1", "r", "z", "", 0.6), votes=True)
    ('z', 0.6)
    """
    read = annotation if isinstance(annotation, Annotation) else None
    if labels != "teacher" and example.label is not None:
        return example.label, 1.0
    if labels == "gold" or read is None:
        return None
    return read.label, read.confidence if votes else 1.0


def targets(
    method: Method, example: Example, label: tuple[str, float] | None, reasons: Reasons, writes: bool = False
) -> list[Target]:
    """The training pairs of one example: none where the label it needs is not known.

    What the teacher's rationale says stands beside the gold label as it is, also where the teacher
    was wrong, as in the paper. An example without a rationale teaches the label alone, and nothing
    where the rationale is part of the input.

    Args:
        method: the row.
        example: the input.
        label: what `label_of` gives.
        reasons: its rationales.
        writes: for `rationale-input`: whether the student learns to write the rationale too.

    >>> row = METHODS["step-by-step"]
    >>> [t.target for t in targets(row, Example("1", "x"), ("y", 1.0), Reasons(("r", "s")))]
    ['y', 'r', 's']
    """
    given = method.form == "rationale-input"
    if label is None or (given and not reasons.texts):
        return []
    text, weight = label
    first = reasons.texts[0] if reasons.texts else ""
    source = with_rationale(example.text, first) if given else example.text
    if method.form in ("rationale-first", "label-first"):
        text = one_sequence(method.form, text, first)
    pairs = [Target(example.id, source, text, "label", weight)]
    written = reasons.texts if method.form == "both" else reasons.texts[:1] if given and writes else ()
    for reason in written:
        share = reasons.weight / len(written)
        pairs.append(Target(example.id, example.text, reason, "rationale", share))
    return pairs


@dataclass(frozen=True)
class Targets:
    """The targets of every example that has any, made anew in each pass, so that none are held in memory.

    Made by `all_targets`, which counts them: `n` examples are trained on, `n_left_out` are not, of which
    `n_unlabelled_left_out` have no gold label; `n_rationales` texts are rationales.
    """

    method: Method
    labels: LabelSource
    examples: Iterable[Example]
    annotations: Mapping[str, Annotation | Unparsed]
    rationales: Rationales = field(default_factory=Rationales)
    writes: bool = False
    n: int = 0
    n_left_out: int = 0
    n_unlabelled_left_out: int = 0
    n_rationales: int = 0

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[list[Target]]:
        return (pairs for _, pairs, _ in self.joined() if pairs)

    def with_reasons(self) -> Iterator[str]:
        """Ids of the examples that are trained on with a rationale."""
        return (example.id for example, _, written in self.joined() if written)

    def joined(self) -> Iterator[tuple[Example, list[Target], int]]:
        """Every example, its targets, and how many rationales are among them."""
        whose, votes = self.method.labels_from(self.labels), self.rationales.votes
        most = None if self.method.form == "both" else 1
        for example in self.examples:
            label = label_of(whose, example, self.annotations.get(example.id), votes)
            reasons = self.rationales.of(example) if self.method.rationales else Reasons()
            pairs = targets(self.method, example, label, reasons, self.writes)
            yield example, pairs, len(reasons.texts[:most]) if pairs else 0


def all_targets(
    method: Method,
    labels: LabelSource,
    examples: Iterable[Example],
    annotations: Mapping[str, Annotation | Unparsed],
    rationales: Rationales | None = None,
    writes: bool = False,
) -> Targets:
    """The targets of every example that has any, counted in one pass.

    `rationales` are the teacher's unless given. `examples` can be gone through more than once.

    Raises:
        StudentError: no example has one, or the method needs rationales and there is none.
    """
    rationales = rationales or Rationales("teacher", annotations)
    made = Targets(method, labels, examples, annotations, rationales, writes)
    n = left_out = unlabelled = n_reasons = 0
    for example, pairs, written in made.joined():
        n += bool(pairs)
        left_out += not pairs
        unlabelled += not pairs and example.label is None
        n_reasons += written
    # Without rationales nothing is left of `rationale-input`; then it is they that are missing.
    if not n and not _any_label(made):
        raise StudentError(_no_label(method.name, method.labels_from(labels), left_out, len(annotations)))
    if method.rationales and rationales.source != "none" and not n_reasons:
        raise StudentError(_no_rationale(method.name, rationales, len(annotations)))
    return replace(made, n=n, n_left_out=left_out, n_unlabelled_left_out=unlabelled, n_rationales=n_reasons)


def _any_label(made: Targets) -> bool:
    whose = made.method.labels_from(made.labels)
    return any(label_of(whose, e, made.annotations.get(e.id)) is not None for e in made.examples)


def _no_label(name: str, whose: LabelSource, n: int, answers: int) -> str:
    gold, theirs = "no example has a gold label", f"none of the teacher's {answers} answers could be read"
    cause = {"gold": gold, "teacher": theirs, "gold-else-teacher": f"{gold} and {theirs}"}[whose]
    return (
        f"{name}: no training example is left of {n}, since {cause}; check "
        "the task file's `answer` section and the teacher's completions"
    )


def _no_rationale(name: str, rationales: Rationales, answers: int) -> str:
    if rationales.source == "human":
        return (
            f"{name}: no example has a human rationale; name their column as `answer.rationale` in the task "
            "file, or take the teacher's"
        )
    among = "" if rationales.share == 1 else f" (train.rationale_share is {rationales.share:g})"
    return (
        f"{name}: no rationale is left of {answers} teacher's answers{among}; without any, it would be "
        "finetuning under another name"
    )
