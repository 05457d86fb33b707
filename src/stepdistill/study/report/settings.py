"""What it takes to reproduce the results: command, settings without this machine's folders, hashes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import yaml

from stepdistill.study.report.clean import nowhere
from stepdistill.study.report.place import Place
from stepdistill.study.report.table import Column, Table, number, words
from stepdistill.study.results import ResultRow

_SECRET = re.compile(r"(?i)(://)[^/@\s]+@")


def command(place: Place) -> str:
    """The command that makes the folder's results again; empty where the settings are not there."""
    if not place.text():
        return ""
    return "stepdistill study study.yaml" if place.is_study else "stepdistill run run.yaml"


def settings(place: Place) -> str:
    """The study's or run's file as it can be shown to others."""
    text = place.text()
    if not text:
        return ""
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError:
        return ""
    return yaml.safe_dump(_anywhere(values), sort_keys=False, allow_unicode=True, width=100)


def hashes(rows: Sequence[ResultRow]) -> Table:
    """By which hash configuration, data and test examples of each result can be known again."""
    columns = [Column("trial"), Column("method"), Column("seed", number=True), Column("configuration")]
    columns += [Column("data"), Column("test examples")]
    body = [
        [
            words(row.trial),
            words(row.name),
            number(row.seed, "d"),
            *map(words, (row.config, row.data, row.test)),
        ]
        for row in rows
    ]
    return Table("hashes", "Hashes", columns, body).short(("trial", "method", "configuration"))


def versions(place: Place) -> dict[str, str]:
    """Versions that the results were made with; several where the trials differ."""
    found: dict[str, set[str]] = {}
    for trial in place.trials.values():
        for record in trial.rows("results.jsonl"):
            given = record.get("versions")
            for name, version in (given if isinstance(given, dict) else {}).items():
                found.setdefault(str(name), set()).add(str(version))
    return {name: ", ".join(sorted(seen)) for name, seen in found.items()}


def _anywhere(value: Any) -> Any:
    """Plain values whose absolute paths have lost their folders, and addresses their passwords."""
    if isinstance(value, dict):
        return {key: _anywhere(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_anywhere(one) for one in value]
    if not isinstance(value, str):
        return value
    if value.startswith(("/", "~")) and len(value) > 1 and "\n" not in value:
        return f"…/{PurePath(value).name}"
    return nowhere(_SECRET.sub(r"\1", value))
