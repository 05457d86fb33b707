"""A completion read as rationale and label, or the reason why it cannot be read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

from stepdistill.records import Annotation, Completion, Unparsed
from stepdistill.task.closed import ChoiceKind, LabelKind
from stepdistill.task.load import Task
from stepdistill.task.reading import Reading, unread

_CUT = "cut off by max_tokens"
_WITHHELD = "withheld by the provider's filter"


def parse(
    completion: Completion, task: Task, options: Sequence[str] = (), asked: str = ""
) -> Annotation | Unparsed:
    """Read one completion; never raises, whatever the teacher wrote.

    The completion is cut where it runs on into an invented next question. What stands before the
    last answer marker is the rationale; what stands behind it, up to the end of its line, is given
    to the task's answer kind. Only a completion without the task's marker is searched for another
    one ("Answer:", "####", "\\boxed{}"), and, for a closed set, for a last line that is a label and
    nothing besides; the rule says so. Nothing else is guessed: it would teach the student text as
    if it were an answer. `asked` is the input, which chat models like to repeat.

    Returns:
        An `Annotation`, or `Unparsed` with one of a few short reasons, so that they can be counted.
    """
    name = completion.example_id
    if _BROKEN.search(completion.text):
        return Unparsed(name, "broken characters")
    text = cut_run_on(completion.text, task, asked)
    limited = completion.finish == "length" and text == completion.text.strip()
    found = _find(text, task, options, limited)
    reading = found.reading
    if reading.label is not None and not (limited and found.open_end and _may_go_on(completion.text, task)):
        return Annotation(name, found.rationale, reading.label, reading.rule)
    if completion.finish == "content_filter":
        return Unparsed(name, _WITHHELD)
    return Unparsed(name, _CUT if limited and found.open_end else reading.reason)


def cut_run_on(text: str, task: Task, asked: str = "") -> str:
    """The teacher's answer without the next question that it invents behind it.

    PaLM-540B runs on in every answer to CommonsenseQA, since nothing in its prompt ends one. Where the
    input itself (`asked`) is repeated before the answer, that is no next question.
    """
    for match in _run_on(task.spec.input).finditer(text):
        answered = marker_pattern(task.spec.answer.marker).search(text, 0, match.start())
        if answered or not asked or not _repeats(text[match.start() :], asked):
            return text[: match.start()].strip()
    return text.strip()


_ENOUGH = 40
"""Characters that show that an input is repeated."""


def _repeats(text: str, asked: str) -> bool:
    """Whether a text begins with the input, with or without a "Question:" before it."""
    begun, wanted = (" ".join(part[: 4 * _ENOUGH].casefold().split()) for part in (text, asked))
    plain = re.sub(r"^(?:q|question)\s*:\s*", "", begun)
    return any(part.startswith(wanted[:_ENOUGH]) for part in (begun, plain))


@dataclass(frozen=True, slots=True)
class _Found:
    """What was found in a text; `open_end` where a longer text could have changed it."""

    rationale: str
    reading: Reading
    open_end: bool = True


def _find(text: str, task: Task, options: Sequence[str], limited: bool) -> _Found:
    if not text:
        return _Found("", unread("empty completion"))
    marks = list(marker_pattern(task.spec.answer.marker).finditer(text))
    if marks:
        rest = text[marks[-1].end() :].strip()
        reading, marked_up = _read_behind(rest, task, options)
        if marked_up:
            reading = replace(reading, rule=f"markup: {reading.rule}")
        return _Found(text[: marks[-1].start()].strip(), reading, "\n" not in rest)
    other = _other_marker(text)
    if other is not None:
        reading = _read_doubtful(other.answer, task, options)
        if reading.label is not None:
            reading = replace(reading, rule=f"other marker: {reading.rule}")
            return _Found(other.rationale, reading, "\n" not in other.answer and not other.closed)
    # A last line that the token limit cut may have been about to go on: "No" and "No, but".
    if not limited and (last := _last_line(text, task, options)) is not None:
        return last
    return _Found("", reading if other is not None else unread("no answer marker"))


def _may_go_on(text: str, task: Task) -> bool:
    """Whether the answer at the very end of a cut text may be a piece of one: 12 of 1250."""
    return not isinstance(task.kind, LabelKind | ChoiceKind) and not text.endswith("\n")


def _read_behind(rest: str, task: Task, options: Sequence[str]) -> tuple[Reading, bool]:
    """What the first line says as it stands, else without its markup; and whether that was needed."""
    answer = rest.split("\n", 1)[0]
    reading = task.kind.read(answer, options)
    if reading.label is None and (plain := without_markup(rest)) != answer:
        again = task.kind.read(plain, options)
        if again.label is not None:
            return again, True
    return reading, False


def _read_doubtful(rest: str, task: Task, options: Sequence[str]) -> Reading:
    """An answer behind words that are not the task's: "the answer is not (b)" is none."""
    rest = rest.strip()
    reading, _ = _read_behind(rest, task, options)
    if reading.label is None or not _NEGATION.search(rest.split("\n", 1)[0]):
        return reading
    return reading if _NEGATION.search(reading.label) else unread("negated answer")


_LAST_LINES = 50
_LONGEST_LINE = 500


def _last_line(text: str, task: Task, options: Sequence[str]) -> _Found | None:
    """The last line, where it is a label of a closed set and no other line is another label.

    A model that repeats the question ends in the list of its options: the last one is no answer.
    """
    kind = task.kind
    if not isinstance(kind, LabelKind | ChoiceKind):
        return None
    lines = [line for line in text[-_LAST_LINES * _LONGEST_LINE :].split("\n") if line.strip()][-_LAST_LINES:]
    if len(lines[-1]) > _LONGEST_LINE:
        return None
    found = [kind.alone(without_markup(line), options) for line in lines if len(line) <= _LONGEST_LINE]
    labels = {reading.label for reading in found} - {None}
    if found[-1].label is None or len(labels) > 1:
        return None
    rationale = text[: len(text) - len(lines[-1])].strip()
    return _Found(rationale, replace(found[-1], rule=f"last line: {found[-1].rule}"), False)


_BROKEN = re.compile("[\ud800-\udfff]")
_NEGATION = re.compile(r"\b(?:not|never|neither|nor|cannot)\b|n['’]t\b", re.IGNORECASE)
_OTHER_MARKER = re.compile(
    r"""
    # "the answer is"; behind if and whether nothing has been answered
    (?<!\bif\s)(?<!\bwhether\s) [*_]{0,3}
    (?:\b(?:so|therefore|thus|hence)\b,?\s+)? (?<!\bif\s)(?<!\bwhether\s)
    \bthe\s+(?:(?:final|correct|right)\s+)?answer\s+is\b\s*:?
    # "**Final answer:**" at the start of a line
    | ^[ \t>*_\#-]{0,10}(?:(?:final|correct)[ \t]+)?answer[ \t]*[*_]{0,3}[ \t]*:[*_]{0,3}
    # GSM8K's "#### 42"; with letters behind it, it is a heading, unless the text ends there
    | ^\#\#\#\#[ \t]+(?=[^A-Za-z\n]*$|[^\n]*\Z)
    """,
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class _Other:
    rationale: str
    answer: str
    closed: bool = False


def _other_marker(text: str) -> _Other | None:
    """What stands before and behind the last of the markers that models use unasked."""
    start = end = -1
    for mark in _OTHER_MARKER.finditer(text):
        start, end = mark.span()
    box = text.rfind(_BOX)
    close = _brace(text, box + len(_BOX)) if box >= 0 else -1
    if close < 0 or box < end:
        return _Other(text[:start].strip(), text[end:].strip()) if start >= 0 else None
    # "The answer is $\boxed{4}$" is one marker: its first half is no reasoning.
    joined = end >= 0 and (_bare(text[end:box]) or "\n" not in text[end:box])
    before = text[:start].strip() if joined else _without_opening(text[:box])
    return _Other(before, text[box + len(_BOX) : close], closed=True)


_BOX = "\\boxed{"
_MARKUP = " \t\r\n*_`$#>\\[]"
_PAIRS = (
    *(("**", "**"), ("__", "__"), ("*", "*"), ("_", "_"), ("`", "`"), ("$$", "$$"), ("$", "$")),
    *(("\\(", "\\)"), ("\\[", "\\]"), (_BOX, "}")),
)
_LETTERING = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf)\{([^{}]*)\}")
_LONGEST_ANSWER = 2_000


def without_markup(text: str) -> str:
    r"""The first line with words in it, without the Markdown or LaTeX around it.

    Only what encloses the whole line is taken away: inside it, `$`, `*` and `_` are the answer's own.

    >>> without_markup(r"$$\boxed{\text{(b) lake}}$$.")
    '(b) lake'
    """
    lines = text[:_LONGEST_ANSWER].split("\n")
    line = next((line for line in lines if not _bare(line)), "")
    line = _LETTERING.sub(r"\1", line).strip()
    for _ in range(8):
        inner = _unwrapped(line.removesuffix(".").strip())
        if inner is None:
            break
        line = inner.strip()
    return line.removeprefix("** ").removesuffix("**").strip()


def _unwrapped(line: str) -> str | None:
    for left, right in _PAIRS:
        if line.startswith(left) and line.endswith(right) and len(line) > len(left) + len(right):
            inner = line[len(left) : -len(right)]
            if left not in inner and right not in inner:
                return inner
    return None


def _bare(text: str) -> bool:
    return not text.strip(_MARKUP)


def _without_opening(text: str) -> str:
    """What stands before a box, without the sign that opens its formula."""
    text = text.rstrip().rstrip("$").rstrip()
    return text.removesuffix("\\[").removesuffix("\\(").removesuffix("**").strip()


def _brace(text: str, start: int) -> int:
    """Where the brace closes that stands open at `start`; -1 where it does not, or not soon."""
    depth = 1
    for place in range(start, min(len(text), start + _LONGEST_ANSWER)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return place
    return -1


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
def marker_pattern(marker: str) -> re.Pattern[str]:
    """Where a marker stands, whatever its case and spacing."""
    words = r"\s+".join(re.escape(word) for word in marker.split())
    return re.compile(rf"{words}\s*:?", re.IGNORECASE)
