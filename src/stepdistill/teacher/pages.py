"""Answers found in the raw bytes of a ledger, wherever they lie, for files that SQLite refuses.

A record begins with the types of its columns, and those of an answer begin and end in a known way. So
answers are found without any structure of the file (https://www.sqlite.org/fileformat2.html), and each
is proved by its seal. Only the pages that a long answer overflows to are followed by their numbers.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable, Iterator
from typing import BinaryIO

from stepdistill.teacher import account
from stepdistill.teacher.schema import PAGE
from stepdistill.teacher.wal import FRAME, HEADER

Value = int | float | bytes | None
COLUMNS = 15
ANSWER = re.compile(rb"(?=[\x10-\x40]\x00\x2c)")
"""Length of the header, the row number (kept elsewhere, so NULL), and 16 bytes of slot."""
SEAL = 0x1C
"""The type of 8 bytes, with which the header of an answer ends."""
SUM = re.compile(rb"\x04[\x15\x1b\x1d]([\x01-\x06\x08\x09])\x1c(paid|presumed|answers)")
WIDTHS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8, 7: 8}
"""Bytes of a number by its type; types from 12 are blobs and texts."""
Fetch = Callable[[int], bytes]


class Raw:
    """The pages of a ledger and of its write-ahead log, as they lie in two files."""

    def __init__(self, file: BinaryIO, log: BinaryIO | None) -> None:
        self._file, self._log = file, log
        self._size, self._log_size = _size(file), _size(log)
        self._last = {self._number(place): place + FRAME for place in self._frames()}
        """Where the log has the last copy of a page."""

    def records(self) -> Iterator[list[Value]]:
        """Columns of all that looks like an answer, its seal last; also of broken ones and old copies."""
        most = self._size + self._log_size
        fetches: list[Fetch] = [self._newest, self._oldest] if self._last else [self._oldest]
        for page in self._pages():
            for match in ANSWER.finditer(page):
                for fetch in fetches:
                    record = _record(page, match.start(), fetch, most)
                    if record is not None:
                        yield record

    def sums(self) -> dict[str, int]:
        """The account's sums as far as a seal is whole; of several copies the largest, which is the last."""
        found: dict[str, int] = {}
        for page in self._pages():
            for match in SUM.finditer(page):
                kind, name, start = match[1][0], match[2].decode(), match.end()
                end = start + _width(kind)
                amount = _value(kind, page[start:end])
                if isinstance(amount, int) and account.seal(name, amount) == page[end : end + 8]:
                    found[name] = max(amount, found.get(name, 0))
        return found

    def _pages(self) -> Iterator[bytes]:
        for place in range(0, self._size, PAGE):
            yield _read(self._file, place)
        for place in self._frames():
            yield _read(self._log, place + FRAME)

    def _frames(self) -> range:
        return range(HEADER, self._log_size - FRAME, FRAME + PAGE)

    def _number(self, frame: int) -> int:
        return int.from_bytes(_read(self._log, frame)[:4], "big")

    def _newest(self, number: int) -> bytes:
        place = self._last.get(number)
        return self._oldest(number) if place is None else _read(self._log, place)

    def _oldest(self, number: int) -> bytes:
        place = (number - 1) * PAGE
        return _read(self._file, place) if 0 <= place < self._size else b""


def _record(page: bytes, start: int, fetch: Fetch, most: int) -> list[Value] | None:
    """The columns of the record that begins at `start`; None where none does."""
    end = start + page[start]
    if end > len(page) or page[end - 1] != SEAL:
        return None
    kinds = _varints(page[start + 1 : end])
    widths = [_width(kind) for kind in kinds]
    total = page[start] + sum(widths)
    if len(kinds) != COLUMNS or total > most:
        return None
    raw = _payload(page, start, total, fetch)
    values, place = [], page[start]
    for kind, width in zip(kinds, widths, strict=True):
        values.append(_value(kind, raw[place : place + width]))
        place += width
    return values


def _payload(page: bytes, start: int, total: int, fetch: Fetch) -> bytes:
    """A record's bytes, of which the first pages of its chain may be missing at the end."""
    most, least = PAGE - 35, (PAGE - 12) * 32 // 255 - 23
    here = least + (total - least) % (PAGE - 4)
    here = total if total <= most else here if here <= most else least
    parts, missing = [page[start : start + here]], total - here
    following = int.from_bytes(page[start + here : start + here + 4], "big")
    while missing > 0 and (more := fetch(following)):
        parts.append(more[4 : 4 + missing])
        missing -= PAGE - 4
        following = int.from_bytes(more[:4], "big")
    return b"".join(parts)


def _varints(raw: bytes) -> list[int]:
    found, value = [], 0
    for byte in raw:
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            found.append(value)
            value = 0
    return found


def _width(kind: int) -> int:
    return (kind - 12) // 2 if kind >= 12 else WIDTHS.get(kind, 0)


def _value(kind: int, raw: bytes) -> Value:
    if kind >= 12:
        return raw
    if kind in (8, 9):
        return kind - 8
    if kind == 7:
        return float(struct.unpack(">d", raw)[0]) if len(raw) == 8 else None
    return int.from_bytes(raw, "big", signed=True) if raw else None


def _size(file: BinaryIO | None) -> int:
    return 0 if file is None else file.seek(0, os.SEEK_END)


def _read(file: BinaryIO | None, place: int) -> bytes:
    if file is None:
        return b""
    file.seek(place)
    return file.read(PAGE)
