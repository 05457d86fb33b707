"""What clients send and get: requests read strictly, answers as JSON, and both as they are published."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel
from pydantic_core import from_json

from stepdistill.deploy.answer import Answer
from stepdistill.deploy.server.limits import ServeConfig
from stepdistill.errors import brief, unknown
from stepdistill.records import Example

_numbers = itertools.count()
TEXT = "^[^\\u0000]*[^\\s\\u0000][^\\u0000]*$"
"""A text: no NUL, and not only white space."""


class BadRequest(Exception):  # noqa: N818 - a client's error, told to it and to nobody else
    """A request that cannot be answered: the status and one reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class AnswerOut(BaseModel):
    """The answer to one text; `label` is null where the student abstained or its words could not be read."""

    label: str | None
    guess: str | None
    confidence: float | None
    probabilities: dict[str, float] | None
    abstained: bool
    reason: str | None
    rationale: str | None
    text: str
    by: Literal["student", "teacher"]


class AnswersOut(BaseModel):
    """The answers to a request, in the order of its texts."""

    answers: list[AnswerOut]


class ErrorOut(BaseModel):
    """Why a request was not answered."""

    error: str


class HealthOut(BaseModel):
    """The server runs."""

    status: Literal["ok", "ready"]


class ModelOut(BaseModel):
    """What is served; `labels` is empty where the answers are no closed set of the task's own."""

    name: str
    task: str
    kind: str
    format: str
    labels: list[str]
    explains: bool
    needs_rationales: bool
    threshold: float | None
    routes: bool
    limits: dict[str, float]


@dataclass(frozen=True)
class Form:
    """The form of requests to one student.

    Args:
        limits: sizes.
        explains: whether rationales can be asked for.
        options: whether every example brings its own options.
        rationale: whether every example brings the teacher's rationale.
    """

    limits: ServeConfig
    explains: bool = False
    options: bool = False
    rationale: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        """The ways to give texts; exactly one stands in a request."""
        return ("examples",) if self.rationale else ("text", "texts", "examples")

    def read(self, body: bytes, asks: bool = True) -> tuple[list[Example], bool]:
        """The examples of a request's body, and whether rationales are wanted (`asks`: may it say so).

        Raises:
            BadRequest: it is no JSON (400), or not of this form (422).
        """
        try:
            values = from_json(body, allow_inf_nan=False)
        except ValueError as error:
            raise BadRequest(400, f"the body is not JSON ({' '.join(str(error).split())})") from None
        if not isinstance(values, dict):
            raise BadRequest(422, f"a JSON object is expected, not {_kind(values)}")
        json.loads(body, object_pairs_hook=_once, parse_int=str, parse_float=str)
        for key in values:
            if key not in (allowed := (*self.keys, "explain") if asks else self.keys):
                raise BadRequest(422, unknown("key", key, allowed))
        explain = values.pop("explain", False)
        if not isinstance(explain, bool):
            raise BadRequest(422, f"explain: true or false is expected, not {_kind(explain)}")
        if explain and not self.explains:
            raise BadRequest(422, "explain: this student was taught no rationales that explain its answers")
        if len(values) != 1:
            raise BadRequest(422, f"give exactly one of: {', '.join(self.keys)}")
        ((key, given),) = values.items()
        if key == "text":
            return [self._example({"text": given}, "text", "")], explain
        rows = self._several(given, key, self.limits.max_texts, "texts")
        wrap = key == "texts"
        return [
            self._example({"text": row} if wrap else row, f"{key}[{i}]", "" if wrap else ".")
            for i, row in enumerate(rows)
        ], explain

    def _example(self, row: Any, place: str, dot: str) -> Example:
        if not isinstance(row, dict):
            raise BadRequest(422, f"{place}: a JSON object is expected, not {_kind(row)}")
        for key in row:
            if key not in (allowed := self._fields()):
                raise BadRequest(422, f"{place}: " + unknown("key", key, allowed))
        if dot:
            for key in self._fields():
                if key not in row:
                    raise BadRequest(422, f"{place}: the key '{key}' is missing; add it")
        text = self._text(row["text"], f"{place}{dot}text" if dot else place)
        options: tuple[str, ...] = ()
        if "options" in row:
            where = f"{place}.options"
            given = self._several(row["options"], where, self.limits.max_options, "options", 2)
            options = tuple(self._text(option, f"{where}[{i}]") for i, option in enumerate(given))
            if len(set(options)) < len(options):
                raise BadRequest(422, f"{where}: an option stands there twice")
        reason = self._text(row["rationale"], f"{place}.rationale") if "rationale" in row else None
        return Example(str(next(_numbers)), text, options=options, rationale=reason)

    def _fields(self) -> tuple[str, ...]:
        more = ("options",) * self.options + ("rationale",) * self.rationale
        return ("text", *more)

    def _text(self, given: Any, place: str) -> str:
        if not isinstance(given, str):
            raise BadRequest(422, f"{place}: a text is expected, not {_kind(given)}")
        if len(given) > self.limits.max_characters:
            raise BadRequest(
                422, f"{place}: {len(given)} characters, and {self.limits.max_characters} are allowed"
            )
        if "\0" in given:
            raise BadRequest(422, f"{place}: the text has a NUL character; leave it out")
        if not (text := given.strip()):
            raise BadRequest(422, f"{place}: the text is empty")
        return text

    @staticmethod
    def _several(given: Any, place: str, most: int, noun: str, least: int = 1) -> list[Any]:
        if not isinstance(given, list):
            raise BadRequest(422, f"{place}: a list is expected, not {_kind(given)}")
        if not least <= len(given) <= most:
            raise BadRequest(422, f"{place}: {len(given)} {noun}, and {least} to {most} are allowed")
        return given

    def published(self, asks: bool = True) -> dict[str, Any]:
        """The JSON Schema of the body, as `read` takes it."""
        text = {"type": "string", "minLength": 1, "maxLength": self.limits.max_characters, "pattern": TEXT}
        options = {"type": "array", "minItems": 2, "maxItems": self.limits.max_options}
        fields = {
            "text": text,
            "options": {**options, "items": text, "uniqueItems": True},
            "rationale": text,
        }
        example = _object({name: fields[name] for name in self._fields()})
        size = {"type": "array", "minItems": 1, "maxItems": self.limits.max_texts}
        ways = {"text": text, "texts": {**size, "items": text}, "examples": {**size, "items": example}}
        explain = {"type": "boolean"} if self.explains else {"const": False}
        more = {"explain": {**explain, "default": False}} if asks else {}
        return {"oneOf": [_object({key: ways[key]}, more) for key in self.keys]}


def answers_out(answers: Sequence[Answer]) -> dict[str, Any]:
    """Answers as clients get them."""
    return {"answers": [_row(answer) for answer in answers]}


def _row(answer: Answer) -> dict[str, Any]:
    shares = answer.probabilities
    return {
        "label": answer.label,
        "guess": answer.guess,
        "confidence": answer.confidence,
        "probabilities": None if shares is None else dict(shares),
        "abstained": answer.abstained,
        "reason": answer.reason,
        "rationale": answer.rationale,
        "text": answer.text,
        "by": answer.by,
    }


def _object(needed: Mapping[str, Any], more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {**needed, **(more or {})},
        "required": list(needed),
        "additionalProperties": False,
    }


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys are each there once; readers differ in which of two they take."""
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise BadRequest(422, f"the key {brief(twice, 40)} stands there twice; leave one out")
    return made


def _kind(value: Any) -> str:
    """How a value's JSON type is called; the value itself may be megabytes."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false"}
    return names.get(type(value), "null" if value is None else f"the number {brief(value, 20)}")
