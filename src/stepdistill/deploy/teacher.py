"""Who is asked what a student leaves: the teacher of its run, as a bundle keeps it."""

from __future__ import annotations

from typing import Any

from stepdistill.config import Model, RunConfig, TeacherConfig
from stepdistill.errors import ConfigError


class Routing(Model):
    """Who is asked what a student leaves, as a bundle says it: the run's teacher, and the seed of prompts."""

    teacher: TeacherConfig
    seed: int


def routing_of(config: RunConfig) -> Routing:
    """The first of a run's teachers that can be asked about new texts.

    Raises:
        ConfigError: there is none.
    """
    able = [one for one in config.asked if one.modelled]
    if not able:
        raise ConfigError(
            f"the run's teacher is '{config.asked[0].backend}': its answers are there already, and it cannot "
            "be asked about new texts; route to a run whose teacher is openai, local or vllm"
        )
    return Routing(teacher=able[0], seed=config.seed)


def described(config: RunConfig) -> dict[str, Any] | None:
    """What goes into a bundle as `teacher`; None where the run has nobody who can be asked."""
    if not any(one.modelled for one in config.asked):
        return None
    return routing_of(config).model_dump(mode="json")
