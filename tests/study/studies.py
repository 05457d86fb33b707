"""Small studies on the simulated letters, for tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from stepdistill.config import StudyConfig

RUN: dict[str, Any] = {
    "task": "claims",
    "data": {"limit": {"train": 24, "validation": 6, "test": 12}},
    "teacher": {"backend": "simulated"},
    "student": {"model": "scratch:", "scratch": {"d_model": 16, "d_ff": 16, "heads": 2, "layers": 1}},
    "train": {"epochs": 1, "batch_size": 8, "threads": 1},
}


def small_study(out: Path, run: Mapping[str, Any] | None = None, **grid: Any) -> StudyConfig:
    """One arm, one seed, unless the grid says more; `run` is laid over `RUN`."""
    given = {"methods": ["finetune"], **grid}
    return StudyConfig.model_validate({"run": {**RUN, **(run or {})}, "grid": given, "out": str(out)})


def write_study(path: Path, study: StudyConfig) -> Path:
    """The study as a file."""
    path.write_text(yaml.safe_dump(study.model_dump(mode="json", by_alias=True, exclude_unset=True)))
    return path
