"""What reading an answer gives, and the protocol of all answer kinds."""

from __future__ import annotations

import string
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read: a canonical label and by which rule, or None and the reason."""

    label: str | None
    rule: str = ""
    reason: str = ""


def unread(reason: str) -> Reading:
    """A reading without a label."""
    return Reading(None, reason=reason)


class AnswerKind(Protocol):
    """One kind of answer."""

    def read(self, text: str, options: Sequence[str] = ()) -> Reading:
        """Read a label out of the words of a model; never raises, whatever the text."""
        ...

    def gold(self, value: object, options: Sequence[str] = ()) -> str:
        """Canonical form of a label from the data; raises ValueError where it is not one."""
        ...

    def same(self, left: str, right: str) -> bool:
        """Whether two canonical labels are the same answer."""
        ...

    def show(self, label: str, options: Sequence[str] = ()) -> str:
        """How a teacher writes the label behind the marker."""
        ...


def normal(text: str) -> str:
    """Normal form: case, width, outer punctuation and runs of white space do not count."""
    text = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(text.split()).strip(string.punctuation + "…“”‘’ ")
