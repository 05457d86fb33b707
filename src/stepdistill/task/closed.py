"""Answers from a closed set: one of the labels of the task, or one of the options of the example."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from stepdistill.errors import brief
from stepdistill.task.reading import Reading, normal, unread


@dataclass(frozen=True, slots=True)
class LabelKind:
    """One of a closed set of labels, such as entailment / neutral / contradiction."""

    labels: tuple[str, ...]
    codes: Mapping[str, str] = field(default_factory=dict)

    def read(self, text: str, options: Sequence[str] = ()) -> Reading:
        """The label that the text is, or the only one that it names.

        >>> LabelKind(("yes", "no")).read("Yes.")
        Reading(label='yes', rule='exact', reason='')
        >>> LabelKind(("yes", "no")).read("yes or no").reason
        'several labels'
        """
        words = normal(text)
        if not words:
            return unread("empty answer")
        for label in self.labels:
            if words == normal(label):
                return Reading(label, "exact")
        named = _outermost(words, self.labels)
        if len(named) == 1:
            return Reading(named[0], "named")
        return unread("several labels" if named else "not a label")

    def gold(self, value: object, options: Sequence[str] = ()) -> str:
        """The label, from its name or its code in the data (0, 1, 2 ...)."""
        text = str(value)
        if text in self.codes:
            return self.codes[text]
        for label in self.labels:
            if normal(text) == normal(label):
                return label
        allowed = ", ".join([*self.labels, *self.codes])
        raise ValueError(f"label {brief(value)} is not in the closed set; allowed: {allowed}")

    def same(self, left: str, right: str) -> bool:
        """Labels are the same when they are equal."""
        return left == right

    def show(self, label: str, options: Sequence[str] = ()) -> str:
        """The label itself."""
        return label


_LETTER = re.compile(r"\(([A-Za-z])\)")
_BARE_LETTER = re.compile(r"\s*([A-Za-z])\s*(?:[).:](?:\s|$)|$)")


@dataclass(frozen=True, slots=True)
class ChoiceKind:
    """One of the options that come with each example; the label is the option's text.

    Three rules read the option letters behind the marker, as PaLM-540B's answers to CommonsenseQA
    show: `sole-letter` takes the letter when the answer names one option and leaves "either (a) or
    (b)" unread; `first-letter` takes the first; `text` takes the words behind the letter, in their
    exact case, as the authors' code does. `sole-letter` is the default: it neither loses "(c)
    Michigan." against "michigan" nor counts an undecided answer as right.
    """

    rule: str = "sole-letter"

    def read(self, text: str, options: Sequence[str] = ()) -> Reading:
        """The option whose letter or words the text names.

        >>> ChoiceKind().read(" (b) Lake.", ["sea", "lake"])
        Reading(label='lake', rule='letter', reason='')
        >>> ChoiceKind().read("either (a) sea or (b) lake", ["sea", "lake"]).reason
        'several options'
        """
        if self.rule == "text":
            words = re.sub(r"^\s*\([a-z]\)", "", text).strip().removesuffix(".").strip()
            return Reading(words, "text") if words in options else unread("not an option")
        # Students write the option's words: "A" is the option called A before it is a letter.
        for exact in (text.strip(), text.strip().removesuffix(".").strip()):
            if exact in options:
                return Reading(exact, "words")
        for option in options:
            if normal(text) == normal(self.show(option, options)):
                return Reading(option, "letter")
        letters = [letter.lower() for letter in _LETTER.findall(text)]
        if not letters and (bare := _BARE_LETTER.match(text)):
            letters = [bare[1].lower()]
        if not letters:
            return self._by_words(text, options)
        if self.rule == "sole-letter" and len(set(letters)) > 1:
            return unread("several options")
        index = ord(letters[0]) - ord("a")
        if index >= len(options):
            return unread("no such option")
        return Reading(options[index], "letter")

    def _by_words(self, text: str, options: Sequence[str]) -> Reading:
        words = normal(text)
        if not words:
            return unread("empty answer")
        same = [option for option in dict.fromkeys(options) if words == normal(option)]
        if same:
            return Reading(same[0], "words") if len(same) == 1 else unread("several options")
        named = _outermost(words, options)
        if len(named) == 1:
            return Reading(named[0], "named")
        return unread("several options" if named else "not an option")

    def gold(self, value: object, options: Sequence[str] = ()) -> str:
        """The option's text, from the text, a letter or a number that counts from 0."""
        text = str(value)
        if text in options:
            return text
        if re.fullmatch("[A-Za-z]", text) and ord(text.lower()) - ord("a") < len(options):
            return options[ord(text.lower()) - ord("a")]
        if isinstance(value, int) and value in range(len(options)):
            return options[value]
        raise ValueError(f"label {brief(value)} is not among the options: {', '.join(options)}")

    def same(self, left: str, right: str) -> bool:
        """Options are the same when their texts are (CommonsenseQA has doubled options)."""
        return left == right

    def show(self, label: str, options: Sequence[str] = ()) -> str:
        """The letter in brackets and the words: `(b) lake`."""
        return f"({chr(ord('a') + list(options).index(label))}) {label}"


_OPTION_LINE = re.compile(r"^[ \t]*\(([a-z])\)(.*\S)", re.MULTILINE)


def options_in(text: str) -> tuple[str, ...]:
    r"""Options that stand in a text as lines "(a) x", where they are lettered without a gap.

    >>> options_in("Where?\n(a) sea\n(b) lake")
    ('sea', 'lake')
    """
    found = _OPTION_LINE.findall(text)
    letters = "".join(letter for letter, _ in found)
    lettered = string.ascii_lowercase.startswith(letters)
    return tuple(words.strip() for _, words in found) if lettered else ()


def _outermost(words: str, names: Sequence[str]) -> list[str]:
    """Names that stand in the text as whole words, without those inside a longer one that does."""
    found = [
        name
        for name in dict.fromkeys(names)
        if normal(name) and re.search(rf"(?<!\w){re.escape(normal(name))}(?!\w)", words)
    ]
    return [
        name for name in found if not any(name != other and normal(name) in normal(other) for other in found)
    ]
