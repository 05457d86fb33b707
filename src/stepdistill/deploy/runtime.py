"""A trained student as something to ask: texts in, labels, probabilities and rationales out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from stepdistill.config import check
from stepdistill.deploy.answer import Answer
from stepdistill.deploy.bundle import MANIFEST, Bundle, Readout, Settings, is_bundle, read_bundle
from stepdistill.deploy.cards import checked, choose, students
from stepdistill.deploy.inputs import from_row, from_text
from stepdistill.deploy.model import Model
from stepdistill.deploy.readout import DEFAULT, READOUTS, Scores, softmax
from stepdistill.errors import ConfigError, DataError, RunFolderError, unknown
from stepdistill.evaluate.words import Interview, Words, read_words
from stepdistill.records import Example, Watcher, unwatched
from stepdistill.task.load import Task
from stepdistill.task.schema import TaskSpec

if TYPE_CHECKING:
    from stepdistill.deploy.route import Router

NO_OPTIONS: Final = "no options to choose from"
"""Why a question of a task of kind `choice` is unread that came without any."""


@dataclass(frozen=True)
class Runtime:
    """A student with its task; loaded when it is first asked, or by `warm`.

    A closed set is answered by scoring each of its labels: the answer is one of them, with probabilities.
    Open answers, and labels that follow from a rationale in the same words, are written and then read.

    Safe to be used by several threads, which take turns at the model, batch by batch. A copy with other
    settings (`dataclasses.replace`) shares the model. What it abstains from, the `router` asks the teacher.
    """

    model: Model
    settings: Settings = field(default_factory=Settings)
    watch: Watcher = unwatched
    router: Router | None = None

    @property
    def folder(self) -> Path:
        """Where the student lies."""
        return self.model.folder

    @property
    def card(self) -> Mapping[str, Any]:
        """What training wrote of the student (`student.json`)."""
        return self.model.card

    @property
    def bundle(self) -> Bundle | None:
        """The manifest of an export; None for a student in its own folder."""
        return self.model.bundle

    @cached_property
    def task(self) -> Task:
        """The task as it was at training."""
        return Task(check(TaskSpec, self.card["task"], str(self.folder)))

    @property
    def explains(self) -> bool:
        """Whether the student was taught to write rationales."""
        return bool(self.card["explains"])

    @property
    def needs_rationales(self) -> bool:
        """Whether a rationale of somebody else's is part of the input that the student was trained on."""
        return bool(self.card.get("test_rationales") == "teacher")

    @property
    def closed(self) -> bool:
        """Whether answers are scored, and so have probabilities: a closed set, the label by itself."""
        return self.task.spec.answer.kind in ("label", "choice") and self.card["form"] in ("label", "both")

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of the task; empty where each example has its own options, or answers are open."""
        return self.task.spec.answer.labels

    def candidates(self, example: Example) -> tuple[str, ...]:
        """The closed set of an example, each answer once: the task's labels, or the example's options."""
        return self.labels or tuple(dict.fromkeys(example.options))

    def warm(self) -> None:
        """Load the model now.

        Raises:
            ConfigError: the card's task is none.
            StudentError: the files cannot be loaded.
            MissingExtraError: the library of the bundle's format is not installed.
        """
        _ = self.task
        self.model.ready()

    def predict(self, texts: Sequence[str | Example], explain: bool = False) -> list[Answer]:
        """Answers to input texts, in order; with `explain`, the rationales too.

        Raises:
            DataError: something is not text.
            RunFolderError: `explain` is asked of a student that was taught none, or the student answers
                with the help of a rationale and an example brings none.
            StudentError: a text is longer than the model can place.
        """
        examples = self._examples(texts, explain)
        interview = Interview(
            form=self.card["form"],
            write=partial(self.model.write, watch=self.watch),
            explain=explain,
            given=(lambda example: example.rationale) if self.needs_rationales else None,
            surely=self._surely if self.closed else None,
        )
        pairs = zip(examples, interview.words(examples), strict=True)
        answers = [self._sure(*pair) if self.closed else self._read(*pair) for pair in pairs]
        if self.router is None:
            return answers
        from stepdistill.deploy.route import routed

        return routed(examples, answers, self.router, explain)

    def explain(self, text: str | Example) -> str:
        """The student's rationale for one text; empty where it wrote none.

        Raises:
            RunFolderError: the student was taught none.
        """
        return self.predict([text], explain=True)[0].rationale or ""

    def check(self, text: str | Example, explain: bool = False) -> None:
        """Refuse what `predict` would refuse, without asking the model.

        A rationale that the student writes first, to answer with, is counted in no length.

        Raises:
            As `predict`.
        """
        (example,) = self._examples([text], explain)
        candidates = self.candidates(example) if self.closed else None
        if candidates != ():
            self.model.check("label", example.text, candidates)
        if explain and self.card["form"] == "both":
            self.model.check("rationale", example.text)

    def scores(self, texts: Sequence[str | Example]) -> dict[Readout, list[Scores]]:
        """By readout, the log scores of the `candidates` of each example, before any temperature.

        Raises:
            ConfigError: answers are open, so that nothing is scored.
            DataError: an example has no options.
        """
        if not self.closed:
            raise ConfigError(f"{self.folder}: {_unscored(self)}, and nothing can be calibrated")
        examples = self._examples(texts, False)
        asked = [(example.text, self.candidates(example)) for example in examples]
        for example, (_, candidates) in zip(examples, asked, strict=True):
            if not candidates:
                raise DataError(f"example '{example.id}': {NO_OPTIONS}")
        rows = self.model.all_scores(asked, self.watch)
        return {readout: [row[readout] for row in rows] for readout in READOUTS}

    def read_input(self, rows: Iterable[Mapping[str, Any]], source: str) -> list[Example]:
        """Examples out of rows that have the task's columns, or a finished `text`.

        A column `rationale` is read for a student that answers with the help of one.

        Raises:
            DataError: a row has neither, or its rationale is no text.
        """
        helped = self.needs_rationales
        return [
            from_row(self.task, row, f"{source}, row {i + 1}", str(i), helped) for i, row in enumerate(rows)
        ]

    def _examples(self, texts: Sequence[str | Example], explain: bool) -> list[Example]:
        if explain and not self.explains:
            raise RunFolderError(
                f"{self.folder}: '{self.card['name']}' was taught no rationales that explain its answers; "
                "ask a 'step-by-step' student"
            )
        examples = [from_text(self.task, text, index) for index, text in enumerate(texts)]
        if self.needs_rationales and not all(example.rationale for example in examples):
            raise RunFolderError(
                f"{self.folder}: '{self.card['name']}' answers with the help of the teacher's rationale, not "
                "from the text alone; give rows with a `rationale` column, or ask another student"
            )
        return examples

    def _surely(self, examples: Sequence[Example]) -> list[tuple[str, Scores]]:
        """The likeliest candidate of each example, and the probabilities of all; none for no candidates."""
        sets = [self.candidates(example) for example in examples]
        asked = [(example.text, found) for example, found in zip(examples, sets, strict=True) if found]
        rows = iter(self.model.scores(asked, self.settings.readout or DEFAULT, self.watch))
        made: list[tuple[str, Scores]] = []
        for found in sets:
            shares = softmax(next(rows), self.settings.temperature) if found else ()
            made.append((found[shares.index(max(shares))] if found else "", shares))
        return made

    def _sure(self, example: Example, words: Words) -> Answer:
        shares = words.probabilities
        if not shares:
            return Answer(example.id, "", None, reason=NO_OPTIONS, rationale=words.rationale)
        confidence, threshold = max(shares), self.settings.threshold
        below = threshold is not None and confidence < threshold
        return Answer(
            example_id=example.id,
            text=words.text,
            label=None if below else words.text,
            guess=words.text,
            reason=_below(confidence, threshold) if below and threshold is not None else None,
            rationale=words.rationale,
            probabilities=dict(zip(self.candidates(example), shares, strict=True)),
            confidence=confidence,
            abstained=below,
        )

    def _read(self, example: Example, words: Words) -> Answer:
        found = read_words(self.task.kind, example, words)
        return Answer(example.id, found.text, found.label, found.label, found.reason, found.rationale)


def load(
    where: str | Path,
    student: str | None = None,
    explain: bool = False,
    watch: Watcher = unwatched,
    threshold: float | None = None,
    threads: int | None = None,
    route: bool = False,
) -> Runtime:
    """A trained student out of a run folder, a student's own folder, or a bundle.

    Args:
        where: `runs/quickstart`, `runs/quickstart/students/distill`, or what `stepdistill export` made.
        student: which of a run's students; by default the best on validation, and of equals one
            that explains, a control only where there is nothing else.
        explain: choose among the students that explain only.
        watch: told of progress.
        threshold: abstain below this confidence; by default as the bundle says, else never.
        threads: of the engine; by default as its library chooses.
        route: ask the teacher of the run, or the one that the bundle names, for what is below the threshold.

    Raises:
        RunFolderError: no trained student is there, one of an earlier version, or a bundle that is damaged.
        ConfigError: a threshold that is no probability, or for open answers; or a route without a threshold,
            or to a teacher that cannot be asked about new texts.
    """
    if threads is not None and threads < 1:
        raise ConfigError(f"threads: {threads}; at least 1 is needed")
    path = Path(where)
    if is_bundle(path):
        bundle = read_bundle(path)
        model = Model(path, checked(bundle.card, path / MANIFEST, "export"), bundle, threads)
        if student not in (None, model.card["name"]):
            raise RunFolderError(f"{path}: " + unknown("student", student, [model.card["name"]]))
        runtime = Runtime(model, bundle.settings, watch)
    else:
        folder, card = choose(path, students(path), student, explain)
        runtime = Runtime(Model(folder, card, threads=threads), Settings(), watch)
    runtime = runtime if threshold is None else _abstaining(runtime, threshold)
    if not route:
        return runtime
    # Here, since most students are asked without a teacher, and its libraries take their time.
    from stepdistill.deploy.route import with_router

    return with_router(runtime)


def _abstaining(runtime: Runtime, threshold: float) -> Runtime:
    if not 0 <= threshold <= 1:
        raise ConfigError(f"threshold: {threshold:g}; a probability from 0 to 1 is expected")
    if not runtime.closed:
        raise ConfigError(f"threshold: {_unscored(runtime)}; leave it out")
    return replace(runtime, settings=runtime.settings.model_copy(update={"threshold": threshold}))


def _unscored(runtime: Runtime) -> str:
    return (
        f"'{runtime.card['name']}' writes its answers (answer kind '{runtime.task.spec.answer.kind}', form "
        f"'{runtime.card['form']}'), so they have no probabilities"
    )


def _below(confidence: float, threshold: float) -> str:
    """Why a student abstains, in as many digits as tell the two apart.

    >>> _below(0.412, 0.8), _below(0.7999, 0.8)
    ('confidence 0.41 is below the threshold 0.80', 'confidence 0.7999 is below the threshold 0.8000')
    """
    digits = next((n for n in range(2, 17) if f"{confidence:.{n}f}" != f"{threshold:.{n}f}"), 17)
    return f"confidence {confidence:.{digits}f} is below the threshold {threshold:.{digits}f}"
