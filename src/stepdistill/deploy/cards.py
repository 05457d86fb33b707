"""The cards of trained students: found in a folder, checked, and one of them chosen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from stepdistill.config import Model, check
from stepdistill.errors import RunFolderError, unknown
from stepdistill.files import parse_object, read_text
from stepdistill.student.encode import Prefix
from stepdistill.student.methods import Form
from stepdistill.weights import Family

CARD = "student.json"
"""As `student.card` calls it, which knows of training."""


class _Needed(Model):
    """What a student's card must say to be asked; it says more."""

    model_config = ConfigDict(extra="ignore")

    name: str
    task: dict[str, Any]
    form: Form
    family: Family
    prefix: Prefix
    explains: bool
    machine: dict[str, Any]
    new_tokens: dict[str, int]
    validation: float | None
    rationales: str | None
    test_rationales: str | None


def students(path: Path) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Folder and card of every trained student, by name: of a run, or of the one whose folder this is.

    Raises:
        DataError: a card is no JSON object.
        ConfigError: a card says something that is not allowed.
        RunFolderError: there is no student, or one of an earlier version.
    """
    if (path / CARD).exists():
        card = _read(path)
        return {str(card["name"]): (path, card)}
    found = sorted(card.parent for card in path.glob(f"students/[!.]*/{CARD}"))
    if not found:
        raise RunFolderError(f"{path}: no trained student is there; run `stepdistill run` first")
    return {folder.name: (folder, _read(folder)) for folder in found}


def choose(
    path: Path, found: Mapping[str, tuple[Path, Mapping[str, Any]]], student: str | None, explain: bool
) -> tuple[Path, Mapping[str, Any]]:
    """The student of this name; by default the best on validation, of those that explain if `explain`.

    Of equals one that explains is taken, and a control only where there is nothing else.

    Raises:
        RunFolderError: there is none of this name.
    """
    if student is not None and student not in found:
        raise RunFolderError(f"{path}: " + unknown("student", student, found))
    asked = [name for name in sorted(found) if found[name][1]["explains"] or not explain]
    # Where none explains, the best one is loaded, and says so when it is asked to.
    return found[student or max(asked or sorted(found), key=lambda name: _rank(found[name][1]))]


def checked(card: Mapping[str, Any], place: Path, remedy: str) -> Mapping[str, Any]:
    """A card that says all that is needed.

    Raises:
        ConfigError: a value is not allowed.
        RunFolderError: one is missing; the `remedy` is what to do again.
    """
    if not set(_Needed.model_fields).issubset(card):
        raise RunFolderError(f"{place}: made by an earlier version; {remedy} again")
    check(_Needed, card, str(place))
    return card


def _read(folder: Path) -> dict[str, Any]:
    path = folder / CARD
    card = parse_object(read_text(path), f"{path} (train again)")
    return dict(checked(card, path, "train"))


def _rank(card: Mapping[str, Any]) -> tuple[bool, bool, float, bool]:
    # Last of all what cannot be asked with a text alone, however good it is with the teacher's help; before
    # it the controls, which are there to be compared with.
    alone, real = card["test_rationales"] != "teacher", card["rationales"] in (None, "teacher", "human")
    return (alone, real, card["validation"] or 0.0, card["explains"])
