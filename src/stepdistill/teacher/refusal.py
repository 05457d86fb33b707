"""Why an endpoint gave no usable reply, in terms of what to do about it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class RefusalError(Exception):
    """No usable reply.

    Attributes:
        reason: a few fixed words that can be counted.
        detail: what the server said, without secrets.
        wait: seconds that the server asks to wait.
        haste: we were too fast (429).
        fatal: no other request would fare better; the run stops.
        hopeless: this prompt would fare no better another time.
        maybe_paid: the model may have answered, so the answer may have been charged.
    """

    reason: str
    detail: str = ""
    wait: float | None = None
    haste: bool = False
    fatal: bool = False
    hopeless: bool = False
    maybe_paid: bool = False

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason
