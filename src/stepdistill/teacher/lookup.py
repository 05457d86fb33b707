"""Places of rows in a file by their ids, in 24 bytes a row: the ids themselves stay in the file."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray


class Lookup:
    """Where the rows of a file begin, in its order and by the hashes of their ids.

    A row whose id has stood before takes the place of the earlier one, as in a dict.

    Args:
        hashes: `hash_id` of each row, in the order of the file; at least one.
        places: the bytes at which their lines begin.
        id_at: reads the id of the row at a place; asked only where hashes are equal.
    """

    def __init__(self, hashes: array[int], places: array[int], id_at: Callable[[int], str]) -> None:
        found = np.frombuffer(hashes, np.uint64)
        # Stable: of the rows that share a hash, the later one has the last word.
        order = np.argsort(found, kind="stable")
        self._hashes: NDArray[np.uint64] = found[order]
        self._rows: NDArray[np.intp] = order
        self._places: NDArray[np.int64] = np.array(places, np.int64)
        self._join_doubled(id_at)

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[int]:
        return (int(place) for place in self._places)

    def candidates(self, id_: str) -> Iterator[int]:
        """Places of the rows whose ids have the hash of this one; its own is among them, if it has one."""
        # As uint64: beside a signed number all hashes would be turned into floats, and made unsharp.
        key = np.uint64(hash_id(id_))
        at = int(np.searchsorted(self._hashes, key))
        while at < len(self._hashes) and self._hashes[at] == key:
            yield int(self._places[self._rows[at]])
            at += 1

    def _join_doubled(self, id_at: Callable[[int], str]) -> None:
        kept = np.ones(len(self._places), np.bool_)
        known: dict[str, int] = {}
        last = -1
        for at in map(int, np.flatnonzero(self._hashes[1:] == self._hashes[:-1])):
            first, row = int(self._rows[at]), int(self._rows[at + 1])
            if at != last + 1 or not known:
                known = {id_at(int(self._places[first])): first}
            last = at
            first = known.setdefault(id_at(int(self._places[row])), row)
            if first != row:
                self._places[first], kept[row] = self._places[row], False
        if not kept.all():
            stay = kept[self._rows]
            self._hashes = self._hashes[stay]
            self._rows = (np.cumsum(kept) - 1)[self._rows[stay]]
            self._places = self._places[kept]


def hash_id(id_: str) -> int:
    """64 bits of any text, half a surrogate pair included."""
    return int.from_bytes(blake2b(id_.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
