"""The table of backends: ways to a language model that can be prompted."""

from __future__ import annotations

from collections.abc import Callable

from stepdistill.config import TeacherConfig
from stepdistill.teacher.protocol import Backend, Sampling


def _openai(teacher: TeacherConfig, sampling: Sampling, seed: int) -> Backend:
    from stepdistill.teacher.openai import OpenAIBackend

    return OpenAIBackend(teacher, sampling)


def _batch(teacher: TeacherConfig, sampling: Sampling, seed: int) -> Backend:
    from stepdistill.teacher.batch import BatchBackend

    return BatchBackend(teacher, sampling)


def _local(teacher: TeacherConfig, sampling: Sampling, seed: int) -> Backend:
    from stepdistill.teacher.local import LocalBackend

    return LocalBackend(teacher, seed)


def _vllm(teacher: TeacherConfig, sampling: Sampling, seed: int) -> Backend:
    from stepdistill.teacher.vllm import VllmBackend

    return VllmBackend(teacher, seed)


BACKENDS: dict[str, Callable[[TeacherConfig, Sampling, int], Backend]] = {
    "openai": _openai,
    "openai-batch": _batch,
    "local": _local,
    "vllm": _vllm,
}
"""By `teacher.backend`; each is imported when it is used, since torch takes seconds.

`recorded` and `simulated` prompt nobody: their answers are there already (`teacher/annotate.py`).
"""
