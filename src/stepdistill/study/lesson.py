"""The lesson of one arm: its targets, the inputs it will be asked, and what its card says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from stepdistill.config import RunConfig
from stepdistill.errors import StudentError
from stepdistill.records import Annotation, Example, Unparsed
from stepdistill.student.methods import MARKERS, Arm, Targets, all_targets, with_rationale
from stepdistill.student.model import Student
from stepdistill.student.rationales import Filler, Rationales, shuffle
from stepdistill.task.load import Task
from stepdistill.task.schema import Split

Answers = Mapping[str, Annotation | Unparsed]
"""The teacher's answers on one split, by example id."""


@dataclass(frozen=True)
class Matter:
    """What the lessons of all arms are made of: a configuration, its task and its data.

    `examples` and `answers` are by split; both can be gone through any number of times.
    """

    config: RunConfig
    task: Task
    examples: Mapping[Split, Iterable[Example]]
    answers: Mapping[Split, Answers]

    def targets(self, arm: Arm, student: Student) -> Targets:
        """The training targets of an arm.

        Raises:
            StudentError: none is left, or the arm cannot have the rationales that it needs.
        """
        train = self.config.train
        make = partial(
            all_targets,
            arm.method,
            train.labels,
            self.examples["train"],
            self.answers.get("train", {}),
            writes=train.test_rationales == "student",
        )
        return make(self._rationales(arm, "train", student, make))

    def given(self, arm: Arm, split: Split, student: Student) -> Callable[[Example], str | None] | None:
        """For Eq. 2: the rationale in the input of an example of this split, from the arm's own source.

        None for an arm that is asked with the text alone.
        """
        if arm.method.form != "rationale-input" or self.config.train.test_rationales == "student":
            return None
        rationales = self._rationales(arm, split, student, None)
        return lambda example: next(iter(rationales.of(example).texts), None)

    def asked(self, arm: Arm, student: Student) -> Iterator[str]:
        """The inputs on which the student will be measured, without markers.

        Raises:
            StudentError: the arm is asked with rationales, and a whole split has none.
        """
        splits: tuple[Split, ...] = ("validation", "test")
        for split in splits:
            given = self.given(arm, split, student) if self.examples.get(split) else None
            found = False
            for example in self.examples.get(split, ()):
                reason = given(example) if given else None
                found |= reason is not None
                yield with_rationale(example.text, reason) if reason else example.text
            if given and not found:
                whose = "of people" if arm.source == "human" else "of the teacher's"
                raise StudentError(
                    f"methods: '{arm.name}' is asked with rationales, and no '{split}' example has one "
                    f"{whose}, so none could be answered; add them, or give train.test_rationales: student"
                )

    def texts(self) -> Iterator[str]:
        """All training text: inputs with the markers, labels, the teacher's words, people's reasons.

        The same for all arms: a tokenizer that is made of it is theirs in common, whatever they learn.
        """
        yield from self.task.spec.answer.labels
        for example in self.examples["train"]:
            yield f"{MARKERS['label']} {example.text}"
            yield from (MARKERS["rationale"], example.label or "", example.rationale or "")
        for read in self.answers.get("train", {}).values():
            if isinstance(read, Annotation):
                yield from (read.rationale, *read.more, read.label)

    def facts(self, arm: Arm, targets: Targets) -> dict[str, Any]:
        """What the student's card says of its lesson."""
        train = self.config.train
        written = arm.method.form != "rationale-input" or train.test_rationales == "student"
        return {
            "method": arm.method.name,
            "form": arm.method.form,
            "paper": arm.method.paper,
            "labels": arm.method.labels_from(train.labels),
            "rationales": arm.source,
            # A control's texts have a rationale's form and not its sense.
            "explains": arm.source in ("teacher", "human") and written,
            "test_rationales": train.test_rationales if arm.method.form == "rationale-input" else None,
            "task": self.task.spec.model_dump(mode="json", by_alias=True),
            "student": self.config.student.model,
            "seed": self.config.seed,
            "n_left_out": targets.n_left_out,
            "n_unlabelled_left_out": targets.n_unlabelled_left_out,
            "n_rationales": targets.n_rationales,
        }

    def _rationales(
        self, arm: Arm, split: Split, student: Student, make: Callable[[Rationales], Targets] | None
    ) -> Rationales:
        """The rationales of a split; all of them where it is not trained on."""
        train, answers = self.config.train, self.answers.get(split, {})
        options: dict[str, Any] = {"annotations": answers, "seed": self.config.seed}
        if make:
            options |= {"share": train.rationale_share, "most": train.rationales_per_example}
            options |= {"votes": train.weights == "votes"}
        if arm.source == "shuffled":
            plain = Rationales("teacher", **options)
            # Only those that would be trained on: the texts that are exchanged are the teacher arm's own.
            ids = make(plain).with_reasons() if make else _reasoned(plain, self.examples.get(split, ()))
            options["others"] = shuffle(ids, self.config.seed)
        if arm.source == "filler":
            options["filler"] = filler(student)
        return Rationales(arm.source or "none", **options)


def filler(student: Student) -> Filler:
    """Texts without content, measured in the student's tokens."""
    tokenizer, encoder = student.tokenizer, student.encoder
    unknown = tokenizer.unk_token_id
    # GPT-2 and its kin have one sign for "unknown" and "end", and know every word.
    known = unknown is None or unknown == tokenizer.eos_token_id
    return Filler(lambda text: encoder.target(text)[:-1], None if known else int(unknown))


def _reasoned(rationales: Rationales, examples: Iterable[Example]) -> Iterator[str]:
    return (example.id for example in examples if rationales.of(example).texts)
