"""The card of a trained student: the file that says what it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepdistill.student.machine import Machine
    from stepdistill.student.model import Student
    from stepdistill.student.team import Team
    from stepdistill.student.train import Lesson

CARD = "student.json"
"""Written last into a student's folder; what `stepdistill predict` needs to know."""
LOG = "log.json"
"""Losses and measurements of its training, by step."""


def card(
    student: Student, lesson: Lesson, machine: Machine, team: Team, measured: Mapping[str, Any]
) -> dict[str, Any]:
    """What a student is, learned and how: the lesson's facts, its settings, and what came of it."""
    # Here, since annotating knows of cards and needs no torch.
    from stepdistill.student.loss import contract
    from stepdistill.student.machine import versions

    config = lesson.config
    return {
        **lesson.facts,
        "name": lesson.name,
        "family": student.family,
        "prefix": student.prefix,
        "lora": lesson.lora.model_dump(mode="json") if lesson.lora else None,
        "loss": contract(config.rationale_weight, config.loss_mean),
        "versions": versions(),
        "precision": machine.precision,
        "machine": {"device": machine.device, "why": machine.why, "processes": team.world},
        **measured,
    }
