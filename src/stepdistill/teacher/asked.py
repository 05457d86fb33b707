"""A teacher that is prompted: its stages, its answers in the ledger, and how they join their examples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice

from stepdistill.config import TeacherConfig
from stepdistill.records import Annotation, Completion, Example, Watcher
from stepdistill.task.load import Task
from stepdistill.task.schema import Split
from stepdistill.teacher.backends import BACKENDS
from stepdistill.teacher.entry import Entry
from stepdistill.teacher.key import Keys
from stepdistill.teacher.ledger import Ledger
from stepdistill.teacher.parse import parse
from stepdistill.teacher.prices import NANO, Price, need_price
from stepdistill.teacher.prompts import Prompter
from stepdistill.teacher.protocol import Backend, Prompt, Sampling, Tally, as_extra
from stepdistill.teacher.settle import Heard, Settled, vote
from stepdistill.teacher.work import CHUNK, Order, Work

Pair = tuple[Split, Example]
Stream = Callable[[], Iterable[Pair]]
"""Gives the examples anew each time that it is called."""
Stage = Callable[[Sequence[Pair]], Iterator[tuple[str, Prompt, int]]]
"""What a stage asks about some examples: (example id, prompt, draw)."""


class AskedTeacher:
    """One teacher of a run, with its prompts and keys.

    Answers are joined to examples by the prompt itself: the prompt of an example is made anew, and its
    key looks the answer up. Nothing is ever joined by position.
    """

    def __init__(self, task: Task, teacher: TeacherConfig, seed: int, ledger: Ledger) -> None:
        self.name = str(teacher.model)
        self.teacher = teacher
        self._task, self._seed, self._ledger = task, seed, ledger
        self.prompter = Prompter(task, teacher, seed)
        self.sampling = sampling_of(teacher, self.prompter)
        self.keys = Keys(teacher, self.sampling)
        self._price: Price | None = None
        self._most: int | None = None
        self._backend: Backend

    def prepare(self, max_cost_usd: float | None, backend: Backend | None = None) -> None:
        """Check what can be checked before anything is paid: the price, the key, what must be installed.

        Args:
            max_cost_usd: what the ledger may hold of paid answers.
            backend: the way to the model, where there is one already; its `sampling` must be this one's.

        Raises:
            ConfigError, TeacherError, MissingExtraError: of any of these.
        """
        self._price = need_price(self.teacher, max_cost_usd)
        self._most = None if max_cost_usd is None else round(max_cost_usd * NANO)
        made = BACKENDS[self.teacher.backend]
        self._backend = backend or made(self.teacher, self.sampling, self._seed)

    def ask(self, examples: Stream, total: int, watch: Watcher, tally: Tally) -> None:
        """Have every example answered that the ledger has no answer for; call `prepare` first.

        Raises:
            TeacherError: the teacher does not answer; what it has answered is in the ledger.
            BudgetError, LedgerError: as `Work.exchange`.
        """
        for name, stage in self.stages():
            order = Order(
                what=f"{name} {self.name}",
                prompts=partial(_prompts, stage, examples),
                total=total * self.teacher.draws,
                keys=self.keys,
                sampling=self.sampling,
                price=self._price,
                max_cost=self._most,
                watch=watch,
            )
            self._backend.answer(Work(self._ledger, order, tally))

    def heard(self, pairs: Sequence[Pair]) -> list[list[Heard]]:
        """The answers to some examples as far as the ledger has them, read."""
        found = self._words(pairs)
        return [
            [self._hear(example, completion) for completion in completions] + self._hinted(pair)
            for pair, completions in zip(pairs, found, strict=True)
            for example in [pair[1]]
        ]

    def _hear(self, example: Example, completion: Completion, hinted: bool = False) -> Heard:
        read = parse(completion, self._task, example.options, example.text)
        return Heard(self.name, completion.model, completion.draw, completion.text, read, hinted)

    def _words(self, pairs: Sequence[Pair]) -> list[list[Completion]]:
        """Completions by example; of two stages, both in one where the second was needed."""
        first = self._first_answers(pairs)
        if self.teacher.prompt != "zero-shot":
            return [
                [_completion(e, entry) for entry in row] for (_, e), row in zip(pairs, first, strict=True)
            ]
        wanted = [
            (self.prompter.conclude(example, entry.text), entry.draw)
            for (_, example), row in zip(pairs, first, strict=True)
            for entry in row
        ]
        second = iter(self.find(wanted))
        return [
            [self._joined(example, entry, next(second)) for entry in row]
            for (_, example), row in zip(pairs, first, strict=True)
        ]

    def _joined(self, example: Example, first: Entry, second: Entry | None) -> Completion:
        alone = _completion(example, first)
        if second is None or self._reads(example, alone):
            return alone
        text = self.prompter.joined(first.text, second.text, example.text)
        return Completion(
            example.id,
            text,
            first.model,
            first.draw,
            second.finish,
            _sum(first.prompt_tokens, second.prompt_tokens),
            _sum(first.completion_tokens, second.completion_tokens),
            _sum(first.cost, second.cost),
        )

    def _hinted(self, pair: Pair) -> list[Heard]:
        split, example = pair
        if not self._is_hintable(split, example):
            return []
        (entry,) = self.find([(self.prompter.explain(example), 0)])
        return [self._hear(example, _completion(example, entry), hinted=True)] if entry else []

    def _first_answers(self, pairs: Sequence[Pair]) -> list[list[Entry]]:
        draws = range(self.teacher.draws)
        wanted = [(self.prompter.ask(example), draw) for _, example in pairs for draw in draws]
        found = iter(self.find(wanted))
        return [[entry for _ in draws if (entry := next(found))] for _ in pairs]

    def find(self, wanted: Sequence[tuple[Prompt, int]]) -> list[Entry | None]:
        """Answers that the ledger has to some (prompt, draw), in their order."""
        slots = [self.keys.slot(prompt, draw) for prompt, draw in wanted]
        found, _ = self._ledger.find(slots, self.sampling.max_tokens)
        return [found.get(slot) for slot in slots]

    def _reads(self, example: Example, completion: Completion) -> bool:
        return isinstance(parse(completion, self._task, example.options, example.text), Annotation)

    def stages(self) -> list[tuple[str, Stage]]:
        """What is asked in turn, by name; a second stage goes by the stored answers of the first."""
        further: dict[str, list[tuple[str, Stage]]] = {
            "few-shot": [],
            "zero-shot": [("conclude", self._conclusions)],
            "hinted": [("hint", self._hints)],
        }
        return [("ask", self.first), *further[self.teacher.prompt]]

    def first(self, pairs: Sequence[Pair]) -> Iterator[tuple[str, Prompt, int]]:
        """What the first stage asks about some examples."""
        for _, example in pairs:
            prompt = self.prompter.ask(example)
            for draw in range(self.teacher.draws):
                yield example.id, prompt, draw

    def later(self, pairs: Sequence[Pair]) -> Iterator[Prompt]:
        """What a second stage asks at most about examples that the first has no answers for yet."""
        for split, example in pairs:
            if self.teacher.prompt == "zero-shot":
                yield from [self.prompter.conclude(example, "")] * self.teacher.draws
            elif self._is_hintable(split, example):
                yield self.prompter.explain(example)

    def _is_hintable(self, split: Split, example: Example) -> bool:
        """Whether the gold label may be told: never of what the student is measured on."""
        return self.teacher.prompt == "hinted" and split == "train" and example.label is not None

    def _conclusions(self, pairs: Sequence[Pair]) -> Iterator[tuple[str, Prompt, int]]:
        """The second stage of zero-shot, for reasoning that does not end in an answer by itself."""
        for (_, example), row in zip(pairs, self._first_answers(pairs), strict=True):
            for entry in row:
                if not self._reads(example, _completion(example, entry)):
                    yield example.id, self.prompter.conclude(example, entry.text), entry.draw

    def _hints(self, pairs: Sequence[Pair]) -> Iterator[tuple[str, Prompt, int]]:
        """Prompts with the gold label for training examples that the teacher got wrong."""
        mine = [pair for pair in pairs if self._is_hintable(*pair)]
        for (_, example), row in zip(mine, self._first_answers(mine), strict=True):
            voted = self._vote(example, row)
            if voted is None:
                continue
            read, same = voted.read, self._task.kind.same
            if not isinstance(read, Annotation) or not same(read.label, str(example.label)):
                yield example.id, self.prompter.explain(example), 0

    def _vote(self, example: Example, row: Sequence[Entry]) -> Settled | None:
        heard = [self._hear(example, _completion(example, entry)) for entry in row]
        return vote(heard, self._task.kind.same, "one") if heard else None


def sampling_of(teacher: TeacherConfig, prompter: Prompter) -> Sampling:
    """How a teacher's answers are drawn."""
    return Sampling(
        teacher.temperature, teacher.top_p, teacher.max_tokens, prompter.stop, as_extra(teacher.extra)
    )


def chunks(examples: Iterable[Pair]) -> Iterator[list[Pair]]:
    """The examples in lists that are looked up together."""
    source = iter(examples)
    while part := list(islice(source, CHUNK)):
        yield part


def _prompts(stage: Stage, examples: Stream) -> Iterator[tuple[str, Prompt, int]]:
    for part in chunks(examples()):
        yield from stage(part)


def _completion(example: Example, entry: Entry) -> Completion:
    return Completion(
        example.id,
        entry.text,
        entry.model,
        entry.draw,
        "length" if entry.is_cut else entry.finish,
        entry.prompt_tokens,
        entry.completion_tokens,
        entry.cost,
    )


def _sum(first: int | None, second: int | None) -> int | None:
    return None if first is None or second is None else first + second
