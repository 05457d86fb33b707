"""Examples of one split, read anew at every pass, so that a million take no more memory than ten."""

from __future__ import annotations

import random
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain, islice, pairwise
from pathlib import Path
from stat import S_ISDIR, S_ISREG

from stepdistill.errors import DataError, brief
from stepdistill.files import digest_all
from stepdistill.records import Example
from stepdistill.task.schema import Split
from stepdistill.task.sources import Row

Reader = Callable[[Row, int], Example]
"""Makes an example of a row and its index; raises KeyError or ValueError for a row that is not one."""


@dataclass(frozen=True, eq=False)
class Examples:
    """The examples of one split in order: `len` is known, and each pass reads them from their source.

    Raises:
        DataError: in a pass, where the file is no longer the one that was checked.
    """

    again: Callable[[], Iterator[Example]]
    size: int

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[Example]:
        return self.again()


@dataclass(frozen=True)
class Source:
    """Where the rows of a split come from: a name for messages, how to open them, the file to watch."""

    name: str
    rows: Callable[[], Iterable[Row]]
    path: Path | None = None

    def stamp(self) -> object:
        """Sizes and times of change of the files; None where nothing can change.

        Raises:
            DataError: the path is a pipe or device, which gives its rows only once.
        """
        if self.path is None:
            return None
        try:
            here = self.path.stat()
            if S_ISDIR(here.st_mode):
                parts = sorted(part for part in self.path.iterdir() if part.suffix in (".arrow", ".json"))
                return [(part.name, part.stat().st_size, part.stat().st_mtime_ns) for part in parts]
        except FileNotFoundError:
            return "gone"
        if not S_ISREG(here.st_mode):
            raise DataError(
                f"{self.path}: not a regular file; rows are read several times, so save them first"
            )
        return here.st_size, here.st_mtime_ns


class Hashes:
    """64-bit hashes of many texts, 8 bytes each, in buckets that are small enough to be sorted one by one."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._buckets = [array("Q") for _ in range(256)]
        for text in texts:
            self.add(text)
        for index, bucket in enumerate(self._buckets):
            self._buckets[index] = array("Q", sorted(bucket))

    def add(self, text: str) -> None:
        """Take one more text; `in` knows only those given at the start."""
        value = _hash(text)
        self._buckets[value & 255].append(value)

    def __contains__(self, text: str) -> bool:
        value = _hash(text)
        bucket = self._buckets[value & 255]
        place = bisect_left(bucket, value)
        return place < len(bucket) and bucket[place] == value

    def doubled(self) -> set[int]:
        """The hashes that were added more than once."""
        pairs = chain.from_iterable(pairwise(sorted(bucket)) for bucket in self._buckets)
        return {left for left, right in pairs if left == right}


def check_examples(source: Source, make: Reader, ids_given: bool = True) -> Examples:
    """Go through all rows once and refuse what is not right; then they can be had any number of times.

    `ids_given` is False where ids are numbers of rows, which cannot be doubled.

    Raises:
        DataError: a row that is no example, a doubled id, a file that changes meanwhile.
    """
    stamp, size, ids = source.stamp(), 0, Hashes()
    for example in _read(source, make):
        size += 1
        if ids_given:
            ids.add(example.id)
    doubled = ids.doubled()
    del ids
    if doubled:
        _refuse_doubled(source, make, doubled)

    def again() -> Iterator[Example]:
        _refuse_changed(source, stamp)
        yield from _read(source, make)
        _refuse_changed(source, stamp)

    _refuse_changed(source, stamp)
    return Examples(again, size)


def cut(examples: Examples, n: int, seed: int) -> tuple[Examples, Examples]:
    """Split off `n` random examples (fewer than there are): the others, and those, both in order."""
    # A generator of its own: the split must be the same whatever the seed of the run is.
    chosen = random.Random(seed).sample(range(len(examples)), n)  # noqa: S311 - no secret
    places = array("Q", sorted(chosen))
    return (
        Examples(lambda: pick(examples, places, inside=False), len(examples) - n),
        Examples(lambda: pick(examples, places, inside=True), n),
    )


def limit(examples: Examples, n: int | None) -> Examples:
    """The first `n` examples, or all for None."""
    if n is None or n >= len(examples):
        return examples
    return Examples(lambda: islice(examples, n), n)


def join(first: Examples, second: Examples) -> Examples:
    """The examples of both, one after the other."""

    def again() -> Iterator[Example]:
        yield from first
        yield from second

    return Examples(again, len(first) + len(second))


def hide(examples: Examples, name: str, held_out: Hashes) -> Examples:
    """Examples of the task `name` without gold labels, and without those whose text is held out."""

    def again() -> Iterator[Example]:
        for e in examples:
            if e.text not in held_out:
                yield Example(f"{name}:{e.id}", e.text, None, e.options)

    return Examples(again, sum(1 for _ in again()))


def pick(examples: Examples, places: Sequence[int], inside: bool) -> Iterator[Example]:
    """The examples at `places` (ascending), or all others."""
    waiting = iter(places)
    place = next(waiting, -1)
    for index, example in enumerate(examples):
        hit = index == place
        if hit:
            place = next(waiting, -1)
        if hit == inside:
            yield example


def digest_examples(examples: Mapping[Split, Iterable[Example]]) -> str:
    """Hash of all examples, their order and splits; taken one at a time."""
    return digest_all(
        chain.from_iterable(chain((name,), map(repr, examples[name])) for name in sorted(examples))
    )


def _read(source: Source, make: Reader) -> Iterator[Example]:
    for index, row in enumerate(source.rows()):
        try:
            example = make(row, index)
        except KeyError as error:
            raise DataError(
                f"{source.name}, row {index + 1}: no column '{error.args[0]}'; the row has: "
                f"{', '.join(row)}. Name the right one in the task file"
            ) from None
        except ValueError as error:
            raise DataError(f"{source.name}, row {index + 1}: {error}") from None
        yield example


def _refuse_doubled(source: Source, make: Reader, doubled: set[int]) -> None:
    """Two ids can share a hash, so only the ids themselves show whether one stands there twice."""
    seen: dict[str, int] = {}
    for index, example in enumerate(_read(source, make)):
        if _hash(example.id) not in doubled:
            continue
        if example.id in seen:
            raise DataError(
                f"{source.name}: the id {brief(example.id)} stands in rows {seen[example.id] + 1} and "
                f"{index + 1}; ids must be unique (or set `id: null` to number the rows)"
            )
        seen[example.id] = index


def _refuse_changed(source: Source, stamp: object) -> None:
    if source.stamp() != stamp:
        raise DataError(f"{source.name}: the file has changed since it was checked; run again")


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
