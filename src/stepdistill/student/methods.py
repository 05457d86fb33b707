"""The methods as rows: which targets an example and its annotation become."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from stepdistill.errors import ConfigError, StudentError, unknown
from stepdistill.records import Annotation, Example, Target, TaskName, Unparsed

MARKERS: dict[TaskName, str] = {"label": "[label]", "rationale": "[rationale]"}
"""Task prefixes of the paper (section 3.2). Every method reads `[label]`, also those that know no
other task: arms that differ in their input could not be compared."""

Labels = Literal["gold", "teacher"]


@dataclass(frozen=True, slots=True)
class Method:
    """A row: whose labels it learns (None: as `train.labels` says), and whether rationales too."""

    name: str
    labels: Labels | None
    rationales: bool
    paper: str

    def labels_from(self, configured: Labels) -> Labels:
        """Whose labels this method is trained on."""
        return self.labels or configured


METHODS = {
    row.name: row
    for row in (
        Method("finetune", "gold", False, "standard finetuning, Eq. 1"),
        Method("distill", "teacher", False, "standard task distillation, Eq. 1"),
        Method("step-by-step", None, True, "distilling step-by-step, Eq. 3 and 4"),
    )
}


def find_method(name: str) -> Method:
    """The row of a method.

    Raises:
        ConfigError: there is no such method.
    """
    if name not in METHODS:
        raise ConfigError("methods: " + unknown("method", name, METHODS))
    return METHODS[name]


def targets(
    method: Method, labels: Labels, example: Example, annotation: Annotation | Unparsed | None
) -> list[Target]:
    """The training pairs of one example: none where the label it needs is not known.

    What the teacher's rationale says stands beside the gold label as it is, also where the teacher
    was wrong, as in the paper; an answer that could not be read is never trained on.

    >>> row = METHODS["step-by-step"]
    >>> [t.target for t in targets(row, "gold", Example("1", "x", "y"), Annotation("1", "r", "z", ""))]
    ['y', 'r']
    """
    read = annotation if isinstance(annotation, Annotation) else None
    theirs = read.label if read else None
    label = example.label if method.labels_from(labels) == "gold" else theirs
    if label is None:
        return []
    pairs = [_target(example, "label", label)]
    if method.rationales and read and read.rationale:
        pairs.append(_target(example, "rationale", read.rationale))
    return pairs


def all_targets(
    method: Method,
    labels: Labels,
    examples: Sequence[Example],
    annotations: Mapping[str, Annotation | Unparsed],
) -> list[list[Target]]:
    """The targets of every example that has any.

    Raises:
        StudentError: no example has one, or the method needs rationales and there is none.
    """
    made = [targets(method, labels, e, annotations.get(e.id)) for e in examples]
    kept = [pairs for pairs in made if pairs]
    whose = method.labels_from(labels)
    if not kept:
        cause = (
            "no example has a gold label"
            if whose == "gold"
            else f"none of the teacher's {len(annotations)} answers could be read"
        )
        raise StudentError(
            f"{method.name}: no training example is left of {len(examples)}, since {cause}; check "
            "the task file's `answer` section and the teacher's completions"
        )
    if method.rationales and not any(len(pairs) > 1 for pairs in kept):
        raise StudentError(
            f"{method.name}: no rationale is left of {len(annotations)} teacher's answers; without "
            "any, it would be finetuning under another name"
        )
    return kept


def _target(example: Example, task: TaskName, text: str) -> Target:
    return Target(example.id, example.text, text, task)
