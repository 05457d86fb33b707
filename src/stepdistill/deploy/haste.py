"""A teacher asked while people wait: fewer attempts, and its limit of requests shared by all who ask."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from stepdistill.config import LimitsConfig, TeacherConfig

RETRIES = 2
"""Further attempts at most; somebody is waiting."""


def hasty(teacher: TeacherConfig, seconds: float) -> TeacherConfig:
    """The same teacher for somebody who is waiting; none of it changes an answer or its key."""
    own = teacher.limits
    limits = LimitsConfig(
        **{
            **own.model_dump(),
            "timeout_seconds": min(own.timeout_seconds, seconds),
            "max_wait_seconds": min(own.max_wait_seconds, seconds),
            "retries": min(own.retries, RETRIES),
        }
    )
    live = "openai" if teacher.backend == "openai-batch" else teacher.backend
    return teacher.model_copy(update={"backend": live, "limits": limits})


def with_requests(teacher: TeacherConfig, most: int) -> TeacherConfig:
    """The same teacher, asked at most so many requests at the same time."""
    return teacher.model_copy(update={"limits": teacher.limits.model_copy(update={"concurrency": most})})


class Places:
    """How many requests a teacher may have at the same time, whoever asks; safe for several threads."""

    def __init__(self, most: int) -> None:
        self._free, self._changed = most, threading.Condition()

    @contextmanager
    def taken(self, wanted: int, seconds: float) -> Iterator[int]:
        """As many places as are free, of those that are wanted; 0 where in `seconds` there is none."""
        with self._changed:
            self._changed.wait_for(lambda: self._free, max(0.0, seconds))
            got = min(wanted, self._free)
            self._free -= got
        try:
            yield got
        finally:
            with self._changed:
                self._free += got
                self._changed.notify_all()
