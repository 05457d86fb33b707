"""Prompts: an example in the words in which a teacher is asked for its rationale and label."""

from __future__ import annotations

from collections.abc import Iterable

from stepdistill.config import TeacherConfig
from stepdistill.errors import ConfigError, TeacherError, brief
from stepdistill.records import Demonstration, Example
from stepdistill.task.load import Task
from stepdistill.teacher.demonstrations import Choice, choose
from stepdistill.teacher.parse import cut_run_on, marker_pattern
from stepdistill.teacher.protocol import Message, Prompt

THINK = "Let's think step by step."
"""Asks for reasoning without a demonstration of it (Kojima et al. 2022)."""
FINISH = "Now finish this sentence with the answer only:"
"""Asks a chat model for the answer that its reasoning came to; the task's marker follows."""


class Prompter:
    """Writes the prompts of one teacher.

    In style `text` a prompt is the paper's: instruction, "Q: x / A: r, marker, y." for each
    demonstration, then the question with an open "A:". In style `chat` the instruction is the system
    message and each demonstration a turn of user and assistant. Inputs stand in both as they are.

    The head of a prompt is one and the same tuple for all examples; only an example that is itself
    among fixed or balanced demonstrations gets a head of its own, without it.

    Attributes:
        stop: texts at which a backend ends an answer: the next question, where a text is continued.

    Raises:
        ConfigError: demonstrations are needed and the task has none, or not as many, or not such.
        MissingExtraError: they are chosen with a package that is not installed.
    """

    def __init__(self, task: Task, teacher: TeacherConfig, seed: int) -> None:
        self._task = task
        self._text = teacher.style == "text"
        self.stop: tuple[str, ...] = ("\nQ:",) if self._text else ()
        self._instruction = self._opening(())
        self._choice: Choice | None = None
        if teacher.prompt != "zero-shot":
            self._choice = choose(task, teacher.demonstrations, seed)
            shared = self._choice.shared or ()
            self._plain_head = self._opening(self._turns(shared, hinted=False))
            self._hinted_head = self._opening(self._turns(shared, hinted=True))

    def ask(self, example: Example) -> Prompt:
        """Ask for rationale and label; with `prompt: zero-shot`, for the reasoning alone."""
        if self._choice is None:
            return Prompt(self._instruction, (Message("user", self._think(example)),))
        return self._shown(self._choice, example, "")

    def conclude(self, example: Example, reasoning: str) -> Prompt:
        """Ask for the answer that follows from the reasoning: the second stage of `zero-shot`.

        The reasoning is cut where it runs on into a next question.
        """
        think, reasons, marker = self._think(example), self._cut(reasoning, example.text), self._marker
        if self._text:
            asked = f"{think} {reasons}".rstrip()
            return Prompt(self._instruction, (Message("user", f"{asked}\n{marker}"),))
        finish = f"{FINISH} {marker}"
        if not reasons:
            # Servers refuse an empty turn, and chat templates two turns of one side in a row.
            return Prompt(self._instruction, (Message("user", f"{think}\n{finish}"),))
        turns = (Message("user", think), Message("assistant", reasons), Message("user", finish))
        return Prompt(self._instruction, turns)

    def explain(self, example: Example) -> Prompt:
        """Give the gold label as a hint and ask for the rationale that leads to it (STaR).

        Raises:
            ConfigError: with `prompt: zero-shot`, which shows no demonstration of a hint.
            TeacherError: the example has no gold label.
        """
        if self._choice is None:
            raise ConfigError(
                "prompt: 'zero-shot' has no demonstrations to show how a hint is used; use `prompt: hinted`"
            )
        if example.label is None:
            raise TeacherError(
                f"example {brief(example.id)} has no gold label to give as a hint; ask for it without one "
                "(`prompt: few-shot`)"
            )
        return self._shown(self._choice, example, self._hint(example.label, example.options))

    def joined(self, reasoning: str, answer: str, asked: str = "") -> str:
        """The answers of the two stages of `zero-shot` as one completion: reasoning, marker, answer.

        The marker stands once before the answer, whether or not the answer repeats it. Run-ons of
        both are cut, as an invented question behind the reasoning would hide the answer; `asked` is the
        input.
        """
        parts = [part.strip() for part in marker_pattern(self._marker).split(self._cut(answer, asked))]
        said = [part for part in parts if part] or [""]
        # A text is continued with the answer, then often repeats itself; a chat may open with "Sure!".
        last = said[0] if self._text else said[-1]
        return f"{self._cut(reasoning, asked)} {self._marker} {last}".strip()

    @property
    def _marker(self) -> str:
        return self._task.spec.answer.marker.strip()

    def _cut(self, words: str, asked: str) -> str:
        return cut_run_on(words, self._task, asked)

    def _think(self, example: Example) -> str:
        return f"Q: {example.text}\nA: {THINK}" if self._text else f"{example.text}\n{THINK}"

    def _hint(self, label: str, options: tuple[str, ...]) -> str:
        return f"\n(The answer is known to be: {self._task.kind.show(label, options)}.)"

    def _shown(self, choice: Choice, example: Example, hint: str) -> Prompt:
        """The prompt with demonstrations; they too carry a hint where the example does."""
        chosen = choice(example)
        asked = f"{example.text}{hint}"
        question = Message("user", f"Q: {asked}\nA:" if self._text else asked)
        if chosen is choice.shared:
            return Prompt(self._hinted_head if hint else self._plain_head, (question,))
        turns = self._turns(chosen, hinted=bool(hint))
        if choice.shared is not None:
            return Prompt(self._opening(turns), (question,))
        if self._text:
            return Prompt(self._instruction, (Message("user", _run_together((*turns, question))),))
        return Prompt(self._instruction, (*turns, question))

    def _opening(self, turns: Iterable[Message]) -> tuple[Message, ...]:
        instruction = self._task.spec.instruction.strip()
        if self._text:
            return (Message("user", f"{instruction}\n\n{_run_together(turns)}"),)
        return (Message("system", instruction), *turns)

    def _turns(self, demonstrations: Iterable[Demonstration], hinted: bool) -> list[Message]:
        turns = []
        for shown in demonstrations:
            asked = shown.text + (self._hint(shown.label, shown.options) if hinted else "")
            answer = self._task.show(shown.rationale, shown.label, shown.options)
            if self._text:
                turns.append(Message("user", f"Q: {asked}\nA: {answer}\n\n"))
            else:
                turns += [Message("user", asked), Message("assistant", answer)]
        return turns


def _run_together(turns: Iterable[Message]) -> str:
    return "".join(turn.content for turn in turns)
