"""A student's engine and spelling: loaded when they are first needed, asked in batches of similar length."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from stepdistill.deploy.bundle import Bundle, Readout, of_student
from stepdistill.deploy.engines import Engine, Prompt, Question, open_engine
from stepdistill.deploy.engines.rows import batches
from stepdistill.deploy.readout import Scores, all_scores, scores
from stepdistill.deploy.spelling import TOKENIZER, Spelling, read_spelling
from stepdistill.errors import StudentError
from stepdistill.records import TaskName, Watcher, unwatched
from stepdistill.student.limits import placed_tokens

T = TypeVar("T")

BATCH = 32
"""Rows in one call of an engine, as in evaluation."""

MOST_TOKENS = 4096
"""Tokens of an input to a student without positions (T5), which could read any number: memory grows with the
square. One text of so many takes 0.9 GB and 5 seconds on one CPU thread with 4 heads and 4 labels, and memory
grows with the heads; 20,000 tokens took 11.5 GB, and every other request of a server waits meanwhile."""

_KNOWN = 1024
"""Answers whose spelling is remembered."""

Asked = tuple[str, Sequence[str]]
"""An input text, and the closed set of its answers."""


@dataclass(frozen=True)
class _Loaded:
    bundle: Bundle
    spelling: Spelling
    engine: Engine
    target: Callable[[str], tuple[int, ...]]


class Model:
    """A student that can be asked for scores and for words.

    Safe to be used by several threads: they take turns at the engine, batch by batch. The same texts in one
    call always come in the same batches, of at most `BATCH` rows, and of fewer where inputs are long.
    """

    def __init__(
        self,
        folder: Path,
        card: Mapping[str, Any],
        bundle: Bundle | None = None,
        threads: int | None = None,
    ) -> None:
        """`bundle` is the manifest of an export whose digests were compared; None: a student's own folder."""
        self.folder, self.card, self.bundle, self.threads = folder, card, bundle, threads
        self._loaded: _Loaded | None = None
        self._loading, self._turn = threading.Lock(), threading.Lock()

    def ready(self) -> _Loaded:
        """What the student is asked with; loaded by the first who needs it, while others wait.

        Raises:
            StudentError: its files cannot be loaded.
            MissingExtraError: the library of the format is not installed.
        """
        if self._loaded is None:
            with self._loading:
                if self._loaded is None:
                    self._loaded = self._load()
        return self._loaded

    def _load(self) -> _Loaded:
        bundle = self.bundle or of_student(self.folder, self.card)
        family, prefix = self.card["family"], self.card["prefix"]
        if self.bundle is None and not (self.folder / TOKENIZER).exists():
            # Tokenizers in Python (ByT5) have no such file; where a student was trained, transformers is.
            from stepdistill.weights import read_tokenizer

            spelling = Spelling(read_tokenizer(str(self.folder), "student.model")[0], family, prefix)
        else:
            spelling = read_spelling(self.folder, family, prefix, bundle.tokens)
        # A closed set is the same for most inputs.
        target = lru_cache(maxsize=_KNOWN)(spelling.target)
        return _Loaded(bundle, spelling, open_engine(self.folder, bundle, self.threads), target)

    def scores(self, asked: Sequence[Asked], readout: Readout, watch: Watcher = unwatched) -> list[Scores]:
        """One for each answer of each input, in nats; see `readout.scores`.

        Raises:
            StudentError: an input is too long, or leaves the model no place for an answer.
        """
        engine = self.ready().engine
        return self._in_batches(self._questions(asked), lambda chosen: scores(engine, chosen, readout), watch)

    def all_scores(self, asked: Sequence[Asked], watch: Watcher = unwatched) -> list[dict[Readout, Scores]]:
        """The scores of every readout."""
        engine = self.ready().engine
        return self._in_batches(self._questions(asked), lambda chosen: all_scores(engine, chosen), watch)

    def write(
        self, task: TaskName, texts: Sequence[str], stop: str | None = None, watch: Watcher = unwatched
    ) -> list[str]:
        """Greedy words behind input texts, at most the card's `new_tokens`; may end once `stop` is written.

        Raises:
            StudentError: an input is too long, or leaves the model no place for them.
        """
        loaded, most = self.ready(), int(self.card["new_tokens"][task])
        prompts = [self._prompt(text, task) for text in texts]
        for prompt in prompts:
            self._check(prompt, most)

        def work(chosen: list[Question]) -> list[str]:
            written = loaded.engine.write([question.prompt for question in chosen], most, stop)
            return [loaded.spelling.text(ids) for ids in written]

        return self._in_batches([Question(prompt, ()) for prompt in prompts], work, watch)

    def check(self, task: TaskName, text: str, answers: Sequence[str] | None = None) -> None:
        """Refuse a text that is too long, or leaves no place for one of `answers` or words of its own.

        Raises:
            StudentError: so it is.
        """
        if answers is not None:
            self._questions([(text, answers)])
        else:
            self._check(self._prompt(text, task), int(self.card["new_tokens"][task]))

    def _questions(self, asked: Sequence[Asked]) -> list[Question]:
        target, found = self.ready().target, []
        for text, answers in asked:
            question = Question(self._prompt(text, "label"), tuple(map(target, answers)))
            self._check(question.prompt, max(map(len, question.targets)))
            found.append(question)
        return found

    def _prompt(self, text: str, task: TaskName) -> Prompt:
        spelling = self.ready().spelling
        return Prompt(spelling.source(text, task), spelling.opening(task))

    def _check(self, prompt: Prompt, room: int) -> None:
        # Engines would end in errors of their own, or read places that nobody has trained.
        positions, length = self.ready().bundle.positions, len(prompt.source)
        if positions is None and length > MOST_TOKENS:
            raise StudentError(
                f"the input has {length:,} tokens, and {MOST_TOKENS:,} are allowed; shorten the text, or "
                "divide it and ask for each part"
            )
        needed = placed_tokens(self.card["family"], length, len(prompt.opening), room)
        if positions and needed > positions:
            raise StudentError(
                f"the model has {positions} positions, and an input of {length} tokens needs "
                f"{needed} with {room} for what is written; shorten the text, or take another student"
            )

    def _in_batches(
        self, questions: Sequence[Question], work: Callable[[list[Question]], Sequence[T]], watch: Watcher
    ) -> list[T]:
        """What `work` gives for each question, in their order."""
        found: dict[int, T] = {}
        for chosen in batches([len(question.prompt.source) for question in questions], BATCH):
            with self._turn:
                made = work([questions[i] for i in chosen])
            found.update(zip(chosen, made, strict=True))
            watch("predict", len(found), len(questions))
        return [found[i] for i in range(len(questions))]
