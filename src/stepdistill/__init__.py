"""stepdistill: distill an LLM's answers and reasoning into a small model (Hsieh et al. 2023)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepdistill.config import RunConfig, load_run
    from stepdistill.deploy.answer import Answer
    from stepdistill.deploy.runtime import Runtime, load
    from stepdistill.errors import StepdistillError
    from stepdistill.records import Example, Prediction
    from stepdistill.study.run import Run
    from stepdistill.task.load import Task, load_examples, load_task
    from stepdistill.teacher.parse import parse
    from stepdistill.teacher.simulated import ScriptedTeacher

__version__ = "0.1.0"

_HOMES = {
    "Answer": "stepdistill.deploy.answer",
    "Example": "stepdistill.records",
    "Prediction": "stepdistill.records",
    "Run": "stepdistill.study.run",
    "RunConfig": "stepdistill.config",
    "Runtime": "stepdistill.deploy.runtime",
    "ScriptedTeacher": "stepdistill.teacher.simulated",
    "StepdistillError": "stepdistill.errors",
    "Task": "stepdistill.task.load",
    "load": "stepdistill.deploy.runtime",
    "load_examples": "stepdistill.task.load",
    "load_run": "stepdistill.config",
    "load_task": "stepdistill.task.load",
    "parse": "stepdistill.teacher.parse",
}

__all__ = [
    "Answer",
    "Example",
    "Prediction",
    "Run",
    "RunConfig",
    "Runtime",
    "ScriptedTeacher",
    "StepdistillError",
    "Task",
    "__version__",
    "load",
    "load_examples",
    "load_run",
    "load_task",
    "parse",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that importing the package needs no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'stepdistill' has no attribute '{name}'")
    from stepdistill.errors import extras_named

    with extras_named():
        return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
