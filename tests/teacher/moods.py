"""A task of two labels, a teacher's words for it, and a router to a fake server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from faulty_server import FaultyServer

from stepdistill.config import TeacherConfig
from stepdistill.deploy.route import Router
from stepdistill.records import Example
from stepdistill.task.load import Task
from stepdistill.task.schema import TaskSpec

TASK = Task(
    TaskSpec.model_validate(
        {
            "name": "moods",
            "instruction": "Tell the mood.",
            "input": "{text}",
            "answer": {"kind": "label", "column": "gold", "labels": ["good", "bad"]},
            "data": {"files": {"train": "train.jsonl"}},
            "demonstrations": [
                {"row": {"text": f"I {word} it."}, "rationale": f"To {word} is {label}.", "label": label}
                for word, label in (("love", "good"), ("hate", "bad"), ("adore", "good"), ("loathe", "bad"))
            ],
        }
    )
)


def mood(prompt: Any, most: int | None = None) -> str:
    """A teacher's words: good for a text with "nice" in it."""
    asked = prompt if isinstance(prompt, str) else prompt[-1]["content"]
    return f"It says so. So the answer is {'good' if 'nice' in asked else 'bad'}."


def router(folder: Path, server: FaultyServer, seconds: float = 20.0, **more: Any) -> Router:
    teacher = {"backend": "openai", "model": "m", "base_url": server.url, **more}
    budget = teacher.pop("max_cost_usd", None)
    return Router(TASK, TeacherConfig(**teacher), 0, folder / "ledger.sqlite", seconds, budget)


def texts(*words: str) -> list[Example]:
    return [Example(str(i), word, label="good") for i, word in enumerate(words)]
