"""Where a student comes from, in the words of its model card: its teacher, its labels, its first model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from stepdistill.config import TeacherConfig
from stepdistill.task.schema import TaskSpec

_LEARNED = {
    "gold": "labels of the data set",
    "teacher": "the teacher's labels",
    "gold-else-teacher": "labels of the data set, and the teacher's where it has none",
}
_REASONS = {
    "teacher": "the teacher's rationales",
    "human": "rationales that people wrote",
    "shuffled": "the teacher's rationales of other examples",
    "filler": "words without content in place of rationales",
}
_PROVIDER = "Outputs of {} fall under its provider's terms; check whether they may be used to train models."


def teacher(config: TeacherConfig) -> dict[str, str]:
    """Name, how it was asked, and what its terms may be: a row of a table."""
    if config.backend == "simulated":
        how = f"a seeded program, wrong on purpose in {100 * config.error_rate:g} % of the examples"
        return {"name": "a SIMULATION", "how": how, "terms": "none: no language model was asked"}
    if config.backend == "recorded":
        how, name = "recorded answers, read from files", "the model that wrote these answers"
        terms = "The run does not say whose they are. " + _PROVIDER.format("a model")
        return {"name": name, "how": how, "terms": terms}
    how = f"asked through {config.backend}: {config.prompt} prompts, temperature {config.temperature:g}"
    how += f", {config.draws} draws each" if config.draws > 1 else ""
    model = short(str(config.model))
    terms = _PROVIDER.format(model)
    if config.backend in ("local", "vllm"):
        terms = (
            f"The licence of {model} may bind its outputs; check whether they may be used to train models."
        )
    return {"name": model, "how": how, "terms": terms}


def learned(card: Mapping[str, Any]) -> str:
    """What it was trained on: whose labels, whose rationales."""
    labels, reasons = _LEARNED.get(card["labels"], card["labels"]), _REASONS.get(card["rationales"])
    said = f"{labels} and {reasons}" if reasons else labels
    asked = card["labels"] != "gold" or card["rationales"] in ("teacher", "shuffled")
    return said if asked else f"{said}; of the run's teacher nothing"


def simulated(task: TaskSpec, teachers: Sequence[TeacherConfig]) -> str:
    """What is made up by a generator and not by people or a model; nothing where nothing is."""
    made = ["texts"] if task.data.generator else []
    made += ["teacher"] if any(one.backend == "simulated" for one in teachers) else []
    if not made:
        return ""
    return f"the {' and the '.join(made)} of this task {'is' if made == ['teacher'] else 'are'} simulated"


def began(card: Mapping[str, Any]) -> str:
    """The model that training began with."""
    return "random weights" if card["student"] == "scratch:" else short(str(card["student"]))


def short(model: str) -> str:
    """A model's name without the folders of a machine; a hub id stays."""
    is_path = model.startswith(("/", ".", "~", "package:")) or model.count("/") > 1 or "\\" in model
    return re.split(r"[/\\:]", model.rstrip("/\\"))[-1] if is_path else model
