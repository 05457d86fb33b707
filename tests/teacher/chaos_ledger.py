"""Flips single bytes of a ledger and counts what is served, refused, salvaged and lost.

python tests/teacher/chaos_ledger.py --flips 1000 --seed 0 [--structure]
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

from asking import answer_all, answer_to, make, order_of, served

from stepdistill.errors import LedgerError
from stepdistill.teacher.ledger import Ledger
from stepdistill.teacher.salvage import salvage
from stepdistill.teacher.schema import PAGE


@dataclass
class Flips:
    """What came of the flips; shares are of all answers."""

    flips: int = 0
    answers: int = 0
    untouched: int = 0
    asked_one: int = 0
    asked_more: int = 0
    refused: int = 0
    refused_with_many_lines: int = 0
    wrong_rows: int = 0
    not_repaired: list[str] = field(default_factory=list)
    recovered: list[float] = field(default_factory=list)

    def plain(self) -> dict[str, object]:
        """All counts; of the shares recovered their mean and least."""
        shares = self.recovered
        return {**asdict(self), "recovered": {"mean": statistics.fmean(shares), "least": min(shares)}}


def flip(folder: Path, flips: int, seed: int, answers: int = 2000, structure: bool = False) -> Flips:
    """Flip one byte of a fresh copy each time, and go on with the same order.

    With `structure` it is one of the bytes that hold the file together: about one in twenty-five.
    """
    chance, words = random.Random(seed), [f"question {n}" for n in range(answers)]
    whole, broken = folder / "whole.sqlite", folder / "ledger.sqlite"
    make(whole, words)
    found = Flips(flips, answers)
    places = structural(whole.read_bytes()) if structure else range(whole.stat().st_size)
    for _ in range(flips):
        raw = bytearray(whole.read_bytes())
        place = chance.choice(places)
        raw[place] ^= chance.randrange(1, 256)
        broken.write_bytes(raw)
        _go_on(broken, words, found, place)
        for path in folder.glob("ledger.sqlite*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return found


def structural(raw: bytes) -> list[int]:
    """The file's header, the headers of pages with their pointers, and pages that hold no answers."""
    found = set(range(100))
    for page in range(0, len(raw), PAGE):
        is_leaf = raw[page] == 13
        found.update(range(page, page + (20 if is_leaf else PAGE if raw[page] in (2, 5, 10) else 4)))
    return sorted(found)


def _go_on(broken: Path, words: list[str], found: Flips, place: int) -> None:
    try:
        asked = _serve(broken, words, found)
    except LedgerError as error:
        found.refused += 1
        found.refused_with_many_lines += "\n" in str(error) or "--repair" not in str(error)
    else:
        found.untouched += not asked
        found.asked_one += asked == 1
        found.asked_more += asked > 1
        found.recovered.append(1 - asked / len(words))
        return
    try:
        salvage(broken)
        found.recovered.append(1 - _serve(broken, words, found) / len(words))
    except LedgerError as error:
        found.not_repaired.append(f"byte {place}: {error}")
        found.recovered.append(0)


def _serve(path: Path, words: list[str], found: Flips) -> int:
    """Answers that had to be asked again; all answers are compared with what they should be."""
    with Ledger(path) as ledger:
        asked = answer_all(ledger, order_of(words))
    texts = served(path, words)
    found.wrong_rows += sum(texts.get(word) != answer_to(word) for word in words)
    return len(asked)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--structure", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        found = flip(Path(name), given.flips, given.seed, structure=given.structure)
        print(json.dumps(found.plain(), indent=1))
