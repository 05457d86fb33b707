"""A completion read as rationale and label, or the reason why it cannot be read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

from stepdistill.records import Annotation, Completion, Unparsed
from stepdistill.task.load import Task


def parse(completion: Completion, task: Task, options: Sequence[str] = ()) -> Annotation | Unparsed:
    """Read one completion; never raises, whatever the teacher wrote.

    The completion is cut where it runs on into an invented next question. What stands before the
    last answer marker is the rationale; what stands behind it, up to the end of its line, is given
    to the task's answer kind. A completion without a marker has no label: guessing one would teach
    the student text as if it were an answer.

    Returns:
        An `Annotation`, or `Unparsed` with one of a few short reasons, so that they can be counted.
    """
    text = cut_run_on(completion.text, task)
    if not text:
        return Unparsed(completion.example_id, "empty completion")
    marks = list(_marker(task.spec.answer.marker).finditer(text))
    if not marks:
        return Unparsed(completion.example_id, "no answer marker")
    rationale = text[: marks[-1].start()].strip()
    answer = text[marks[-1].end() :].strip().split("\n", 1)[0]
    reading = task.kind.read(answer, options)
    if reading.label is None:
        return Unparsed(completion.example_id, reading.reason)
    return Annotation(completion.example_id, rationale, reading.label, reading.rule)


def cut_run_on(text: str, task: Task) -> str:
    """The teacher's answer without the next question that it invents behind it.

    PaLM-540B runs on in every answer to CommonsenseQA, since nothing in its prompt ends one.
    """
    match = _run_on(task.spec.input).search(text)
    return (text[: match.start()] if match else text).strip()


@cache
def _run_on(template: str) -> re.Pattern[str]:
    """A line that opens a question: "Q:", or the words with which the task's own inputs open."""
    opening = template.split("{", 1)[0].strip()
    words = ["Q", "Question"] + ([re.escape(opening.removesuffix(":").strip())] if opening else [])
    # "Q" alone at the very end is such a line, cut off by the token limit before its colon.
    asked = rf"(?:{'|'.join(words)})\s*(?::|\Z)"
    # Without a colon, one word alone could open any line of a rationale.
    if opening and not opening.endswith(":") and not opening.isalpha():
        asked += rf"|{re.escape(opening)}"
    # Not \s before it: that tries every line end of a run of them, once for each of them.
    return re.compile(rf"\n[^\S\n]*(?:{asked})")


@cache
def _marker(marker: str) -> re.Pattern[str]:
    words = r"\s+".join(re.escape(word) for word in marker.split())
    return re.compile(rf"{words}\s*:?", re.IGNORECASE)
