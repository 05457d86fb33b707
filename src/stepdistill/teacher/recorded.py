"""Completions that exist already: the paper's own files, or any JSONL a user brings."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from stepdistill.errors import TeacherError, brief
from stepdistill.files import read_jsonl, read_text
from stepdistill.records import Completion


@dataclass(frozen=True, slots=True)
class Apart:
    """A rationale and a label that stand in columns of their own."""

    example_id: str
    rationale: str
    label: object

    def words(self) -> str:
        """Both as they came, so that what could not be read is kept too."""
        return json.dumps({"rationale": self.rationale, "label": self.label}, ensure_ascii=False, default=str)


Answer = Completion | Apart


def read_recorded(path: Path, ids: Sequence[str]) -> dict[str, Answer]:
    """Completions of one split by example id.

    Args:
        path: a `.jsonl` with rows `{id, completion}` or `{id, rationale, label}`; or `.json` lists
            of strings, one an example in the order of the split's file, the name holding `{i}`
            where they are numbered from 0.
        ids: the ids of the whole file of the split, in order; lists are joined by it.

    Raises:
        TeacherError: no file, a malformed row, a doubled id, or a list that does not have exactly
            one string an example (then nothing says which belongs to which).
    """
    if path.suffix == ".json":
        return _by_order(path, ids)
    return _by_id(path)


def _by_order(path: Path, ids: Sequence[str]) -> dict[str, Answer]:
    texts = [text for file in numbered(path) for text in _strings(file)]
    if len(texts) != len(ids):
        raise TeacherError(
            f"{path}: {len(texts)} completions for {len(ids)} examples; a list is joined by order "
            'and needs one an example. Use JSONL rows {"id": ..., "completion": ...} instead'
        )
    return {id_: Completion(id_, text, "recorded") for id_, text in zip(ids, texts, strict=True)}


def numbered(path: Path) -> Iterator[Path]:
    """The files that a name with `{i}` stands for, counted from 0; the file itself without `{i}`.

    Raises:
        TeacherError: there is no first file.
    """
    if "{i}" not in path.name:
        yield path
        return
    number = 0
    while (file := path.with_name(path.name.replace("{i}", str(number)))).exists():
        yield file
        number += 1
    if number == 0:
        raise TeacherError(f"{file}: no such file; check teacher.completions and data.root")


def _strings(path: Path) -> list[str]:
    try:
        values = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise TeacherError(f"{path}:{error.lineno}: malformed JSON ({error.msg})") from None
    except RecursionError:
        raise TeacherError(f"{path}: malformed JSON (nested too deeply)") from None
    except ValueError as error:
        raise TeacherError(f"{path}: malformed JSON ({error})") from None
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TeacherError(f"{path}: a JSON list of strings is expected")
    return values


def _by_id(path: Path) -> dict[str, Answer]:
    answers: dict[str, Answer] = {}
    for number, row in enumerate(read_jsonl(path), start=1):
        id_ = row.get("id")
        if not isinstance(id_, str | int):
            raise TeacherError(f"{path}, row {number}: no 'id'; the row has: {', '.join(row)}")
        if str(id_) in answers:
            raise TeacherError(f"{path}, row {number}: the id {brief(id_)} stands there twice")
        answers[str(id_)] = _row(row, str(id_), f"{path}, row {number}")
    if not answers:
        raise TeacherError(f"{path}: the file is empty; at least one completion is expected")
    return answers


def _row(row: dict[str, object], id_: str, place: str) -> Answer:
    completion = row.get("completion")
    if isinstance(completion, str):
        return Completion(id_, completion, str(row.get("model", "recorded")))
    if "label" not in row:
        raise TeacherError(
            f"{place}: needs 'completion' (text), or 'rationale' and 'label'; the row has: {', '.join(row)}"
        )
    return Apart(id_, str(row.get("rationale") or "").strip(), row["label"])
