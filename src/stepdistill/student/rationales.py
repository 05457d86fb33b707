"""Where rationales come from: the teacher, a person, or a control that has their form and not their sense."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

from stepdistill.config.train import RationaleSource
from stepdistill.errors import StudentError
from stepdistill.records import Annotation, Example, Unparsed

SOURCES: dict[RationaleSource, str] = {
    "teacher": "the teacher's",
    "human": "a person's, out of the data",
    "shuffled": "the teacher's for another example",
    "filler": "as long as the teacher's, without content",
    "none": "none",
}
"""Every source, and whose rationales they are."""

FILLERS = ("so", "the", "and", "it", "is", "of", "to", "a", "that", "was", "in", "for", "x", "1", ".", ",")
"""Words without content; the first that is one token of the student's, however often repeated, is taken."""
_LENGTHS = (1, 2, 3, 8, 64)

Ids = Callable[[str], Sequence[int]]
"""The student's ids of a target text, without the end of sequence."""


@dataclass(frozen=True, slots=True)
class Reasons:
    """The rationales of one example, of which none may be there, and what the example's count for."""

    texts: tuple[str, ...] = ()
    weight: float = 1.0


class Filler:
    """Texts of a given number of tokens that say nothing.

    Args:
        ids: the student's ids of a text.
        unknown: the id that stands for words the student does not know, if it has one.

    Raises:
        StudentError: the student has no word that makes texts of every length.
    """

    def __init__(self, ids: Ids, unknown: int | None = None) -> None:
        self._ids, self._unknown = ids, unknown
        self._texts: dict[int, str] = {}
        fitting = (w for w in FILLERS if all(self._fits(w, n) for n in _LENGTHS))
        self.word = next(fitting, "")
        if not self.word:
            raise StudentError(
                "rationales 'filler': the student's tokenizer writes none of the words "
                f"{' '.join(FILLERS)} as one known token; choose 'shuffled' or 'none' as the control"
            )

    def text(self, tokens: int) -> str:
        """A text of exactly so many tokens.

        Raises:
            StudentError: the tokenizer merges the repeated word at this length.
        """
        if tokens not in self._texts:
            if tokens and not self._fits(self.word, tokens):
                raise StudentError(
                    f"rationales 'filler': '{self.word}' repeated {tokens} times is not {tokens} of the "
                    "student's tokens; choose 'shuffled' or 'none' as the control"
                )
            self._texts[tokens] = " ".join([self.word] * tokens)
        return self._texts[tokens]

    def like(self, text: str) -> str:
        """A text of as many tokens as this one."""
        return self.text(len(self._ids(text)))

    def _fits(self, word: str, tokens: int) -> bool:
        ids = self._ids(" ".join([word] * tokens))
        return len(ids) == tokens and self._unknown not in ids


@dataclass(frozen=True)
class Rationales:
    """Gives the rationales of examples; whoever wants another source changes nothing else.

    Args:
        source: where they come from.
        annotations: the teacher's answers by example id.
        share: of how many examples the rationales are used. Whether an example is among them depends on
            its id and the seed only, so those of a smaller share are among those of a larger one.
        most: at most so many of one example, the first ones.
        votes: whether the teacher's count for as much as its confidence.
        seed: for the share and for shuffling.
        filler: makes the texts of the source `filler`.
        others: for `shuffled`: the example whose rationales each one gets; made by `shuffle`.

    Raises:
        ValueError: `filler` without one.
    """

    source: RationaleSource = "teacher"
    annotations: Mapping[str, Annotation | Unparsed] = field(default_factory=dict)
    share: float = 1.0
    most: int = 1
    votes: bool = False
    seed: int = 0
    filler: Filler | None = None
    others: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.source == "filler" and self.filler is None:
            raise ValueError("the source 'filler' needs a Filler")

    def of(self, example: Example) -> Reasons:
        """The rationales of an example."""
        if self.source == "none" or not chosen(example.id, self.share, self.seed):
            return Reasons()
        if self.source == "human":
            return Reasons((example.rationale,) if example.rationale else ())
        if self.source == "shuffled":
            other = self.others.get(example.id)
            return Reasons() if other is None else self._written(other)
        found = self._written(example.id)
        if self.source == "filler" and self.filler:
            return Reasons(tuple(map(self.filler.like, found.texts)), found.weight)
        return found

    def _written(self, example_id: str) -> Reasons:
        read = self.annotations.get(example_id)
        if not isinstance(read, Annotation):
            return Reasons()
        texts = [text for text in (read.rationale, *read.more) if text]
        return Reasons(tuple(texts[: self.most]), read.confidence if self.votes else 1.0)


def chosen(example_id: str, share: float, seed: int) -> bool:
    """Whether an example is in a seeded share of all; the shares are nested.

    >>> [chosen("a", share, 0) for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
    [False, False, False, True, True]
    """
    key = f"{seed}:{example_id}".encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "big") < share * 2**64


def shuffle(ids: Iterable[str], seed: int) -> dict[str, str]:
    """Another example for each of some: every one is given away once, none to itself.

    Raises:
        StudentError: there are fewer than two.

    >>> shuffle(["a", "b"], 0) == {"a": "b", "b": "a"}
    True
    """
    order = list(ids)
    if len(order) < 2:
        raise StudentError(
            f"rationales 'shuffled': {len(order)} example(s) have a rationale and two are needed to exchange "
            "them; annotate more examples, or raise train.rationale_share"
        )
    # One ring through all of them in random order: whatever the draw, nobody is next to himself.
    random.Random(seed).shuffle(order)  # noqa: S311 - no secret
    return dict(zip(order, [*order[1:], order[0]], strict=True))
