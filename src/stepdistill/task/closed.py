"""Answers from a closed set: one of the labels of the task, or one of the options of the example."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher

from stepdistill.errors import brief
from stepdistill.task.reading import Reading, normal, unread


@dataclass(frozen=True, slots=True)
class LabelKind:
    """One of a closed set of labels, such as entailment / neutral / contradiction."""

    labels: tuple[str, ...]
    codes: Mapping[str, str] = field(default_factory=dict)

    def read(self, text: str, options: Sequence[str] = ()) -> Reading:
        """The label that the text is, or the only one that it names, or the only one it misspells.

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
        if not named and (meant := misspelt(words, self.labels)) is not None:
            return Reading(meant, "fuzzy")
        return unread("several labels" if named else "not a label")

    def alone(self, text: str, options: Sequence[str] = ()) -> Reading:
        """The label that the text is and nothing besides, up to the normal form."""
        words = normal(text)
        same = [label for label in self.labels if words and words == normal(label)]
        return Reading(same[0], "exact") if same else unread("not a label")

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
_LONE_LETTER = re.compile(r"\(?([A-Za-z])[).:]{0,2}")


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
        if not named and (option := misspelt(words, options)) is not None:
            return Reading(option, "fuzzy")
        return unread("several options" if named else "not an option")

    def alone(self, text: str, options: Sequence[str] = ()) -> Reading:
        """The option that the text is and nothing besides: its words, its letter, or both.

        >>> ChoiceKind().alone("(b) lake", ["sea", "lake"])
        Reading(label='lake', rule='exact', reason='')
        >>> ChoiceKind().alone("not (b)", ["sea", "lake"]).reason
        'not an option'
        """
        if self.rule == "text":
            reading = self.read(text, options)
            return Reading(reading.label, "exact") if reading.label is not None else reading
        words, plain = normal(text), text.strip()
        if plain in options:
            return Reading(plain, "exact")
        same = [o for o in dict.fromkeys(options) if words and words == normal(o)]
        if len(same) > 1:
            return unread("several options")
        lettered = [o for o in options if words and words == normal(self.show(o, options))]
        if not same and not lettered and (letter := _LONE_LETTER.fullmatch(plain)):
            lettered = list(options[ord(letter[1].lower()) - ord("a") :][:1])
        found = (same or lettered)[:1]
        # "A" may be a letter and the words of another option: then it must mean what it means in `read`.
        if found and self.read(text, options).label == found[0]:
            return Reading(found[0], "exact")
        return unread("not an option")

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


_MAX_MISSPELT = 60
"""Characters; a longer answer is a sentence, and comparing it would cost time and find nothing."""
_MIN_WORD = 5
_SIMILAR, _APART = 0.85, 0.15
_LETTERS = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*(?: [^\W\d_]+(?:['’-][^\W\d_]+)*)*")


def misspelt(words: str, names: Sequence[str]) -> str | None:
    """The one name that a whole answer misspells: a letter too many, too few, or two swapped.

    One word of at least five letters may differ, and its first letter may not. A replaced letter is
    no slip here, since it makes other words (micro and macro, employer and employee), and neither is
    a part added to a word, since that negates (valid and invalid, could and couldn't). Nothing is
    read where a second name is nearly as similar.

    Args:
        words: the answer in normal form.
        names: the closed set, as written.

    >>> misspelt("contradicton", ["entailment", "neutral", "contradiction"])
    'contradiction'
    >>> misspelt("invalid", ["valid", "unclear"]) is None
    True
    """
    if len(words) > _MAX_MISSPELT or not _LETTERS.fullmatch(words):
        return None
    forms = {name: normal(name) for name in names}
    if words in forms.values():
        return None
    near = [name for name, form in forms.items() if _one_slip(words, form)]
    if len(near) != 1:
        return None
    best = _similarity(words, forms[near[0]])
    # A form of more than twice the length cannot be similar, and may be long enough to cost time.
    others = [f for n, f in forms.items() if n != near[0] and len(f) <= 2 * _MAX_MISSPELT]
    unique = all(_similarity(words, form) < best - _APART for form in others)
    return near[0] if best >= _SIMILAR and unique else None


def _one_slip(left: str, right: str) -> bool:
    """Whether exactly one word of two texts differs, and by a slip of the pen."""
    if abs(len(left) - len(right)) > 1 or not _LETTERS.fullmatch(right):
        return False
    first, second = re.split("[ -]", left), re.split("[ -]", right)
    if len(first) != len(second):
        return False
    differing = [pair for pair in zip(first, second, strict=True) if pair[0] != pair[1]]
    return len(differing) == 1 and _slip(*differing[0])


def _slip(left: str, right: str) -> bool:
    short, long = sorted((left, right), key=len)
    if len(short) < _MIN_WORD or short[0] != long[0] or short in long or _similarity(left, right) < _SIMILAR:
        return False
    at = next(i for i in range(len(short)) if short[i] != long[i])
    if len(short) < len(long):
        return short[at:] == long[at + 1 :]
    return short[at : at + 2] == long[at : at + 2][::-1] and short[at + 2 :] == long[at + 2 :]


def _similarity(left: str, right: str) -> float:
    return SequenceMatcher(None, left, right, autojunk=False).ratio()
