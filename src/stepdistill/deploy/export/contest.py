"""The two sides of a proof: each in a process of its own, asked in turns on the same machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from stepdistill.deploy.bundle import Settings
from stepdistill.errors import StudentError
from stepdistill.records import Example, Prediction, Watcher

BATCH = 16
"""Examples of a batch, of which the examples a second are."""
SINGLES = 8
"""Of each batch, how many are asked again one by one, for the latency."""
ENOUGH = 100
"""Single requests of a side at most."""
FEWEST = 20
"""And at least, however long they take, as far as there are examples."""
PATIENCE = 10.0
"""Seconds of single requests after which `FEWEST` of them are enough."""


@dataclass
class Clock:
    """Seconds that one side took: of whole batches, and of single requests."""

    batches: list[float] = field(default_factory=list)
    singles: list[float] = field(default_factory=list)

    @property
    def waits(self) -> bool:
        """Whether further single requests are wanted."""
        n = len(self.singles)
        return n < FEWEST or (n < ENOUGH and sum(self.singles) < PATIENCE)


class Side:
    """A process that has loaded one student; ends with the `with` block, however that ends."""

    def __init__(self, name: str, where: Path, threads: int) -> None:
        self.name, self.clock = name, Clock()
        self._where, self._threads = where, threads
        self.computes, self.memory = "", 0

    def __enter__(self) -> Side:
        """Load it.

        Raises:
            StudentError: it cannot be loaded.
        """
        self._log: IO[bytes] = tempfile.TemporaryFile()
        # The same conditions for both: a CPU, these threads, no network.
        same = {"OMP_NUM_THREADS": str(self._threads), "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "stepdistill.deploy.export.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            encoding="utf-8",
            env={**os.environ, **same},
            # Ctrl-C in a terminal goes to all processes of a group; this one is ended in `__exit__`.
            start_new_session=True,
        )
        try:
            found = self._ask("open", where=str(self._where.absolute()), threads=self._threads)
        except BaseException:
            self.__exit__()
            raise
        self.computes = found["computes"]
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._log.close()

    def settle(self, settings: Settings) -> None:
        """Have it answer by these from now on."""
        self._ask("settings", values=settings.model_dump(mode="json"))

    def scores(self, examples: Sequence[Example]) -> dict[str, list[list[float]]]:
        """The log scores of every candidate of every example, by readout."""
        found: dict[str, list[list[float]]] = self._ask("scores", examples=_rows(examples))["scores"]
        return found

    def predict(self, examples: Sequence[Example]) -> tuple[list[Prediction], float]:
        """Answers in one batch, and the seconds that they took in its process."""
        found = self._ask("predict", examples=_rows(examples))
        pairs = zip(examples, found["answers"], strict=True)
        made = [Prediction(one.id, row["text"], row["label"], row["reason"]) for one, row in pairs]
        return made, float(found["seconds"])

    def look(self) -> None:
        """Note the most memory that its process has had, in bytes, as `memory`."""
        self.memory = int(self._ask("peak")["bytes"])

    def _ask(self, do: str, **given: Any) -> dict[str, Any]:
        try:
            asked, heard = cast(IO[str], self._process.stdin), cast(IO[str], self._process.stdout)
            asked.write(json.dumps({"do": do, **given}) + "\n")
            asked.flush()
            line = heard.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise StudentError(f"the {self.name} could not be asked: {self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise StudentError(f"the {self.name} cannot be asked: {answer['error']}")
        return answer

    def _last_words(self) -> str:
        code = self._process.wait()
        self._log.seek(0)
        lines = self._log.read().decode("utf-8", "replace").split("\n")
        said = next((line.strip() for line in reversed(lines) if line.strip()), "")
        if code < 0:
            more = " (by the system, where memory ran out)" if code == -9 else ""
            return f"its process was ended by signal {-code}{more}"
        return f"its process ended with code {code}: {said or 'no word'}"


def contest(sides: Sequence[Side], examples: Sequence[Example], watch: Watcher) -> list[list[Prediction]]:
    """The answers of each side to all examples; its clock and memory are noted.

    They are asked in turns, a batch and a few single requests each, and take turns at being the first. What
    they do first is not timed.
    """
    answers: list[list[Prediction]] = [[] for _ in sides]
    for side in sides:
        side.predict(examples[:BATCH])
        side.predict(examples[:1])
    for turn, begin in enumerate(range(0, len(examples), BATCH)):
        batch = examples[begin : begin + BATCH]
        order = range(len(sides)) if turn % 2 == 0 else reversed(range(len(sides)))
        for place in order:
            found, seconds = sides[place].predict(batch)
            answers[place] += found
            if len(batch) == BATCH:
                sides[place].clock.batches.append(seconds)
            _one_by_one(sides[place], batch[:SINGLES])
        watch("prove", min(begin + BATCH, len(examples)), len(examples))
    for side in sides:
        side.look()
    return answers


def _one_by_one(side: Side, examples: Sequence[Example]) -> None:
    for example in examples:
        if side.clock.waits:
            side.clock.singles.append(side.predict([example])[1])


def _rows(examples: Sequence[Example]) -> list[dict[str, Any]]:
    # Never the gold label.
    return [{"id": one.id, "text": one.text, "options": one.options} for one in examples]
