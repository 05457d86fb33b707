"""YAML read strictly, and values checked with one-line complaints."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from stepdistill.errors import ConfigError, brief, unknown
from stepdistill.files import read_text


class Model(BaseModel):
    """A frozen value in which an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping in which no key stands twice (PyYAML alone would keep the last, silently).

    Raises:
        ConfigError: malformed YAML, not a mapping, or a key given twice.
        DataError: there is no such file, or it is not UTF-8.
    """
    values = parse_yaml(read_text(path), str(path))
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: a mapping with keys is expected, not {brief(values)}")
    return values


T = TypeVar("T", bound=BaseModel)


def check(model: type[T], values: Mapping[str, Any], source: str) -> T:
    """Make a config value, or say in one line what is wrong where.

    Raises:
        ConfigError: an unknown key (with a suggestion), a missing key, a wrong value.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "file"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise ConfigError(f"{source}: {_complaint(model, first, place)}{more}") from None


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn nested mappings into one with dotted keys.

    >>> flatten({"a": {"b": 1}, "c": 2})
    {'a.b': 1, 'c': 2}
    """
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def parse_yaml(text: str, source: str) -> Any:
    """A YAML text as plain values.

    Raises:
        ConfigError: malformed YAML, or a key given twice.
    """
    try:
        return yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: {_one_line(error)}") from None
    except RecursionError:
        raise ConfigError(f"{source}: nested too deeply") from None
    except (ValueError, AttributeError) as error:
        # PyYAML's own, from text that looks like a date or a number and is none (2020-13-45, 0b_).
        raise ConfigError(f"{source}: a value is malformed ({error}); put it in quotes") from None


def _complaint(model: type[BaseModel], error: Any, place: str) -> str:
    kind, given = error["type"], error.get("input")
    if kind == "extra_forbidden":
        *outer, last = error["loc"]
        said = unknown("key", last, _keys(model, outer))
        return said.replace(brief(str(last)), f"'{place}'", 1)
    if kind == "missing":
        return f"the key '{place}' is missing; add it"
    if kind == "literal_error":
        allowed = error["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        return f"{place}: " + unknown("value", given, allowed)
    message = error["msg"].removeprefix("Value error, ")
    if kind == "value_error":
        return message if place == "file" else f"{place}: {message}"
    hint = "; put it in quotes" if kind == "string_type" else ""
    return f"{place}: {message.replace('tuple', 'list')}, not {brief(given)}{hint}"


def _keys(model: type[BaseModel], path: Sequence[Any]) -> list[str]:
    """Names of the keys allowed at a place of the config tree."""
    here: Any = model
    for part in path:
        if isinstance(part, int):
            continue
        field = next((f for name, f in here.model_fields.items() if part in (name, f.alias)), None)
        found = _inner_model(field.annotation) if field else None
        if found is None:
            return []
        here = found
    return [field.alias or name for name, field in here.model_fields.items()]


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return annotation if issubclass(annotation, BaseModel) else None
    return next(filter(None, map(_inner_model, typing.get_args(annotation))), None)


def _one_line(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    return f"line {mark.line + 1}: {problem}" if mark else " ".join(str(problem).split())


class _StrictLoader(yaml.SafeLoader):
    """PyYAML's safe loader, refusing a key that stands twice in one mapping."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, typing.Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key}' stands twice", key_node.start_mark
                )
            seen.add(key if isinstance(key, typing.Hashable) else None)
        return super().construct_mapping(node, deep)


# PyYAML knows YAML 1.1 only, in which `1e-3` without a dot is a text; everybody means the number.
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+\Z"), list("-+0123456789")
)
