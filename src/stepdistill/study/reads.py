"""The journal of how often test has been read: what has been looked at twice was perhaps chosen by."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from io import FileIO
from pathlib import Path

from stepdistill.errors import DataError, RunFolderError
from stepdistill.files import parse_object, read_text, sync_folder, writing

JOURNAL = "test_reads.jsonl"


@dataclass(frozen=True, slots=True)
class Read:
    """One reading of test: by which arm of which configuration, on which data, in which folder.

    `config` and `data` are the hashes of a `RunRecord`; `reopened` says that test had been read for them
    before. `sources` is the hash of what lies in files besides: task file, recorded completions, weights;
    empty in lines of earlier versions, which knew of none.
    """

    task: str
    config: str
    arm: str
    data: str
    folder: str
    reopened: bool = False
    sources: str = ""

    def is_of(self, other: Read) -> bool:
        """Whether both read test for the same experiment, which is measured once."""
        if (self.config, self.arm, self.data) != (other.config, other.arm, other.data):
            return False
        return self.sources == other.sources or not (self.sources and other.sources)


_KEYS = {field.name for field in fields(Read)}
_LATER = {"reopened", "sources"}
"""Keys that lines of earlier versions lack."""


@dataclass(frozen=True)
class Reads:
    """The journal of all runs whose folders lie side by side; lines are added and never changed.

    Any number of processes may add at once. Half a line at its end, as a kill or a full disk leaves it, is no
    line, and is cut off by whoever adds the next.
    """

    path: Path

    def all(self) -> list[Read]:
        """Every reading, in order.

        Raises:
            DataError: a line is none.
        """
        if not self.path.exists():
            return []
        whole, _, _ = read_text(self.path).rpartition("\n")
        lines = enumerate(whole.split("\n"), start=1)
        return [_read(line, f"{self.path}:{number}") for number, line in lines if line.strip()]

    def of(self, read: Read) -> list[Read]:
        """The readings for the same arm of the same configuration on the same data."""
        return [other for other in self.all() if other.is_of(read)]

    def add(self, read: Read) -> None:
        """Add a line; it is on the disk when this returns.

        Raises:
            RunFolderError: no space, no permission.
        """
        line = json.dumps(asdict(read), ensure_ascii=True).encode() + b"\n"
        with writing(self.path), self.path.open("a+b", buffering=0) as file:
            # Waits for the others: nobody holds the lock for longer than a line takes.
            fcntl.flock(file, fcntl.LOCK_EX)
            end = _mend(file)
            try:
                _write(file, line)
                os.fsync(file.fileno())
            except OSError:
                file.truncate(end)
                raise
            sync_folder(self.path.parent)

    def settle(self, found: Sequence[Read]) -> None:
        """Add the readings of results that are recorded and that the journal lacks.

        A process that is killed between the two leaves such. A copied or renamed folder does not: its
        readings are counted, wherever they took place.

        Args:
            found: as many equal ones as there have been readings by the folder's own account, the first ones
                first.
        """
        for number, read in enumerate(found):
            before = sum(other.is_of(read) for other in found[:number])
            if len(self.of(read)) <= before:
                self.add(read)

    def refuse(self, read: Read) -> None:
        """Refuse a reading of test where there has been one already: a second look may choose by test.

        Raises:
            RunFolderError: there has been one, for the same arm of the same configuration and data.
        """
        before = self.of(read)
        if not before:
            return
        where = self.path.parent / before[-1].folder
        gone = ", and the result is gone" if before[-1].folder == read.folder else ""
        raise RunFolderError(
            f"test has been read for '{read.arm}' of this configuration already, in {where}{gone}; keep that "
            f"result, or give --reopen-test to read it again, which is noted in {self.path}"
        )

    def need_writable(self) -> None:
        """Refuse before the work where the journal could not be kept.

        Raises:
            RunFolderError: its folder or file cannot be written to.
        """
        place = self.path if self.path.exists() else self.path.parent
        if not os.access(place, os.W_OK):
            raise RunFolderError(
                f"{place}: not writable, and readings of test are noted in {self.path}; choose an `out` "
                "elsewhere"
            )


def _read(line: str, place: str) -> Read:
    row = parse_object(line, place)
    if not row.keys() >= _KEYS - _LATER:
        raise DataError(
            f"{place}: no reading of test, it lacks {sorted(_KEYS - _LATER - row.keys())[0]}; delete the line"
        )
    return Read(**{key: value for key, value in row.items() if key in _KEYS})


def _mend(file: FileIO) -> int:
    """Cut half a line off the end; where the next one begins."""
    end = file.seek(0, os.SEEK_END)
    start = end
    while start:
        start = max(0, start - 4096)
        file.seek(start)
        piece = file.read(min(4096, end - start)) or b""
        if b"\n" in piece:
            start += piece.rindex(b"\n") + 1
            break
    if start < end:
        file.truncate(start)
    return start


def _write(file: FileIO, line: bytes) -> None:
    while line:
        written = file.write(line)
        if not written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        line = line[written:]
