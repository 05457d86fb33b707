"""The key under which an answer is kept: a hash of all that could change it, and of nothing else."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from stepdistill.config import TeacherConfig
from stepdistill.teacher.protocol import Message, Prompt, Sampling
from stepdistill.weights import digests

FAMILY = {"openai-batch": "openai"}
"""Ways to the same model: an answer that came through a batch job serves live requests too."""


class Keys:
    """Makes the keys of one teacher; what all prompts share is hashed once.

    Attributes:
        teacher: backend and model, as the ledger notes them for people.
        place: the address and route at which a batch job is waited for; no part of a key.
    """

    def __init__(self, teacher: TeacherConfig, sampling: Sampling) -> None:
        self.teacher = f"{teacher.backend}:{teacher.model}"
        self.place = f"{teacher.base_url} {teacher.api}"
        backend = FAMILY.get(teacher.backend, teacher.backend)
        self._is_text = teacher.style == "text"
        start = [
            1,
            backend,
            _model(teacher),
            teacher.api,
            teacher.style,
            sampling.temperature,
            sampling.top_p,
        ]
        start += [list(sampling.stop), sampling.extra]
        self._start = hashlib.sha256(json.dumps(start).encode())
        self._head: tuple[Message, ...] | None = None
        self._begun: Any = None

    def slot(self, prompt: Prompt, draw: int) -> bytes:
        """The first 16 bytes of the SHA-256 over teacher, messages, draw and sampling.

        `max_tokens` is left out: it does not change an answer that ended by itself (`Entry.serves`).
        """
        if prompt.head is not self._head or self._begun is None:
            self._head, self._begun = prompt.head, self._start.copy()
            self._feed(self._begun, prompt.head)
        total = self._begun.copy()
        self._feed(total, prompt.tail)
        total.update(b"#%d" % draw)
        return bytes(total.digest()[:16])

    def _feed(self, total: Any, messages: tuple[Message, ...]) -> None:
        for message in messages:
            raw = message.content.encode("utf-8", "surrogatepass")
            if not self._is_text:  # a text has no turns: where its shared part ends must not count
                total.update(b"%s:%d:" % (message.role.encode(), len(raw)))
            total.update(raw)


def _model(teacher: TeacherConfig) -> Any:
    """The model by name; by its weights where they are files here, which may change under their name."""
    if teacher.backend not in ("local", "vllm"):
        return teacher.model
    return sorted(digests(str(teacher.model), "teacher.model").values()) or teacher.model
