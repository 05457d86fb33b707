"""Plain values of a run file by dotted keys, before they are checked."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any


def get(values: Mapping[str, Any], key: str) -> Any:
    """What stands at a dotted key; None where nothing does."""
    here: Any = values
    for part in key.split("."):
        here = here.get(part) if isinstance(here, Mapping) else None
    return here


def put(values: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key in place; what is no mapping on the way becomes one."""
    *outer, last = key.split(".")
    for part in outer:
        if not isinstance(values.get(part), dict):
            values[part] = {}
        values = values[part]
    values[last] = value


def restore(values: dict[str, Any], run: Mapping[str, Any], *keys: str) -> None:
    """Set keys as `run` has them; those that it lacks are taken away."""
    for key in keys:
        found = get(run, key)
        if found is not None:
            put(values, key, deepcopy(found))
            continue
        *outer, last = key.split(".")
        here = get(values, ".".join(outer)) if outer else values
        if isinstance(here, dict):
            here.pop(last, None)
