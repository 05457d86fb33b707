"""Encoded examples in one Arrow file, read through a memory map: memory does not grow with the data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from stepdistill.errors import StudentError
from stepdistill.files import replacing
from stepdistill.student.encode import TASKS, Branch, Item, Row, tokens

CHUNK = 1024
"""Examples in one record batch: all that is held in memory while a corpus is written."""

_IDS = pa.list_(pa.int32())
_BRANCH = pa.struct(
    [("task", pa.int8()), ("opening", _IDS), ("target", _IDS), ("weight", pa.float64())]  # task: in TASKS
)
_ROW = pa.struct([("source", _IDS), ("branches", pa.list_(_BRANCH))])
_SCHEMA = pa.schema(
    # Ids are bytes, since a JSON file can hold half a surrogate pair, which is no UTF-8.
    [("id", pa.binary()), ("length", pa.int32()), ("rows", pa.list_(_ROW))],
    metadata={"stepdistill": "encoded examples, 1"},
)


class Corpus:
    """Encoded examples of a file; `corpus[i]` is `(i, item)`.

    A negative `i` is example `~i` muted: the same item with all weights 0.0, under the number `i`. Muted
    examples fill up micro-batches and change no gradient. Other processes are given the path alone and
    map the file anew.

    Attributes:
        path: the file.
        lengths: int32 (examples,), how many tokens of each the model reads and writes.

    Raises:
        StudentError: there is no such file, it is damaged, or `write_corpus` has not written it.
    """

    path: Path
    lengths: np.ndarray[Any, np.dtype[np.int32]]

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            reader = pa.ipc.open_file(pa.memory_map(str(path)))
            if not reader.schema.equals(_SCHEMA, check_metadata=True):
                raise StudentError(f"{path}: not a file of encoded examples; delete it and train again")
            batches = [reader.get_batch(k) for k in range(reader.num_record_batches)]
            self._parts = [_Part.of(batch) for batch in batches]
        except FileNotFoundError:
            raise StudentError(f"{path}: no such file of encoded examples; train again") from None
        except (OSError, pa.ArrowException) as error:
            cause = str(error).split("\n")[0]
            raise StudentError(
                f"{path}: damaged file of encoded examples ({cause}); delete it and train again"
            ) from None
        sizes = [len(part.lengths) for part in self._parts]
        self._starts = np.cumsum([0, *sizes])
        self.lengths = np.concatenate([np.empty(0, np.int32), *(part.lengths for part in self._parts)])

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, i: int) -> tuple[int, Item]:
        part, place = self._find(i)
        item = part.item(place)
        return i, (_muted(item) if i < 0 else item)

    def __reduce__(self) -> tuple[type[Corpus], tuple[Path]]:
        return Corpus, (self.path,)

    def id(self, i: int) -> str:
        """The id of an example, muted or not."""
        part, place = self._find(i)
        raw: bytes = part.ids[place].as_py()
        return raw.decode("utf-8", "surrogatepass")

    def _find(self, i: int) -> tuple[_Part, int]:
        example = ~i if i < 0 else i
        if example >= len(self):
            raise IndexError(f"example {example} of {len(self)}")
        part = int(np.searchsorted(self._starts, example, "right")) - 1
        return self._parts[part], example - int(self._starts[part])


def write_corpus(path: Path, items: Iterable[tuple[str, Item]]) -> Corpus:
    """Write examples, each an id and an item, as they come, and open the file.

    The file takes its name once it is whole and on the disk.

    Raises:
        RunFolderError: no space, no permission.
    """
    with replacing(path, binary=True) as file, pa.ipc.new_file(file, _SCHEMA) as writer:
        for batch in _batches(items):
            writer.write_batch(batch)
    return Corpus(path)


def _batches(items: Iterable[tuple[str, Item]]) -> Iterator[pa.RecordBatch]:
    rest = iter(items)
    while chunk := list(islice(rest, CHUNK)):
        rows = [
            {
                "id": name.encode("utf-8", "surrogatepass"),
                "length": tokens(item),
                "rows": [{"source": r.source, "branches": [_plain(b) for b in r.branches]} for r in item],
            }
            for name, item in chunk
        ]
        yield pa.RecordBatch.from_pylist(rows, _SCHEMA)


def _plain(branch: Branch) -> dict[str, Any]:
    return {
        "task": TASKS.index(branch.task),
        "opening": branch.opening,
        "target": branch.target,
        "weight": branch.weight,
    }


def _muted(item: Item) -> Item:
    return tuple(replace(row, branches=tuple(replace(b, weight=0.0) for b in row.branches)) for row in item)


@dataclass(frozen=True, slots=True)
class _Lists:
    """A column of lists: list k is `values[offsets[k]:offsets[k + 1]]`."""

    offsets: np.ndarray[Any, np.dtype[np.int32]]
    values: np.ndarray[Any, np.dtype[np.int32]]

    @classmethod
    def of(cls, array: pa.ListArray) -> _Lists:
        return cls(array.offsets.to_numpy(), array.values.to_numpy())

    def __getitem__(self, k: int) -> list[int]:
        ids: list[int] = self.values[self.offsets[k] : self.offsets[k + 1]].tolist()
        return ids


@dataclass(frozen=True, slots=True)
class _Part:
    """A record batch as arrays over the map; Arrow's own values are slow to take one at a time."""

    ids: pa.BinaryArray
    lengths: np.ndarray[Any, np.dtype[np.int32]]
    rows: np.ndarray[Any, np.dtype[np.int32]]
    sources: _Lists
    branches: np.ndarray[Any, np.dtype[np.int32]]
    tasks: np.ndarray[Any, np.dtype[np.int8]]
    openings: _Lists
    targets: _Lists
    weights: np.ndarray[Any, np.dtype[np.float64]]

    @classmethod
    def of(cls, batch: pa.RecordBatch) -> _Part:
        # In full: offsets that point anywhere would give other examples' ids without a word.
        batch.validate(full=True)
        rows = batch.column("rows")
        branches = rows.values.field("branches")
        part = cls(
            batch.column("id"),
            batch.column("length").to_numpy(),
            rows.offsets.to_numpy(),
            _Lists.of(rows.values.field("source")),
            branches.offsets.to_numpy(),
            branches.values.field("task").to_numpy(),
            _Lists.of(branches.values.field("opening")),
            _Lists.of(branches.values.field("target")),
            branches.values.field("weight").to_numpy(),
        )
        held = sum(len(lists.values) for lists in (part.sources, part.openings, part.targets))
        if int(part.lengths.sum(dtype=np.int64)) != held:
            raise pa.ArrowInvalid("the lengths do not add up")
        if not np.isin(part.tasks, range(len(TASKS))).all():
            raise pa.ArrowInvalid("a task has no name")
        return part

    def item(self, place: int) -> Item:
        """The example at a place of this batch."""
        return tuple(
            Row(self.sources[row], tuple(map(self._branch, range(*self.branches[row : row + 2].tolist()))))
            for row in range(*self.rows[place : place + 2].tolist())
        )

    def _branch(self, k: int) -> Branch:
        task = TASKS[self.tasks[k]]
        return Branch(task, self.openings[k], self.targets[k], float(self.weights[k]))
