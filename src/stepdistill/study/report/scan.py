"""A few rows out of long files of JSON lines, by what their lines begin with; only those are taken apart."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from stepdistill.files import parse_object, reading

_STRING = rb'"(?:[^"\\]|\\.)*"'
_ANSWER = re.compile(rb'\{"name": (' + _STRING + rb'), "gold": (null|")')
_TOLD = re.compile(rb'\{"name": (?P<name>' + _STRING + rb'), "example_id": (?P<id>' + _STRING + rb")")
_EXAMPLE = re.compile(rb'\{"example_id": (?P<id>' + _STRING + rb")")


def answers(path: Path, name: str, places: Collection[int]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of `predictions.jsonl` of one predictor at some places among its examples with a gold label.

    Raises:
        DataError: one of these lines is not a JSON object.
    """
    at, wanted = -1, json.dumps(name).encode()
    for place, line in _lines(path):
        if head := _ANSWER.match(line):
            counts = head[1] == wanted and head[2] != b"null"
        else:  # written by another hand, in another order of keys
            row = parse_object(_text(line), place)
            counts = row.get("name") == name and row.get("gold") is not None
        at += counts
        if counts and at in places:
            yield at, parse_object(_text(line), place)


def explanations(path: Path, name: str, ids: Collection[str]) -> dict[str, dict[str, Any]]:
    """Rows of `explanations.jsonl` of one predictor on some examples, by their ids.

    Raises:
        DataError: one of these lines is not a JSON object.
    """
    rows = _of_ids(path, _TOLD, ids, json.dumps(name).encode())
    return {row["example_id"]: row for row in rows if row.get("name") == name}


def examples(path: Path, ids: Collection[str]) -> dict[str, dict[str, Any]]:
    """Rows of `test.jsonl` of some examples, by their ids.

    Raises:
        DataError: one of these lines is not a JSON object.
    """
    return {row["example_id"]: row for row in _of_ids(path, _EXAMPLE, ids, None)}


def _of_ids(
    path: Path, form: re.Pattern[bytes], ids: Collection[str], name: bytes | None
) -> Iterator[dict[str, Any]]:
    wanted = {json.dumps(one).encode() for one in ids}
    for place, line in _lines(path):
        head = form.match(line)
        if head and (head["id"] not in wanted or (name and head["name"] != name)):
            continue
        row = parse_object(_text(line), place)
        if row.get("example_id") in ids:
            yield row


def _lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """Lines that are not empty, with their places; none where there is no such file."""
    if not path.exists():
        return
    with reading(path), path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield f"{path}:{number}", line


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace")
