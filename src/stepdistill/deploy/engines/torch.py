"""A student run by torch: the trained one itself, or its export to transformers' own format."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from stepdistill.deploy.bundle import Bundle
from stepdistill.deploy.engines import Prompt, Question
from stepdistill.student.generate import check_positions, in_batches, write_ids
from stepdistill.student.model import Student, load_student
from stepdistill.student.scoring import first_step, spell
from stepdistill.weights import Device

T = TypeVar("T")
_Work = Callable[[list[int], tuple[int, ...]], Sequence[T]]
_REFUSAL = (
    "not enough memory to answer one input at a time; free memory, shorten the texts, or take a smaller "
    "student"
)


def open_engine(folder: Path, bundle: Bundle, threads: int | None = None) -> TorchEngine:
    """The student of a folder in transformers' format, in float32.

    Args:
        folder: a bundle, or a student's own folder.
        bundle: its manifest; of a student's own folder `bundle.of_student`.
        threads: of this process, for all that torch does in it; None: as torch chooses.

    Raises:
        StudentError: it cannot be loaded.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    # On a CPU again where it was trained on one, also beside a GPU: the same numbers.
    device: Device = "cpu" if bundle.card["machine"]["device"] == "cpu" else "auto"
    return TorchEngine(load_student(str(folder), prefix=bundle.card["prefix"], device=device))


@dataclass(frozen=True)
class TorchEngine:
    """An `Engine`. Where memory runs out, a batch is halved until it fits.

    All raise StudentError: a prompt is longer than the model has places, or than memory allows.
    """

    student: Student
    computes: str = "float32"

    def first(self, questions: Sequence[Question]) -> list[list[float]]:
        """As `Engine.first`; one reading of the prompts, and for a decoder one step."""

        def work(places: list[int], opening: tuple[int, ...]) -> list[list[float]]:
            chosen = [questions[place] for place in places]
            found = first_step(self.student, [q.prompt.source for q in chosen], opening)
            begins = [[target[0] for target in question.targets] for question in chosen]
            return [row[ids].tolist() for row, ids in zip(found, begins, strict=True)]

        return self._batched([question.prompt for question in questions], work, 1)

    def spell(self, questions: Sequence[Question]) -> list[list[list[float]]]:
        """As `Engine.spell`; a prompt is read once for all its targets."""

        def work(places: list[int], opening: tuple[int, ...]) -> list[list[list[float]]]:
            chosen = [questions[place] for place in places]
            targets = [question.targets for question in chosen]
            return spell(self.student, [q.prompt.source for q in chosen], opening, targets)

        longest = max((len(target) for q in questions for target in q.targets), default=0)
        return self._batched([question.prompt for question in questions], work, longest)

    def write(self, prompts: Sequence[Prompt], new_tokens: int, stop: str | None = None) -> list[list[int]]:
        """As `Engine.write`."""

        def work(places: list[int], opening: tuple[int, ...]) -> list[list[int]]:
            sources = [prompts[place].source for place in places]
            return write_ids(self.student, sources, opening, new_tokens, stop)

        return self._batched(prompts, work, new_tokens)

    def _batched(self, prompts: Sequence[Prompt], work: _Work[T], new_tokens: int) -> list[T]:
        """What `work` gives for each prompt; it is given places of prompts that have the same opening."""
        found: dict[int, T] = {}
        for opening in dict.fromkeys(prompt.opening for prompt in prompts):
            places = [i for i, prompt in enumerate(prompts) if prompt.opening == opening]
            lengths = [len(prompts[place].source) for place in places]
            check_positions(self.student, max(lengths), len(opening), new_tokens)
            with torch.inference_mode():
                made = in_batches(
                    self.student,
                    lengths,
                    lambda chosen, places=places, opening=opening: work([places[i] for i in chosen], opening),  # type: ignore[misc]
                    _REFUSAL,
                    len(places),
                )
            found.update(zip(places, made, strict=True))
        return [found[i] for i in range(len(prompts))]
