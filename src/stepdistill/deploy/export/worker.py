"""One of the two sides of a proof, in a process of its own: JSON lines in, JSON lines out."""

from __future__ import annotations

import json
import os
import re
import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from stepdistill.deploy.bundle import Settings
from stepdistill.deploy.runtime import Runtime, load
from stepdistill.errors import StepdistillError, extras_named
from stepdistill.records import Example

_STATUS = Path("/proc/self/status")


def main() -> None:
    """Answer requests until there are no more: {"do": "open" | "settings" | "scores" | "predict" | "peak"}.

    What a user can mend comes back as {"error": one line}; anything else ends the process.
    """
    # What libraries print must not stand among the answers.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    side = _Side()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            with extras_named():
                answer = getattr(side, request.pop("do"))(**request)
        except StepdistillError as error:
            answer = {"error": str(error)}
        out.write(json.dumps(answer) + "\n")
        out.flush()


class _Side:
    """A student that is asked; the methods are the requests."""

    runtime: Runtime

    def open(self, where: str, threads: int) -> dict[str, Any]:
        """Load the student of a folder or bundle; it says what it multiplies in."""
        self.runtime = load(where, threads=threads)
        self.runtime.warm()
        return {"computes": self.runtime.model.ready().engine.computes}

    def settings(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Answer by these from now on."""
        self.runtime = replace(self.runtime, settings=Settings(**values))
        return {}

    def scores(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """The log scores of every candidate, by readout."""
        return {"scores": self.runtime.scores([_example(one) for one in examples])}

    def predict(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Answers in one batch, and how long that took."""
        given = [_example(one) for one in examples]
        began = time.perf_counter()
        answers = self.runtime.predict(given)
        seconds = time.perf_counter() - began
        return {
            "answers": [{"label": a.guess, "text": a.text, "reason": a.reason} for a in answers],
            "seconds": seconds,
        }

    def peak(self) -> dict[str, Any]:
        """The most memory that this process has had, in bytes."""
        return {"bytes": peak_memory()}


def peak_memory() -> int:
    """The most memory that this process has held at once, in bytes, and never that of its parent."""
    if _STATUS.exists():
        # `ru_maxrss` begins, on Linux, with what the parent held when it started this process.
        found = re.search(r"^VmHWM:\s*(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
        if found:
            return int(found[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _example(values: Mapping[str, Any]) -> Example:
    return Example(values["id"], values["text"], options=tuple(values["options"]))


if __name__ == "__main__":
    main()
