"""Plain values of a run file by dotted keys, before they are checked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
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


def told_apart(names: Sequence[str], facts: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names; one that stands for several things is followed by what they differ in.

    Args:
        facts: what each name stands for, flat, by dotted keys.

    >>> told_apart(["a", "a", "b"], [{"x.rate": 1, "n": 1}, {"x.rate": 2, "n": 1}, {"n": 2}])
    ['a rate=1', 'a rate=2', 'b']
    """
    alike: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for name, found in zip(names, facts, strict=True):
        if found not in alike[name]:
            alike[name].append(found)
    differing = {
        name: [key for key in sorted(set().union(*some)) if any(f.get(key) != some[0].get(key) for f in some)]
        for name, some in alike.items()
    }
    return [
        " ".join([name, *(f"{key.rsplit('.', 1)[-1]}={found.get(key)}" for key in differing[name])])
        for name, found in zip(names, facts, strict=True)
    ]


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
