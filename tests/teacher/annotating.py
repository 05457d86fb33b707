"""What the tests of the annotate stage have in common."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stepdistill.config import AnnotateConfig, DataConfig, RunConfig, StudentConfig, TeacherConfig
from stepdistill.records import Watcher, unwatched
from stepdistill.task.load import Task
from stepdistill.teacher.annotate import Asked, Files, Outcome, annotate


def asked_of(
    task: Task,
    examples: Mapping[Any, Any],
    teacher: TeacherConfig | None = None,
    data: DataConfig | None = None,
    **annotate: Any,
) -> Asked:
    """What `annotate` works on; the ledger lies in a folder that is not there."""
    config = RunConfig(
        task=task.spec.name,
        data=data or DataConfig(),
        teacher=teacher or TeacherConfig(),
        annotate=AnnotateConfig(**{"splits": ("train", "validation", "test"), **annotate}),
        student=StudentConfig(model="scratch:"),
        out="out",
    )
    return Asked(task, examples, config, Path("/no/such/ledger.sqlite"))


def annotate_into(folder: Path, asked: Asked, watch: Watcher = unwatched) -> Outcome:
    """Annotate; the files lie in this folder."""
    files = Files(folder / "annotations.jsonl", folder / "left_out.jsonl", folder / "parse_report.json")
    return annotate(asked, files, watch)
